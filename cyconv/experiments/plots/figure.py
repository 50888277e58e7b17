"""The figure class, in a module of its own: importing matplotlib takes longer than importing cyconv."""

import io
import sys

import matplotlib.figure

from .style import write_figure


class Figure(matplotlib.figure.Figure):
    """A figure without a window, which a notebook displays as an image.

    Attributes
    ----------
    caption : str
        What the figure shows, in words, for readers who cannot see it.
    """

    caption: str = ""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        write_figure(self, file, dpi=self.dpi)
        return file.getvalue()

    def show(self, warn: bool = True) -> None:
        """Display the figure in a notebook, or in its window if pyplot has given it one.

        Raises
        ------
        AttributeError
            If there is neither a notebook nor a window.
        """
        if self.canvas.manager is not None:
            super().show(warn)
            return
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if shell is None or "image/png" not in shell.display_formatter.active_types:
            raise AttributeError("figure.show must be called in a notebook, but here is none: use figure.savefig(path)")
        from IPython.display import display

        display(self)
