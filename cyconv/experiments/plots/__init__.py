"""Figures of training runs: one function each, all in the same style.

Every function returns a `matplotlib.figure.Figure` of its own, without a
window and without global state. A notebook displays it as an image;
`save_figure` writes it as PNG. Titles name the data set. The colours are
those of Okabe and Ito, which colour-blind readers can tell apart; lines also
differ in their dashes.
"""

from .bars import plot_bars
from .curves import plot_comparison, plot_cycles, plot_gap, plot_learning_rate, plot_train_validation
from .images import plot_confusion, plot_filters
from .style import COLOURS, DASHES, DPI, save_figure, save_figures
from .sweeps import plot_lr_range, plot_panels, plot_search

__all__ = [
    "COLOURS",
    "DASHES",
    "DPI",
    "plot_bars",
    "plot_comparison",
    "plot_confusion",
    "plot_cycles",
    "plot_filters",
    "plot_gap",
    "plot_learning_rate",
    "plot_lr_range",
    "plot_panels",
    "plot_search",
    "plot_train_validation",
    "save_figure",
    "save_figures",
]
