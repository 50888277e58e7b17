"""The figures of `cyconv.plots`, in a module of its own: importing matplotlib takes longer than importing cyconv."""

import io
import sys

import matplotlib.figure

from .plots import write_png


class Figure(matplotlib.figure.Figure):
    """A figure without a window, which a notebook shows as a picture."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        write_png(self, file, self.dpi)
        return file.getvalue()

    def show(self, warn: bool = True) -> None:
        """Show the picture in a notebook, or the window where pyplot has given the figure one.

        Raises
        ------
        AttributeError
            If there is neither.
        """
        if self.canvas.manager is not None:
            super().show(warn)
            return
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if shell is None or "image/png" not in shell.display_formatter.active_types:
            raise AttributeError("figure.show must be called in a notebook, but here is none: use figure.savefig(path)")
        from IPython.display import display

        display(self)
