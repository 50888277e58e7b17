"""Intervals and tests of differences between rows: how often they err, and which test compares what."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from pages import ROOT

from cyconv.experiments import report, statistics
from cyconv.experiments.statistics import Sample

T_95 = {1: 12.7062, 2: 4.30265, 4: 2.77645}  # Student's t, 97.5 %, by degrees of freedom


LIMITED = """
import resource
from pathlib import Path
from cyconv.experiments import statistics
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
print(statistics.confidence_interval([1.0, 2.0]))
"""


@pytest.fixture
def without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)


def sample(values, start="f=4", first=0):
    return Sample(dict(enumerate(values, first)), start)


def test_mean_and_deviation_agree_with_their_definitions(rng):
    values = rng.random(5).tolist()
    mean, deviation = statistics.mean_and_deviation(values)
    assert mean == pytest.approx(sum(values) / 5)
    assert deviation == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 4))
    with pytest.raises(ValueError, match="values must be at least one number"):
        statistics.mean_and_deviation([])


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_of_means_are_those_of_student(rng, n):
    values = rng.random(n)
    low, high = statistics.confidence_interval(values)
    half = T_95[n - 1] * values.std(ddof=1) / math.sqrt(n)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-4)
    document = statistics.describe_values(values.tolist())
    assert document["interval"] == [low, high] and document["each"] == values.tolist()
    table = rng.random((n, 4))
    margins = [np.diff(statistics.confidence_interval(column))[0] / 2 for column in table.T]
    assert statistics.margin_of_error(table) == pytest.approx(margins)


def test_about_95_percent_of_intervals_hold_the_mean(rng):
    held = [low <= 0 <= high for low, high in map(statistics.confidence_interval, rng.standard_normal((2000, 3)))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_one_run_and_what_is_not_finite_have_no_interval():
    for values in ([0.5], [0.5, math.nan], [math.inf, 0.5]):
        assert statistics.confidence_interval(values) is None
    document = statistics.describe_values([0.5, math.nan])
    assert document == {"mean": None, "standard_deviation": None, "interval": None, "each": [0.5, None]}
    assert statistics.describe_values([0.5])["interval"] is None


def test_paired_runs_are_compared_by_their_differences():
    a, b = np.array([0.50, 0.55, 0.60]), np.array([0.52, 0.58, 0.61])
    (pair,) = statistics.differences({"a": sample(a), "b": sample(b)})
    assert (pair.first, pair.second, pair.paired, pair.n_runs) == ("b", "a", True, 3)
    half = T_95[2] * (b - a).std(ddof=1) / math.sqrt(3)
    assert pair.value == pytest.approx(0.02)
    assert pair.interval == pytest.approx((0.02 - half, 0.02 + half), rel=1e-4)
    t = 0.02 / ((b - a).std(ddof=1) / math.sqrt(3))
    assert pair.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))  # Student's distribution with two degrees


def test_other_rows_are_compared_by_the_test_of_welch():
    a, b = np.array([0.50, 0.55, 0.60]), np.array([0.52, 0.53, 0.54])
    (pair,) = statistics.differences({"a": a, "b": b})
    variances = a.var(ddof=1) / 3, b.var(ddof=1) / 3
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 2)
    assert not pair.paired and 2 < degrees < 2.2
    half = (pair.interval[1] - pair.interval[0]) / 2
    assert 0.93 * T_95[2] < half / math.sqrt(sum(variances)) < T_95[2]


@pytest.mark.parametrize(
    ("one", "other", "paired"),
    [
        (sample([1, 2, 4]), sample([2, 4, 5]), True),
        (sample([1, 2, 4]), sample([2, 4, 5], "f=8"), False),  # other weights
        (sample([1, 2, 4], None), sample([2, 4, 5], None), False),  # nothing is known about them
        (sample([1, 2, 4]), sample([2, 4, 5], first=3), False),  # other seeds
        (sample([1, 2, 4]), sample([2, 4, 5], first=2), False),  # one seed in common
        (sample([1, 2, 4]), sample([2, 4], first=1), True),  # a run is missing
    ],
)
def test_rows_are_paired_if_their_runs_began_as_the_same_networks(one, other, paired):
    (pair,) = statistics.differences({"one": one, "other": other})
    assert pair.paired == paired
    common = one.by_seed.keys() & other.by_seed.keys() if paired else ()
    values = [other.by_seed[seed] - one.by_seed[seed] for seed in common]
    means = [np.mean(list(each.by_seed.values())) for each in (one, other)]
    assert pair.value == pytest.approx(np.mean(values) if paired else means[1] - means[0])


@pytest.mark.parametrize("noisy", [1, 10])
@pytest.mark.parametrize(("n_rows", "n_tables"), [(2, 600), (4, 200), (9, 60)])
def test_where_nothing_differs_few_tables_claim_a_difference(rng, n_rows, n_tables, noisy):
    """By two pooled standard errors, 12 % of tables of two rows would, 26 % of four, and 56 % of nine."""
    claims = 0
    for _ in range(n_tables):
        rows = rng.standard_normal((n_rows, 3))
        rows[0] *= noisy
        found = statistics.differences({str(row): values for row, values in enumerate(rows)})
        claims += any(pair.is_significant for pair in found)
    assert claims / n_tables <= 0.08


def test_the_best_of_many_is_compared_with_the_others_as_all_pairs_would_be(rng):
    claims = 0
    for _ in range(200):
        rows = rng.standard_normal((9, 5))
        names = [str(row) for row in np.argsort(-rows.mean(axis=1))]
        samples = {name: sample(rows[int(name)]) for name in names}
        pairs = [(names[0], name) for name in names[1:]]
        claims += any(pair.is_significant for pair in statistics.differences(samples, pairs, math.comb(9, 2)))
    assert claims / 200 <= 0.08


def test_a_gain_of_the_same_networks_is_found_where_independent_samples_would_hide_it():
    """An ensemble's gain of 0.69 ± 0.06 points over the networks it is made of, whose accuracies vary more."""
    networks = np.array([0.7486, 0.7494, 0.7542])
    ensembles = networks + np.array([0.0063, 0.0069, 0.0075])
    rows = {"network": sample(networks), "ensemble": sample(ensembles)}
    (pair,) = statistics.differences(rows)
    assert pair.is_significant and pair.interval == pytest.approx((0.0054, 0.0084), abs=1e-4)
    rows["mirrored"] = sample(networks + np.array([0.0093, 0.0073, 0.0031]))  # a table of three
    assert [pair.is_significant for pair in statistics.differences(rows)] == [True, False, False]
    (pair,) = statistics.differences({"network": networks, "ensemble": ensembles})
    assert not pair.is_significant


