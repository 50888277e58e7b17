"""Figures of training runs: one function each, all in the same style.

Every function returns a `matplotlib.figure.Figure` of its own, without a
window and without global state, or draws on the ``axes`` that it is given. A
notebook displays a figure as an image; `save_figure` writes it as PNG, PDF or
SVG. Figures are as wide as the text of a page. Their style leaves alone what
the user's own style sheet sets, and draws on given axes in the user's style
only. The colours are those of Okabe and Ito, which colour-blind readers can
tell apart; lines also differ in their dashes. ``figure.caption`` says in words
what a new figure shows.
"""

from .bars import plot_bars
from .curves import plot_comparison, plot_cycles, plot_gap, plot_learning_rate, plot_train_validation
from .images import plot_confusion, plot_filters
from .style import COLOURS, DASHES, DPI, FORMATS, TEXT_WIDTH, figure_bytes, save_figure, save_figures
from .sweeps import plot_lr_range, plot_panels, plot_search

__all__ = [
    "COLOURS",
    "DASHES",
    "DPI",
    "FORMATS",
    "TEXT_WIDTH",
    "figure_bytes",
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
