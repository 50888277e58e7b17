"""Plots: what they show, and how they are saved."""

import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from cyconv.experiments import plots
from cyconv.history import History
from cyconv.lr_range import LrRangeResult
from cyconv.schedules import CyclicSchedule

TITLE = "Something, some data set"


def history(n_points=6, seed=0):
    rng = np.random.default_rng(seed)
    made = History()
    for i in range(n_points):
        made.append(10 * i, 0.1, (2.0, 2.1, rng.random()), (2.2, 2.3, rng.random()))
    return made


def lines(axes):
    """The curves, without the vertical lines at the ends of cycles."""
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def vertical(axes):
    return [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]


def test_bars_show_mean_deviation_and_each_run():
    values = [0.50, 0.52, 0.57]
    figure = plots.plot_bars({"1: a": values, "2: b": [0.6]}, TITLE, "accuracy (%)", percent=True)
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([53.0, 60.0])
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert dots[0].get_ydata() == pytest.approx([50.0, 52.0, 57.0])
    assert dots[1].get_ydata() == pytest.approx([60.0])
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["53.0 ± 3.6", "60.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1\na", "2\nb"]
    assert figure.get_suptitle() == TITLE and axes.get_ylim()[0] == 0


def test_a_single_run_needs_no_list():
    figure = plots.plot_bars({"a": 0.5}, TITLE, "accuracy")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.5]


def test_long_labels_of_bars_do_not_overlap():
    figure = plots.plot_bars({f"mean of image and mirror image {i}": [1.0, 2.0] for i in range(8)}, "t", "y")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("groups", [{}, {"a": []}, {"a": [np.nan]}, {"a": [[1.0]]}, {"a": "x"}, [1.0]])
def test_bars_refuse_groups_without_values(groups):
    with pytest.raises((TypeError, ValueError), match="^groups"):
        plots.plot_bars(groups, TITLE, "seconds")


def test_comparison_draws_the_mean_over_runs_at_the_steps_they_share():
    runs = [history(6, 0), history(6, 1), history(4, 2)]
    figure = plots.plot_comparison({"a": runs, "b": [history(6, 3)]}, TITLE, boundaries=[20, 50])
    assert [axes.get_title() for axes in figure.axes] == [
        "Training loss",
        "Validation loss",
        "Training accuracy",
        "Validation accuracy",
    ]
    first, second = lines(figure.axes[3])
    assert first.get_xdata().tolist() == [0, 10, 20, 30]
    assert first.get_ydata() == pytest.approx(100 * np.mean([run["acc_val"][:4] for run in runs], axis=0))
    assert first.get_color() != second.get_color() and first.get_linestyle() != second.get_linestyle()
    assert all(vertical(axes) == [20, 50] for axes in figure.axes)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"a", "b", "end of a cycle"}


def test_train_validation_has_a_column_per_group():
    figure = plots.plot_train_validation({"a": [history()], "b": [history(seed=1)]}, TITLE, {"a": [20]})
    assert len(figure.axes) == 4
    assert [axes.get_title() for axes in figure.axes[:2]] == ["a", "b"]
    assert vertical(figure.axes[0]) == [20] and vertical(figure.axes[1]) == []
    training, validation = lines(figure.axes[2])
    assert training.get_ydata() == pytest.approx(100 * history()["acc_train"])
    assert validation.get_ydata() == pytest.approx(100 * history()["acc_val"])


CURVE_PLOTS = [plots.plot_comparison, plots.plot_train_validation, plots.plot_gap, plots.plot_cycles]


@pytest.mark.parametrize("plot", CURVE_PLOTS)
def test_a_single_history_is_accepted_like_several(plot):
    def drawn(figure):
        return [np.asarray(line.get_data()).tolist() for axes in figure.axes for line in axes.lines]

    expected = drawn(plot({"a": [history()]}, TITLE))
    for one in ({"a": history()}, history(), [history()]):
        assert drawn(plot(one, TITLE)) == expected
    expected = drawn(plot({"a": [history(), history(seed=1)]}, TITLE))
    for two in ([history(), history(seed=1)], iter([history(), history(seed=1)]), {"a": (history(), history(seed=1))}):
        assert drawn(plot(two, TITLE)) == expected
    assert {20} <= set(vertical(plot(history(), TITLE, np.array([20])).axes[0]))