@pytest.mark.parametrize("name", ["push_accuracy-1", "push_accuracy-5", "push_accuracy-15"])
def test_published_gains_of_a_recipe_are_compared_run_by_run(name):
    document = json.loads((ROOT / "scripts" / "published" / f"{name}.json").read_text(encoding="utf-8"))
    rows = [report.Summary.from_document(row) for row in document["summary"][0]["rows"]]
    single, views, ensemble = (each.sample() for each in rows)
    (gain,) = statistics.differences({"single": single, "views": views})
    apart = np.subtract(rows[1].test_accuracy, rows[0].test_accuracy)
    assert gain.paired and gain.value == pytest.approx(apart.mean()) and gain.is_significant
    half_width = T_95[len(apart) - 1] * apart.std(ddof=1) / math.sqrt(len(apart))
    assert gain.interval == pytest.approx((apart.mean() - half_width, apart.mean() + half_width), rel=1e-4)
    (unknown,) = statistics.differences({"single": single, "ensemble": ensemble})  # one of all networks
    assert not unknown.paired and unknown.p_value is None and not unknown.is_significant


def test_a_row_that_varies_much_does_not_hide_other_differences():
    rows = {"a": [0.500, 0.501, 0.502], "b": [0.520, 0.521, 0.522], "noisy": [0.3, 0.5, 0.7]}
    found = {(pair.first, pair.second): pair for pair in statistics.differences(rows)}
    assert found["b", "a"].is_significant
    assert not found["noisy", "a"].is_significant and not found["noisy", "b"].is_significant


