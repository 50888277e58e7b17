"""Pictures of a report: their files, and what a web page and a reader who cannot see them need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..._checks import check_choice
from ..._files import atomic_write, check_path
from ..._typing import StrPath
from ..plots.style import FORMATS, figure_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """A picture in a report.

    Attributes
    ----------
    name : str
        Of its file, relative to the report.
    caption : str
        What it shows, in words.
    image : bytes
        The picture as PNG or SVG, which a web page can embed.
    media_type : str
        Of ``image``.
    width, height : int
        In CSS pixels, of which 96 make an inch.
    """

    name: str
    caption: str
    image: bytes
    media_type: str
    width: int
    height: int


def save_pictures(figures: Mapping[str, Figure], folder: StrPath, file_format: str = "png") -> list[Picture]:
    """Write figures to a folder, each to a file named after its key, and describe them for a report.

    Parameters
    ----------
    figures : mapping of str to matplotlib.figure.Figure
        Of `cyconv.plots`, which give them captions.
    folder : path-like or OutputFolder
    file_format : {"png", "pdf", "svg"}

    Returns
    -------
    list of Picture
    """
    folder = check_path("folder", folder)
    check_choice("file_format", file_format, FORMATS)
    pictures = []
    for key, figure in figures.items():
        name, data = f"{key}.{file_format}", figure_bytes(figure, file_format)
        with atomic_write(folder / name) as file:
            file.write(data)
        shown = file_format if file_format in _MEDIA_TYPES else "png"
        pictures.append(
            Picture(
                name=name,
                caption=getattr(figure, "caption", "") or key,
                image=data if shown == file_format else figure_bytes(figure, shown),
                media_type=_MEDIA_TYPES[shown],
                width=round(96 * figure.get_figwidth()),
                height=round(96 * figure.get_figheight()),
            )
        )
    return pictures