@pytest.mark.parametrize(
    "plot, name, kind",
    [*((plot, "histories", "History") for plot in CURVE_PLOTS), (plots.plot_lr_range, "results", "LrRangeResult")],
)
@pytest.mark.parametrize(
    "value, error, words",
    [
        (5, TypeError, "{0} must be a {1} or a sequence of them, or a mapping of labels to these, but got 5 (int)"),
        ("curves.npz", TypeError, "{0} must be a {1} or a sequence"),
        ([object], TypeError, "{0} must be a {1} or a sequence"),
        ({"a": {"b": 1}}, TypeError, "{0}['a'] must be a {1} or a sequence of them, but got"),
        ({"a": None}, TypeError, "{0}['a'] must be a {1} or a sequence of them, but got None"),
        ({}, ValueError, "{0} must hold at least one {1}"),
        ([], ValueError, "{0} must hold at least one {1}"),
        ({"a": []}, ValueError, "{0} must hold at least one {1}"),
    ],
)
def test_bad_curves_are_refused_in_one_sentence(plot, name, kind, value, error, words):
    with pytest.raises(error) as caught:
        plot(value, TITLE)
    assert str(caught.value).startswith(words.format(name, kind)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: plots.plot_search([0.5], TITLE), "rounds"),
        (lambda: plots.plot_panels([1.0], TITLE, "x", "y"), "panels"),
        (lambda: plots.save_figures(["figure"], "."), "figures"),
    ],
)
def test_plots_that_need_labels_say_so(call, name):
    with pytest.raises(TypeError, match=f"^{name} must be a mapping, but got"):
        call()


def test_runs_without_points_are_drawn_as_empty_curves():
    figure = plots.plot_comparison({"a": [History()]}, TITLE)
    assert all(not lines(axes) for axes in figure.axes)
    plots.plot_train_validation({"a": [history(1)]}, TITLE)


def test_the_learning_rate_curve_reaches_every_corner():
    schedule = CyclicSchedule(1e-5, 0.1, step_size=7919, n_cycles=3)
    axes = plots.plot_learning_rate(schedule, TITLE).axes[0]
    curve = lines(axes)[0]
    assert (curve.get_ydata() == 0.1).sum() == 3
    assert vertical(axes) == schedule.boundaries.tolist()


def test_filters_are_ordered_by_size_and_scaled_one_by_one():
    weights = np.zeros((3, 3, 2, 2), np.float32)
    weights[1, 0, 0, 0] = 2.0  # the largest filter: its one weight is red and positive
    weights[2, 2, 1, 1] = -1.0  # the next: blue and negative
    mosaic = plots.plot_filters({"a": weights}, TITLE).axes[0].images[0].get_array()
    size = mosaic.shape[0]
    step = (mosaic.shape[1] - size) // 2
    assert mosaic[0, 0].tolist() == [1.0, 0.5, 0.5]
    assert mosaic[size - 1, step + size - 1].tolist() == [0.5, 0.5, 0.0]
    assert mosaic[0, 2 * step].tolist() == [0.5, 0.5, 0.5]  # all zero: grey, no division by zero
    assert np.array_equal(plots.plot_filters(weights, TITLE).axes[0].images[0].get_array(), mosaic)
    with pytest.raises(ValueError, match="filters"):
        plots.plot_filters({"a": np.zeros((3, 2, 2, 2))}, TITLE)
    with pytest.raises(ValueError, match="filters"):
        plots.plot_filters({}, TITLE)


def test_confusion_is_in_percent_of_the_true_class():
    counts = np.array([[3, 1], [0, 0]])
    axes = plots.plot_confusion(counts, ("cat", "dog"), TITLE).axes[0]
    assert [text.get_text() for text in axes.texts] == ["75", "25", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    with pytest.raises(ValueError, match="confusion must have shape"):
        plots.plot_confusion(counts, ("cat", "dog", "bird"), TITLE)


def test_confusion_of_many_classes_has_names_and_no_numbers():
    names = [f"$class_{k}$" for k in range(100)]
    axes = plots.plot_confusion(np.eye(100, dtype=int), names, TITLE).axes[0]
    assert not axes.texts and [label.get_text() for label in axes.get_yticklabels()] == names
    assert not any(label.get_parse_math() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()])