def test_p_values_are_corrected_in_steps():
    rows = {"a": [0, 1, 2.1], "b": [5, 6, 7.1], "c": [9, 10.5, 11]}
    alone = sorted(
        statistics.differences({name: rows[name] for name in pair})[0].p_value for pair in ("ab", "ac", "bc")
    )
    found = sorted(pair.p_value for pair in statistics.differences(rows))
    assert found == pytest.approx([3 * alone[0], max(3 * alone[0], 2 * alone[1]), max(2 * alone[1], alone[2])])
    planned = statistics.differences(rows, [("b", "a"), ("c", "nowhere")])
    assert [(pair.first, pair.second) for pair in planned] == [("b", "a")]
    assert planned[0].p_value == statistics.differences({name: rows[name] for name in "ab"})[0].p_value
    assert all(pair.p_value <= 1 for pair in statistics.differences({name: [0, 1, 2.1] for name in "abcdef"}))


def test_runs_that_do_not_vary_are_not_tested():
    (same,) = statistics.differences({"a": sample([0.5, 0.6]), "b": sample([0.5, 0.6])})
    assert same.p_value == 1 and same.interval == (0, 0) and not same.is_significant
    for groups, why in (
        ({"a": sample([0.50, 0.60]), "b": sample([0.51, 0.61])}, "the same for every seed"),
        ({"a": [0.5, 0.5], "b": [0.6, 0.6]}, "runs do not vary"),
    ):
        (pair,) = statistics.differences(groups)
        assert pair.is_significant is None and pair.interval is None
        assert why in report.describe_differences(groups) and why in report.verdict(pair)
    said = report.describe_differences({"a": [0.5, 0.5], "b": [0.6, 0.6], "c": [0.7, 0.73]})
    assert said.endswith(" 1 could not be tested, for want of runs or of variation.")


def test_one_run_each_cannot_tell():
    (pair,) = statistics.differences({"a": [0.5], "b": [0.6], "empty": []})
    assert pair.is_significant is None and (pair.first, pair.second) == ("b", "a")
    for second in ([0.6], [0.6, 0.7, 0.8]):
        said = report.describe_differences({"a": [0.5], "b": second})
        assert said.startswith("Where a row has one run, it cannot be told")
    assert report.verdict(pair) == "not tested (too few runs)"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_told_and_reach_no_sentence(bad):
    groups = {"a": [0.50, 0.52, 0.51], "diverged": [0.5, bad, 0.5], "c": [0.70, 0.72, 0.71], "no run": []}
    said = report.describe_differences(groups)
    assert said.endswith("Not compared, for want of finite numbers: diverged; no run.")
    assert "nan" not in said and "inf" not in said and "20.00 points for c minus a, is significant" in said
    assert report.format_mean(groups["diverged"]) == report.format_interval(groups["diverged"]) == "–"


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.1, 0.1, 0.3 - 0.2], [0.0, 0.0]])
def test_values_that_do_not_vary_have_no_interval(values):
    """One of width 0 would contain nothing else, whatever another run gave."""
    assert statistics.confidence_interval(values) is statistics.prediction_interval(values) is None
    assert report.format_interval(values) == "–" and statistics.describe_values(values)["interval"] is None


def test_the_same_constant_in_rows_of_different_lengths():
    (same,) = statistics.differences({"a": [0.1] * 3, "b": [0.1] * 5})
    assert same.value == 0 and same.p_value == 1


def test_only_the_second_of_a_pair_can_be_worse():
    rows = {"a": sample([0.50, 0.51, 0.80]), "b": sample([0.52, 0.53001])}  # a is better on average, but not run by run
    (pair,) = statistics.differences(rows, [("a", "b")])
    assert pair.is_significant and pair.value < 0 and not pair.is_worse
    (pair,) = statistics.differences(rows, [("b", "a")])
    assert pair.is_worse


def test_printed_intervals_of_accuracies_end_at_0_and_100():
    values = [0.97, 0.99]
    assert report.format_interval(values, scale=100, limits=report.ACCURACIES) == "85.29 to 100.00"
    assert report.format_ends((-0.2, 0.1), limits=report.ACCURACIES) == "0.00 to 0.10"


def test_a_correction_is_told_beside_its_p_value():
    rows = {"a": [0, 1, 2.1], "b": [5, 6, 7.1], "c": [9, 10.5, 11]}
    pair = statistics.differences(rows)[0]
    assert report.verdict(pair, n_comparisons=3).endswith(", Welch's t test, corrected for 3 comparisons)")


