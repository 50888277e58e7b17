"""Plots: what they show, and how they are saved."""

import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from cyconv.experiments import plots
from cyconv.experiments.statistics import confidence_interval
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
    low, high = confidence_interval([100 * value for value in values])
    ((start, end),) = [segment[:, 1] for segment in axes.containers[0].lines[2][0].get_segments()]
    assert (start, end) == pytest.approx((low, high)) and any(
        "95 % interval of the mean" in text.get_text() for text in figure.texts
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1\na", "2\nb"]
    assert figure.get_suptitle() == TITLE and axes.get_ylim()[0] == 0


def test_without_scipy_pictures_show_deviations_and_ranges(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    figure = plots.plot_bars({"a": [0.50, 0.52, 0.57]}, TITLE, "accuracy (%)", percent=True)
    (segment,) = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([53 - 3.6056, 53 + 3.6056], abs=1e-3)
    assert any("± one standard deviation" in text.get_text() for text in figure.texts)
    assert "bands: lowest to highest" in texts_of(plots.plot_gap({"a": [history(), history()]}, TITLE))[0]
    assert "95 % interval" not in str(texts_of(plots.plot_search({"round 1": {0.1: [0.5, 0.6]}}, TITLE)))


def test_bands_are_intervals_of_the_mean():
    runs = [history(seed=seed) for seed in range(3)]
    band = plots.plot_cycles({"a": runs}, TITLE).axes[1].collections[0].get_paths()[0].vertices[:, 1]
    last = 100 * np.array([each["acc_val"][-1] for each in runs])
    low, high = np.clip(confidence_interval(last), 0, 100)
    assert any(np.isclose(band, low)) and any(np.isclose(band, high)) and 0 <= band.min() < band.max() <= 100


@pytest.mark.parametrize("n_bars", [2, 6])
def test_bars_have_what_is_published_beside_them(n_bars):
    groups = {f"label {i}": [0.5, 0.6] for i in range(n_bars)}
    published = {"label 0": [(0.4, 0.7), (0.65, 0.65)]}
    figure = plots.plot_bars(groups, TITLE, "accuracy (%)", percent=True, published=published)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    marks = [line for line in axes.lines if line.get_marker() == "D"]
    values = [list(line.get_ydata() if n_bars == 2 else line.get_xdata()) for line in marks]
    assert values == [pytest.approx([40, 70]), pytest.approx([65, 65])]
    assert "label 0 55.0 ± 7.1 (published: 40.0 to 70.0, 65.0); label 1 55.0 ± 7.1" in figure.caption
    assert figure.get_supxlabel().endswith("diamonds: published")
    number, beyond = axes.texts[0].get_window_extent(), axes.transData.transform((70, 70))
    assert number.y0 > beyond[1] if n_bars == 2 else number.x0 > beyond[0]
    assert "published" not in plots.plot_bars(groups, TITLE, "accuracy", published={}).get_supxlabel()


@pytest.mark.parametrize(
    "published, start",
    [
        ({"b": [(1, 2)]}, "published must hold labels of groups only, but got"),
        ({"a": [(1, 2, 3)]}, "published['a'] must hold pairs of numbers, but got"),
        ({"a": [1.0]}, "published['a'] must hold pairs of numbers, but got"),
        ({"a": [(1, np.nan)]}, "published['a'] must hold finite numbers, but got"),
        ({"a": 1.0}, "published['a'] must hold pairs of numbers, but got"),
        ([1.0], "published must be a mapping, but got"),
    ],
)
def test_bars_refuse_what_is_not_published_for_a_group(published, start):
    with pytest.raises((TypeError, ValueError)) as error:
        plots.plot_bars({"a": [1.0]}, TITLE, "seconds", published=published)
    assert str(error.value).startswith(start)


def test_a_single_run_needs_no_list():
    figure = plots.plot_bars({"a": 0.5}, TITLE, "accuracy")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.5]


def test_long_labels_of_bars_do_not_overlap():
    figure = plots.plot_bars({f"mean of image and mirror image {i}": [1.0, 2.0] for i in range(4)}, "t", "y")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_many_bars_lie_on_their_side_within_the_width_of_a_page():
    groups = {f"mean of image and mirror image {i}": [i + 1.0, i + 2.0] for i in range(9)}
    figure = plots.plot_bars(groups, TITLE, "seconds")
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == 9 and all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([i + 1.5 for i in range(9)])
    assert figure.get_figwidth() <= plots.TEXT_WIDTH and axes.get_xlabel() == "seconds"
    numbers = [text.get_window_extent() for text in axes.texts]
    assert all(box.x1 <= axes.get_window_extent().x1 for box in numbers)


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


def every_plot():
    """A call of each plot by its name, as a function of what else it is given; and how many axes it needs."""
    runs = {"a": [history(), history(seed=1)], "b": history(seed=2)}
    ends, schedule = [20, 50], CyclicSchedule(1e-5, 0.1, step_size=25, n_cycles=2)
    lines = {"left": {"ours": {3: [1.0, 2.0], 10: [4.0]}}, "right": {"ours": {3: [2.0]}}}
    return {
        "bars": (lambda **o: plots.plot_bars({"a": [0.5, 0.6], "b": [0.7]}, TITLE, "accuracy", **o), 1),
        "comparison": (lambda **o: plots.plot_comparison(runs, TITLE, ends, **o), 4),
        "train_validation": (lambda **o: plots.plot_train_validation(runs, TITLE, ends, **o), 4),
        "gap": (lambda **o: plots.plot_gap(runs, TITLE, ends, **o), 1),
        "cycles": (lambda **o: plots.plot_cycles(runs, TITLE, ends, **o), 2),
        "learning_rate": (lambda **o: plots.plot_learning_rate(schedule, TITLE, **o), 1),
        "filters": (lambda **o: plots.plot_filters({"a": np.ones((3, 3, 2, 2))}, TITLE, **o), 1),
        "confusion": (lambda **o: plots.plot_confusion(np.eye(2, dtype=int), ("cat", "dog"), TITLE, **o), 1),
        "lr_range": (lambda **o: plots.plot_lr_range({"a": range_test(), "b": range_test()}, TITLE, **o), 2),
        "panels": (lambda **o: plots.plot_panels(lines, TITLE, "filters", "time", **o), 2),
        "search": (lambda **o: plots.plot_search({"1": {0.1: [0.5, 0.6], 1.0: [0.7]}}, TITLE, 0.1, **o), 1),
    }


@pytest.mark.parametrize("name", every_plot())
def test_every_plot_draws_on_given_axes_and_leaves_their_style_alone(name):
    import matplotlib
    from matplotlib.figure import Figure

    plot, count = every_plot()[name]
    with matplotlib.rc_context({"font.size": 17.0, "axes.labelcolor": "red", "axes.grid": True}):
        figure = Figure()
        figure.suptitle("mine")
        axes = np.atleast_1d(figure.subplots(1, count))
        before = dict(matplotlib.rcParams.items())
        assert plot(axes=axes[0] if count == 1 else axes) is figure
        assert dict(matplotlib.rcParams.items()) == before
    assert all(panel.has_data() for panel in axes) and figure.get_suptitle() == "mine"
    plain = np.atleast_1d(Figure().subplots(1, count))
    plot(axes=plain[0] if count == 1 else plain)
    assert not any(line.get_visible() for panel in plain for line in [*panel.get_xgridlines(), *panel.get_ygridlines()])
    assert count > 1 or axes[0].get_title().startswith(TITLE) or name == "lr_range"
    labels = [panel.yaxis.label for panel in axes if panel.get_ylabel()]
    assert all(label.get_fontsize() == 17 and label.get_color() == "red" for label in labels)
    assert labels or name == "filters"
    figure.draw_without_rendering()


@pytest.mark.parametrize("name", every_plot())
def test_a_plot_refuses_what_are_not_the_axes_it_needs(name):
    from matplotlib.figure import Figure

    plot, count = every_plot()[name]
    with pytest.raises(TypeError, match="^axes must be .*matplotlib Axes, but got 'here'"):
        plot(axes="here")
    with pytest.raises(ValueError, match=f"^axes must be .*matplotlib Axes, but got {count + 1}$"):
        plot(axes=Figure().subplots(count + 1))


@pytest.mark.parametrize("name", every_plot())
def test_a_new_figure_fits_a_page_and_says_in_words_what_it_shows(name):
    figure = every_plot()[name][0]()
    assert figure.get_figwidth() <= plots.TEXT_WIDTH
    assert figure.caption.startswith(f"{TITLE}. ") and figure.caption.endswith(".") and "\n" not in figure.caption
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7


def test_a_users_style_sheet_wins_over_ours():
    import matplotlib

    plain = plots.plot_gap(history(), TITLE)
    with matplotlib.rc_context({"axes.labelsize": 20.0, "figure.facecolor": "black", "text.color": "white"}):
        figure = plots.plot_gap(history(), TITLE)
        axes = figure.axes[0]
    assert (axes.yaxis.label.get_fontsize(), plain.axes[0].yaxis.label.get_fontsize()) == (20, 9)
    assert figure.get_facecolor()[:3] == (0, 0, 0) and plain.get_facecolor()[:3] == (1, 1, 1)
    assert not axes.spines["top"].get_visible()  # what the user has not set is ours


def test_a_label_looks_the_same_in_all_figures_of_a_report():
    order = ["a", "b", "c"]
    three = plots.plot_comparison({label: history() for label in order}, TITLE, order=order)
    two = plots.plot_gap({"c": history(), "b": history()}, TITLE, order=order)
    bars = plots.plot_bars({"c": 1.0}, TITLE, order=order)
    looks = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in lines(three.axes[0])}
    assert {line.get_label(): (line.get_color(), line.get_linestyle()) for line in lines(two.axes[0])} == {
        label: looks[label] for label in "bc"
    }
    from matplotlib.colors import to_hex

    assert to_hex(bars.axes[0].patches[0].get_edgecolor()).upper() == looks["c"][0]
    with pytest.raises(TypeError, match="^order must be a sequence of labels, but got 'abc'"):
        plots.plot_gap(history(), TITLE, order="abc")