def test_a_saved_figure_is_a_reproducible_png_of_150_dpi(tmp_path):
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for path in paths:
        plots.save_figure(plots.plot_bars({"a": [1.0, 2.0]}, TITLE, "seconds"), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second and first.startswith(b"\x89PNG")
    per_metre = int.from_bytes(first[first.index(b"pHYs") + 4 :][:4], "big")
    assert per_metre == round(150 / 0.0254)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_drawing_does_not_change_matplotlibs_settings():
    import matplotlib

    settings = [name for name in matplotlib.rcParams if name != "backend"]  # it is looked up when read
    before = [matplotlib.rcParams[name] for name in settings]
    plots.plot_bars({"a": [1.0]}, TITLE, "seconds")
    assert [matplotlib.rcParams[name] for name in settings] == before


def test_pyplot_is_not_imported():
    code = (
        "import sys; from cyconv import plots; plots.plot_bars({'a': [1.0]}, 't', 's'); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.optional
def test_a_notebook_shows_a_figure_once(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [
        "from cyconv import plots\nfigure = plots.plot_bars({'a': [1.0]}, 't', 's')",
        "figure",
        "figure.show()",
        "%matplotlib inline",
        "figure",
        "figure.show()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [[sorted(output.get("data", {})) for output in cell.outputs] for cell in notebook.cells]
    picture = [["image/png", "text/plain"]]
    assert shown == [[], picture, picture, [], picture, picture]


def test_a_figure_can_be_shown_in_notebooks_only():
    figure = plots.plot_bars({"a": [1.0]}, TITLE, "seconds")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_() == figure._repr_png_()
    with pytest.raises(AttributeError, match="figure.show must be called in a notebook.*figure.savefig"):
        figure.show()


def range_test(start=3.0, eta_min=1e-3, eta_max=1e-1):
    rates = np.geomspace(1e-5, 1.0, 50)
    costs = np.interp(np.log10(rates), [-5, -3, -1, 0], [start, start, 1, 9])
    return LrRangeResult(rates, costs, costs, eta_min, eta_max, diverged=False)


def test_range_tests_have_a_panel_per_network_and_the_mean_range_shaded():
    results = {"a": [range_test(), range_test(4.0, 1e-1, 1e-1)], "b": [range_test(eta_min=None, eta_max=None)]}
    figure = plots.plot_lr_range(results, TITLE)
    first, second = figure.axes
    assert first.get_title() == "a\nsuggested: 1.0e-02 to 1.0e-01"
    assert second.get_title() == "b\nno range suggested"
    assert vertical(first) == pytest.approx([1e-2, 1e-1]) and vertical(second) == []
    assert first.get_xscale() == "log"
    low, high = first.get_ylim()
    assert low < 1.0 and 4.0 < high < 9.0  # the scale leaves out diverging costs
    assert len(plots.plot_lr_range({name: [range_test()] for name in "abcd"}, TITLE).axes) == 4
    one = plots.plot_lr_range(range_test(), TITLE).axes
    assert [axes.get_title() for axes in one] == ["suggested: 1.0e-03 to 1.0e-01"]
    assert len(plots.plot_lr_range([range_test(), range_test()], TITLE).axes) == 1
    with pytest.raises(ValueError, match="results must hold"):
        plots.plot_lr_range({"a": []}, TITLE)


def test_the_gap_is_validation_less_training_loss():
    runs = [history(), history(seed=1)]
    axes = plots.plot_gap({"a": runs}, TITLE, [20]).axes[0]
    curve = lines(axes)[0]
    assert curve.get_ydata() == pytest.approx(0.2 * np.ones(6))
    assert 20 in vertical(axes)


def test_panels_draw_medians_between_lowest_and_highest():
    panels = {"f = 2": {"ours": {3: [1.0, 2.0, 9.0], 10: [4.0]}, "theirs": {3: [5.0]}}, "f = 4": {"ours": {3: [2.0]}}}
    figure = plots.plot_panels(panels, TITLE, "filters", "time")
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["f = 2", "f = 4"]
    ours = first.containers[0]
    assert ours.lines[0].get_xdata().tolist() == [3, 10] and ours.lines[0].get_ydata().tolist() == [2.0, 4.0]
    (low, high), _ = ours.lines[2][0].get_segments()
    assert (low[1], high[1]) == (1.0, 9.0)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"ours", "theirs"}
    assert [label.get_text() for label in second.get_xticklabels()] == ["3", "10"]
    with pytest.raises(ValueError, match="panels"):
        plots.plot_panels({}, TITLE, "filters", "time")


def test_cycles_show_the_learning_rate_above_the_validation_accuracy():
    runs = [history(seed=0), history(seed=1)]
    above, below = plots.plot_cycles({"a": runs, "b": history(seed=2)}, TITLE, [20, 50]).axes
    (rate,) = lines(above)
    assert rate.get_xdata().tolist() == [0, 10, 20, 30, 40, 50] and set(rate.get_ydata()) == {0.1}
    mean, single = lines(below)
    assert mean.get_ydata() == pytest.approx(50 * (runs[0]["acc_val"] + runs[1]["acc_val"]))
    assert single.get_ydata() == pytest.approx(100 * history(seed=2)["acc_val"])
    assert vertical(above) == vertical(below) == [20, 50]