def test_the_sentence_names_the_differences():
    groups = {"one": [0.50, 0.52, 0.51], "two": [0.51, 0.53, 0.51], "three": [0.80, 0.82, 0.81]}
    said = report.describe_differences(groups)
    assert said == (
        "Significant at 5 % (Welch's t test, corrected for 3 comparisons) are the differences in test accuracy between "
        "three and one (30.00 points); three and two (29.33 points); no other is."
    )
    assert report.describe_differences({name: groups[name] for name in ("one", "two")}, "gap", 1, "", 3) == (
        "The difference in gap, 0.007 for two minus one, is not significant at 5 % (95 % interval -0.018 to 0.031, "
        "p = 0.493, Welch's t test)."
    )
    one_of_two = {"a": [0.5, 0.52], "b": [0.7, 0.73], "c": [0.6]}
    assert "(Welch's t test) is the difference in test accuracy between b and a (20.50 points). 2 could" in (
        report.describe_differences(one_of_two)
    )
    some = report.describe_differences({"a": [0.5, 0.52], "b": [0.7, 0.73], "c": [0.69, 0.74], "d": [0.6]})
    assert "no other that was tested is. 3 could not be tested" in some
    alike = report.describe_differences({name: [0.5, 0.6] for name in "abc"})
    assert (
        alike == "No difference in test accuracy is significant at 5 % (Welch's t test, corrected for 3 comparisons)."
    )
    apart = {str(place): [place, place + 0.001, place + 0.002] for place in range(3)}
    assert report.describe_differences(apart).startswith("Every difference in test accuracy is significant at 5 % (")
    mixed = {"a": sample([0.1, 0.2, 0.4]), "b": sample([0.2, 0.2, 0.3]), "c": [0.1, 0.3, 0.2]}
    assert "(paired and Welch's t tests, corrected for 3" in report.describe_differences(mixed)
    assert "no two rows" in report.describe_differences({"one": [0.5, 0.6], "none": []})


def test_the_table_tells_each_difference_its_interval_and_its_test():
    groups = {"a": sample([0.1, 0.2, 0.4]), "b": sample([0.2, 0.2, 0.3]), "c": [0.8, 0.9, 0.85]}
    found = statistics.differences(groups)
    table = report.differences_table(found)
    assert [row[:2] for row in table.rows] == [["b", "a"], ["c", "a"], ["c", "b"]]
    assert [row[4] for row in table.rows] == ["paired, 3 runs", "Welch, 3 runs", "Welch, 3 runs"]
    low, high = found[1].interval
    assert table.rows[1][2:4] == ["+61.67", f"{100 * low:.2f} to {100 * high:.2f}"]
    assert report.differences_table(found[:1]) is None
    with_one_run = report.differences_table(statistics.differences({**groups, "d": [0.9]}))
    assert [row[4] for row in with_one_run.rows if row[0] == "d"] == ["–", "–", "–"]


def test_the_error_of_the_test_images_is_told_from_their_number():
    assert "0.43 points" in report.sampling_remark([0.7507], 10_000)
    assert report.standard_errors([0.5, 0.75], 10_000) == "0.43 to 0.50"
    assert report.standard_errors([0.5], 2_500) == "1.00"


def test_where_scipy_would_not_fit_it_is_not_imported(environment):
    """Its BLAS would hang, or end the process."""
    if sys.platform != "linux":
        pytest.skip("needs Linux's /proc")
    done = subprocess.run(
        [sys.executable, "-P", "-c", LIMITED], env=environment, text=True, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_without_scipy_there_are_means_and_a_sentence_instead_of_tests(without_scipy):
    groups = {"a": sample([0.1, 0.2, 0.4]), "b": sample([0.2, 0.2, 0.3]), "c": [0.8, 0.9, 0.85]}
    found = statistics.differences(groups)
    assert len(found) == 3 and all(pair.p_value is None and pair.interval is None for pair in found)
    assert "pip install scipy" in report.describe_differences(groups)
    assert report.comparison_rule() == report.describe_differences(groups)
    assert report.differences_table(found) is None
    assert report.format_mean([0.1, 0.2]) == "0.15 ± 0.07" and report.format_interval([0.1, 0.2]) == "–"
    document = statistics.describe_values([0.1, 0.2])
    assert document["interval"] is None and document["standard_deviation"] == pytest.approx(0.0707, abs=1e-4)