def test_no_two_of_many_lines_look_the_same():
    figure = plots.plot_gap({str(i): history(seed=i) for i in range(20)}, TITLE)
    curves = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert len({(line.get_color(), line._dash_pattern[1] and tuple(line._dash_pattern[1])) for line in curves}) == 20


def texts_of(figure):
    legend = figure.legends[0]
    return [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]


def test_the_legend_says_what_bands_mean_and_which_losses_are_off_the_scale():
    def falling(seed):
        made = History()
        for i in range(40):
            made.append(i, 0.1, (5.25 if i == 0 else 1.0 - 0.01 * i, 2.0, 0.1 * seed), (1.0, 2.0, 0.1))
        return made

    figure = plots.plot_comparison({"a": [falling(0), falling(1), falling(2)]}, TITLE)
    note = texts_of(figure)[0].replace("\n", " ")
    assert note == (
        "lines: means of 3 runs; bands: their 95 % intervals; the first losses, up to 5.25, are off the scale"
    )
    assert figure.axes[0].get_ylim()[1] < 2
    assert texts_of(plots.plot_gap({"a": [history(), history()], "b": history()}, TITLE))[0].startswith(
        "lines: means of 1 to 2 runs"
    )
    assert texts_of(plots.plot_gap({"a": history()}, TITLE))[0] == ""


@pytest.mark.parametrize("n_cycles, growth", [(3, 1.0), (4, 2.0), (4, 0.5), (30, 1.0), (1, 1.0)])
def test_axes_of_steps_have_ticks_at_the_ends_of_cycles_and_their_labels_do_not_touch(n_cycles, growth):
    schedule = CyclicSchedule(1e-5, 0.1, step_size=800, n_cycles=n_cycles, growth=growth)
    made = History()
    for step in range(0, schedule.total_steps + 1, 100):
        made.append(step, schedule(step), (1.0, 2.0, 0.1), (1.0, 2.0, 0.1))
    groups = dict.fromkeys("abcd", made)
    figures = [
        plots.plot_train_validation(groups, TITLE, schedule.boundaries),
        plots.plot_cycles(groups, TITLE, schedule.boundaries),
        plots.plot_learning_rate(schedule, TITLE),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        boxes = []
        for panel in figure.axes[-4:] if len(figure.axes) == 8 else figure.axes[-1:]:
            assert panel.get_xticks().tolist() == [0, *schedule.boundaries]
            assert panel.get_xlim()[1] > schedule.total_steps  # the last line is not cut in half
            labels = [label for label in panel.get_xticklabels() if label.get_text()]
            boxes += [label.get_window_extent() for label in labels]
            assert labels[-1].get_text() == f"{schedule.total_steps:,}"
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_the_lowest_learning_rate_is_not_shown_as_zero():
    schedule = CyclicSchedule(1e-5, 0.1, step_size=800, n_cycles=3)
    made = History()
    made.append(0, 1e-5, (1.0, 2.0, 0.1), (1.0, 2.0, 0.1))
    made.append(800, 0.1, (1.0, 2.0, 0.1), (1.0, 2.0, 0.1))
    for axes in (plots.plot_learning_rate(schedule, TITLE).axes[0], plots.plot_cycles(made, TITLE).axes[0]):
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels[0] == "1e-5" and labels[-1] == "0.1" and axes.get_yticks()[0] == 1e-5


def test_numbers_have_no_grid_lines_through_them_whatever_the_users_style():
    import matplotlib

    with matplotlib.rc_context({"axes.grid": True}):
        bars = plots.plot_bars({"a": [1.0, 2.0]}, TITLE).axes[0]
        matrix = plots.plot_confusion(np.eye(2, dtype=int), ("cat", "dog"), TITLE).axes[0]
    for axes in (bars, matrix):
        assert not any(line.get_visible() for line in [*axes.get_xgridlines(), *axes.get_ygridlines()])


def test_filters_say_how_they_are_scaled():
    figure = plots.plot_filters(np.ones((2, 3, 2, 2)), TITLE)
    assert "scaled by its own largest weight" in figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("file_format, start", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figures_are_written_in_the_format_asked_for_with_the_same_bytes_each_time(tmp_path, file_format, start):
    written = []
    for _ in range(2):
        figures = {"a": plots.plot_gap({"a": [history(), history(seed=1)]}, TITLE)}
        assert plots.save_figures(figures, tmp_path, file_format) == [f"a.{file_format}"]
        written.append((tmp_path / f"a.{file_format}").read_bytes())
    assert written[0].startswith(start) and written[0] == written[1]
    assert plots.figure_bytes(figures["a"], file_format) == written[0]
    with pytest.raises(ValueError, match="^file_format must be"):
        plots.save_figures(figures, tmp_path, "bmp")


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
