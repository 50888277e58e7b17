"""The search of λ: what it tries, records and ranks, and workers that die."""

import dataclasses
import json
import math
import multiprocessing
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from full_disk import disk_full

import cyconv
from cyconv.experiments import DataSource, Run, plots, search
from cyconv.experiments.commands.search_l2 import conclusion
from cyconv.experiments.executors import executor_factory
from cyconv.experiments.search import (
    Journal,
    Measurement,
    Search,
    describe_splits,
    differences_from_best,
    format_value,
    measure,
    rank,
    ranking_table,
    run_search,
)

SOURCE = DataSource(small=True)
TINY = Run("tiny", n_filters=2, n_hidden=4, step_size=10, n_cycles=1, log_every=1000, n_train_evaluated=100)
SEARCH = Search(TINY, 1e-4, 1e-2, n_rounds=2, n_samples=3, n_seeds=2)


def measurement(l2=0.01, seed=0, accuracy=0.5, loss=1.0, round_=0, state="complete"):
    done = state == "complete"
    return Measurement(round_, l2, seed, state, accuracy, loss if done else None, 0.6 if done else None, 1.0)


def without_times(measurements):
    return [dataclasses.replace(m, training_time=0.0) for m in measurements]


def make_journal(path, plan=SEARCH, **options):
    return Journal(path, plan, describe_splits(SOURCE), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The measurements of an uninterrupted SEARCH."""
    journal = make_journal(tmp_path_factory.mktemp("whole") / "search.json")
    assert len(list(run_search(SEARCH, SOURCE, journal))) == SEARCH.n_runs == 12
    return without_times(journal.measurements)


def test_the_first_round_samples_each_part_of_the_logarithmic_range_once():
    many = Search(TINY, 1e-5, 1e-1, n_samples=400)
    values = many.values(0, [])
    parts = 400 * (np.log10(values) + 5) / 4
    assert np.floor(parts).tolist() == list(range(400))
    assert 0.4 < np.mean(parts % 1) < 0.6
    assert values == many.values(0, []) and values != dataclasses.replace(many, seed=1).values(0, [])
    assert [run.seed for run in SEARCH.runs(0, [])] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("best", [1e-5, 3e-4, 1e-1])
def test_later_rounds_search_around_the_best_value_within_the_bounds(best):
    plan = Search(TINY, 1e-5, 1e-1)
    held = [measurement(l2, accuracy=0.5 - 0.01 * abs(math.log(l2 / best))) for l2 in plan.values(0, [])]
    for round_, width in ((1, 4 / 3), (2, 4 / 9)):
        low, high = plan.range(round_, held)
        assert math.log10(high / low) == pytest.approx(width)
        assert low >= 1e-5 * (1 - 1e-9) and high <= 1e-1 * (1 + 1e-9)
        assert all(low <= value <= high for value in plan.values(round_, held))
        middle = math.exp(np.mean([math.log(c.value) for c in rank(held)[:3]]))
        if best == 3e-4:
            assert math.sqrt(low * high) == pytest.approx(middle)
    later = [*held, measurement(1e-1, accuracy=1.0, round_=1)]
    assert plan.range(1, later) == plan.range(1, held) != plan.range(2, later)
    with pytest.raises(ValueError, match="before round 1"):
        plan.range(1, [])


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"low": 0.0}, "low must be a number greater than 0"),
        ({"high": 1e-4}, "high must be"),
        ({"high": math.nan}, "high must be a finite"),
        ({"n_rounds": 0}, "n_rounds must be"),
        ({"n_samples": 1.5}, "n_samples must be"),
        ({"n_seeds": True}, "n_seeds must be"),
        ({"run": "tiny"}, "run must be"),
    ],
)
def test_a_search_refuses_bad_settings(changes, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        dataclasses.replace(SEARCH, **changes)


def test_a_search_survives_json():
    assert Search.from_dict(json.loads(json.dumps(SEARCH.to_dict()))) == SEARCH
    with pytest.raises(ValueError, match="settings must hold a search's"):
        Search.from_dict({"run": TINY.to_dict()})


def test_ranking_is_by_mean_accuracy_then_loss_and_divergence_counts_as_zero():
    held = [
        measurement(0.1, 0, 0.6),
        measurement(0.1, 1, 0.4),
        measurement(0.2, 0, 0.5, loss=0.9),
        measurement(0.2, 1, 0.5, loss=0.9),
        measurement(0.3, 0, 0.9),
        measurement(0.3, 1, 0.0, state="diverged"),
        measurement(0.4, 1, 0.7),
        measurement(0.4, 0, 0.6),
    ]
    ranking = rank(held)
    assert [candidate.value for candidate in ranking] == [0.4, 0.2, 0.1, 0.3]
    assert ranking[0].accuracies == [0.6, 0.7] and ranking[0].mean_accuracy == pytest.approx(0.65)
    assert [c.n_diverged for c in ranking] == [0, 0, 0, 1] and ranking[-1].mean_loss == math.inf
    table = ranking_table(ranking, 3).markdown()
    assert "65.00 ± 7.07" in table and "2 of 3, 1 diverged" in table


def candidates(*gaps, field_value=0.1):
    """A ranking whose candidates' runs are worse than the best by these differences."""
    best = (0.60, 0.58, 0.63)
    worse = {field_value * (place + 2): np.subtract(best, gap) for place, gap in enumerate(gaps)}
    return rank(
        measurement(value, seed, accuracy)
        for value, accuracies in {field_value: best, **worse}.items()
        for seed, accuracy in enumerate(accuracies)
    )


def test_candidates_are_compared_with_the_best_run_by_run():
    ranking = candidates((0.010, 0.011, 0.012), (0.30, 0.10, 0.35))
    best, near, far = differences_from_best(ranking)
    assert best is None and near.paired and near.value == pytest.approx(0.011)
    # Corrected for all three pairs: the smaller p value counts three times, the other twice.
    t = 0.011 / (0.001 / math.sqrt(3))
    assert near.p_value == pytest.approx(3 * (1 - t / math.sqrt(2 + t * t)))
    assert near.is_significant and not far.is_significant
    table = ranking_table(ranking, 3)
    assert [row[-1] for row in table.rows] == ["best", f"{near.p_value:.3g}", f"{far.p_value:.3g}"]
    assert " to " in table.rows[0][4]


def test_candidates_of_other_architectures_are_independent_samples():
    _, near = differences_from_best(candidates((0.010, 0.011, 0.012)), "n_filters")
    assert not near.paired and not near.is_significant


def test_candidates_with_one_run_or_a_diverged_one_are_not_compared():
    best, other = differences_from_best(rank([measurement(0.1), measurement(0.2)]))
    assert best is None and other.p_value is None
    diverged = [measurement(0.3, seed, 0.0, state="diverged") for seed in range(3)]
    ranking = rank([*(m for c in candidates((0.010, 0.011, 0.012)) for m in c.measurements), *diverged])
    assert differences_from_best(ranking)[2] is None
    assert ranking_table(ranking, 3).rows[2][-1] == ranking_table(ranking, 3).rows[2][4] == "–"


def test_the_conclusion_says_how_many_are_worse_and_which_are_not():
    ranking = candidates((0.010, 0.011, 0.012), (0.30, 0.10, 0.35))
    said = conclusion(ranking, SEARCH)
    assert "Of 2 other values, 1 is significantly worse at 5 %, corrected for all pairs; " in said
    runs = f"{SEARCH.n_seeds} runs"
    assert f"; with {runs} each, 1 cannot be told from it: {format_value(ranking[2].value)}." in said
    three = candidates((0.30, 0.10, 0.35), (0.30, 0.12, 0.35))
    ends = sorted(candidate.value for candidate in three[1:])
    assert f"; with {runs} each, 2 cannot be told from it: {' to '.join(map(format_value, ends))}." in conclusion(
        three, SEARCH
    )
    assert "Of 1 other value, none is significantly worse" in conclusion(candidates((0.30, 0.10, 0.35)), SEARCH)


def test_values_that_could_not_be_tested_are_not_called_as_good():
    said = conclusion(candidates((0.10, 0.10, 0.10), (0.010, 0.011, 0.012)), SEARCH)
    assert said.count("cannot be told from it") == 0 and " 1 could not be tested." in said


def test_a_measurement_does_not_look_at_the_test_split(monkeypatch):
    class Seen(SimpleNamespace):
        @property
        def test(self):
            raise AssertionError("the test split was read")

    data = SOURCE.load()
    seen = Seen(
        train=data.train,
        validation=data.validation,
        name=data.name,
        image_shape=data.image_shape,
        n_classes=data.n_classes,
    )
    about = describe_splits(SOURCE)
    monkeypatch.setattr(DataSource, "load", lambda self: seen)
    figures = measure(TINY, SOURCE, about, threads=2)
    assert cyconv.get_num_threads() == 2
    assert figures["state"] == "complete" and 0 < figures["validation_accuracy"] < 1


def test_a_measurement_is_the_run_s_last_point_on_validation_data():
    data = SOURCE.load()
    trainer = TINY.trainer()
    history = trainer.fit(data.train, data.validation, log_every=7, n_train_evaluated=100, progress=False)
    figures = measure(TINY, SOURCE, describe_splits(SOURCE))
    assert [figures[key] for key in ("validation_accuracy", "validation_loss", "training_accuracy")] == [
        history[key][-1] for key in ("acc_val", "loss_val", "acc_train")
    ]


def test_a_worker_refuses_other_data():
    with pytest.raises(ValueError, match="source must be the search's data"):
        measure(TINY, SOURCE, {**describe_splits(SOURCE), "train": "0"})


def test_a_diverged_run_is_recorded_as_diverged(tmp_path):
    plan = Search(TINY, 1e5, 1e6, n_rounds=1, n_samples=2, n_seeds=1)
    journal = make_journal(tmp_path / "search.json", plan)
    with np.errstate(all="ignore"):
        assert [m.state for m in run_search(plan, SOURCE, journal)] == 2 * ["diverged"]
    again = make_journal(journal.path, plan, resume=True)
    assert again.measurements == journal.measurements and rank(again.measurements)[0].mean_accuracy == 0


@pytest.mark.parametrize("stop", [1, 6, 7, 11])
def test_an_interrupted_search_resumes_without_repeating_runs(tmp_path, monkeypatch, whole, stop):
    path = tmp_path / "search.json"
    calls = []

    def measured(run, *arguments):
        if len(calls) == stop:
            calls.append(None)
            raise KeyboardInterrupt
        calls.append((run.l2, run.seed))
        return measure(run, *arguments)

    monkeypatch.setattr(search, "measure", measured)
    with pytest.raises(KeyboardInterrupt):
        list(run_search(SEARCH, SOURCE, make_journal(path)))
    assert len(json.loads(path.read_text())["measurements"]) == stop
    journal = make_journal(path, resume=True)
    assert len(list(run_search(SEARCH, SOURCE, journal))) == 12 - stop
    calls.remove(None)
    assert len(set(calls)) == len(calls) == 12
    assert without_times(make_journal(path, resume=True).measurements) == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_search_can_be_extended_but_not_shortened(tmp_path, whole):
    journal = make_journal(tmp_path / "search.json")
    for m in whole:
        journal.add(m)
    more = dataclasses.replace(SEARCH, n_rounds=3)
    assert len(list(run_search(more, SOURCE, make_journal(journal.path, more, resume=True)))) == 6
    with pytest.raises(ValueError, match="other settings"):
        make_journal(journal.path, resume=True)


def test_a_journal_refuses_duplicates_and_other_searches(tmp_path):
    path = tmp_path / "search.json"
    journal = make_journal(path)
    assert not path.exists()
    journal.add(measurement(0.3))
    with pytest.raises(ValueError, match="must be a new one"):
        journal.add(measurement(0.3, accuracy=0.7))
    assert len(journal) == 1 and make_journal(path, resume=True).measurements == journal.measurements
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="unless resume or overwrite"):
        make_journal(path)
    with pytest.raises(ValueError, match="of other settings"):
        make_journal(path, dataclasses.replace(SEARCH, n_seeds=3), resume=True)
    with pytest.raises(ValueError, match="of other data"):
        Journal(path, SEARCH, {**describe_splits(SOURCE), "train": "0"}, resume=True)
    assert path.read_bytes() == kept and len(make_journal(path, overwrite=True)) == 0
    document = json.loads(kept)
    path.write_text(json.dumps({**document, "data": {**document["data"], "name": "as an older version said"}}))
    assert len(make_journal(path, resume=True)) == 1


@pytest.mark.parametrize(
    "damage",
    {
        "kind": lambda document: {**document, "kind": "run"},
        "version": lambda document: {**document, "version": 2},
        "a measurement twice": lambda document: {**document, "measurements": 2 * document["measurements"]},
        "accuracy above one": lambda document: {
            **document,
            "measurements": [{**document["measurements"][0], "validation_accuracy": 2.0}],
        },
        "incomplete measurement": lambda document: {**document, "measurements": [{"l2": 1.0}]},
        "search": lambda document: {**document, "search": []},
        "data": lambda document: {**document, "data": []},
        "list": lambda document: [],
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_journal_is_refused(tmp_path, damage):
    journal = make_journal(tmp_path / "search.json")
    journal.add(measurement(0.3))
    document = json.loads(journal.path.read_text())
    journal.path.write_text(json.dumps(damage[1](document)))
    with pytest.raises(ValueError, match="is damaged"):
        make_journal(journal.path, resume=True)


def test_a_truncated_journal_is_refused(tmp_path):
    journal = make_journal(tmp_path / "search.json")
    journal.add(measurement(0.3))
    journal.path.write_bytes(journal.path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        make_journal(journal.path, resume=True)


def test_a_failed_write_leaves_the_journal_unchanged(tmp_path, monkeypatch):
    journal = make_journal(tmp_path / "search.json")
    journal.add(measurement(0.3))

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError, match="cannot write"):
        journal.add(measurement(0.4))
    assert len(journal) == len(make_journal(journal.path, resume=True)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_loses_and_duplicates_nothing(tmp_path, whole, signum):
    others = set(multiprocessing.active_children())
    journal = make_journal(tmp_path / "search.json")
    seen, killed = [], []
    for m in run_search(SEARCH, SOURCE, journal, executor_factory("process", 2), threads=1):
        seen.append(m.key)
        if len(seen) in (1, 8):  # once in each round
            victim = next(iter(set(multiprocessing.active_children()) - others))
            os.kill(victim.pid, signum)
            killed.append(victim.pid)
    assert len(killed) == 2 and len(set(seen)) == len(seen) == 12
    assert without_times(journal.measurements) == whole
    assert set(multiprocessing.active_children()) == others


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_workers_exit_when_a_search_is_closed(tmp_path):
    others = set(multiprocessing.active_children())
    results = run_search(SEARCH, SOURCE, make_journal(tmp_path / "search.json"), executor_factory("process", 2), 1)
    next(results)
    assert set(multiprocessing.active_children()) != others
    results.close()
    assert set(multiprocessing.active_children()) == others


@pytest.mark.slow
def test_a_killed_dask_worker_loses_and_duplicates_nothing(tmp_path, whole):
    distributed = pytest.importorskip("distributed")
    journal = make_journal(tmp_path / "search.json")
    seen, killed = [], None
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        assert len(set(pids.values()) | {os.getpid()}) == 4
        make_executor = executor_factory("dask", address=cluster.scheduler_address)
        for m in run_search(SEARCH, SOURCE, journal, make_executor, threads=1):
            seen.append(m.key)
            busy = [address for address, keys in client.processing().items() if keys]
            if killed is None and busy:
                killed = pids[busy[0]]
                os.kill(killed, signal.SIGKILL)
        restarted = client.run(os.getpid)
    assert killed and killed not in restarted.values()
    assert len(set(seen)) == len(seen) == 12
    assert without_times(journal.measurements) == whole


def test_the_plot_distinguishes_rounds_and_runs():
    rounds = {"round 1": {1e-3: [0.5, 0.6], 1e-4: [0.4, 0.4]}, "round 2": {2e-3: [0.7, 0.5]}}
    figure = plots.plot_search(rounds, "A search, some data set", chosen=2e-3)
    axes = figure.axes[0]
    drawn = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    notes = ["individual runs", "95 % interval of the mean", "λ = 0.002, best mean"]
    assert list(drawn) == ["round 1", "round 2", *notes]
    assert drawn["round 1"].get_xdata() == pytest.approx([1e-4, 1e-3])
    assert drawn["round 1"].get_ydata() == pytest.approx([40.0, 55.0])
    assert drawn["round 1"].get_marker() != drawn["round 2"].get_marker()
    dots = [y for line in axes.lines if line.get_marker() == "." for y in line.get_ydata()]
    assert sorted(dots) == pytest.approx([40, 40, 50, 50, 60, 70])
    assert axes.get_xscale() == "log" and figure.get_suptitle() == "A search, some data set"
    with pytest.raises(ValueError, match="λ must be"):
        plots.plot_search({"round 1": {0.0: [0.5]}}, "A search")


@pytest.mark.parametrize(
    "field, low, high", [("eta_max", 0.01, 0.1), ("dropout", 0.1, 0.5), ("momentum", 0.5, 0.9), ("whitening", 0.1, 1)]
)
def test_any_float_of_a_run_can_be_searched(tmp_path, field, low, high):
    plan = Search(TINY, low, high, n_rounds=1, n_samples=2, n_seeds=1, field=field)
    journal = make_journal(tmp_path / "search.json", plan)
    found = list(run_search(plan, SOURCE, journal))
    assert sorted(m.value for m in found) == [getattr(run, field) for run in plan.runs(0, [])]
    document = json.loads((tmp_path / "search.json").read_text())
    assert document["search"]["field"] == field and {m[field] for m in document["measurements"]} == {
        m.value for m in found
    }
    assert make_journal(tmp_path / "search.json", plan, resume=True).measurements == journal.measurements


def test_a_journal_from_before_there_were_other_fields_is_resumed(tmp_path):
    journal = make_journal(tmp_path / "search.json")
    next(run_search(SEARCH, SOURCE, journal))
    document = json.loads((tmp_path / "search.json").read_text())
    del document["search"]["field"]
    (tmp_path / "search.json").write_text(json.dumps(document))
    assert make_journal(tmp_path / "search.json", resume=True).measurements == journal.measurements


@pytest.mark.parametrize("field", ["seed", "name", "rate", None])
def test_other_fields_are_refused(field):
    with pytest.raises(ValueError, match="^field must be one of"):
        Search(TINY, field=field)


def test_an_integer_is_rounded_and_tried_once(tmp_path):
    plan = Search(TINY, 2, 8, n_rounds=2, n_samples=4, n_seeds=1, field="n_filters")
    assert plan.values(0, []) == [2, 4, 6, 7]
    narrow = Search(TINY, 2, 3, n_samples=8, field="n_filters")
    assert narrow.values(0, []) == [2, 3]
    journal = make_journal(tmp_path / "search.json", plan)
    found = [m.value for m in run_search(plan, SOURCE, journal)]
    assert len(set(found)) == len(found) > 4 and set(map(type, found)) == {int}
    assert plan.is_complete(journal.measurements) and not plan.is_complete(journal.measurements[:-1])
    again = make_journal(journal.path, plan, resume=True)
    assert again.measurements == journal.measurements and list(run_search(plan, SOURCE, again)) == []


def test_a_linear_scale_draws_evenly():
    plan = Search(TINY, 0.0, 0.5, n_samples=100, field="dropout", scale="linear")
    values = np.array(plan.values(0, []))
    assert np.floor(200 * values).tolist() == list(range(100))
    held = [measurement(value, accuracy=0.5 - abs(value - 0.3)) for value in values]
    low, high = plan.range(1, held)
    assert high - low == pytest.approx(0.5 / 3) and low + high == pytest.approx(0.6, abs=0.02)
    assert Search.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    "field, choices",
    [("optimizer", ("sgd", "adamw")), ("n_hidden", (4, (5, 3))), ("flip", [False, True]), ("whitening", (None, 0.3))],
)
def test_choices_are_tried_one_by_one(tmp_path, field, choices):
    plan = Search(TINY, field=field, choices=choices, n_seeds=2).check()
    assert (plan.n_rounds, plan.n_samples, plan.n_runs) == (1, 2, 4)
    assert Search.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    journal = make_journal(tmp_path / "search.json", plan)
    found = list(run_search(plan, SOURCE, journal))
    assert [m.value for m in found] == 2 * list(choices) and plan.is_complete(journal.measurements)
    again = make_journal(journal.path, plan, resume=True)
    assert again.measurements == journal.measurements and len(rank(again.measurements)) == 2
    assert str(choices[1]) in ranking_table(rank(again.measurements), 2, field=field).text()


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"field": "optimizer"}, "^choices must be given for the field 'optimizer'"),
        ({"field": "n_hidden", "choices": (50,)}, "^choices must be at least two different values"),
        ({"field": "n_hidden", "choices": [50, 50]}, "^choices must be at least two different values"),
        ({"field": "optimizer", "choices": "adamw"}, "^choices must be a sequence"),
        ({"scale": "square"}, "^scale must be one of"),
        ({"low": 0.0}, "^low must be a number greater than 0"),
        ({"low": -1.0, "scale": "linear"}, "^low must be"),
    ],
)
def test_searches_of_other_kinds_refuse_bad_settings(settings, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        Search(TINY, **settings)
    with pytest.raises(ValueError, match="^n_filters must"):
        Search(TINY, 0.1, 4, field="n_filters").check()


def test_a_search_of_before_is_described_as_before():
    assert set(SEARCH.to_dict()) == {"run", "low", "high", "n_rounds", "n_samples", "n_seeds", "seed", "field"}


def test_choices_that_numpy_made_are_recorded_and_resumed(tmp_path):
    values = [np.array([4, 3]), np.int64(5)]
    chosen = Search(TINY, n_seeds=1, field="n_hidden", choices=values)
    assert chosen.choices == ((4, 3), 5)
    splits = describe_splits(SOURCE)
    list(run_search(chosen, SOURCE, Journal(tmp_path / "search.json", chosen, splits)))
    assert chosen.is_complete(Journal(tmp_path / "search.json", chosen, splits, resume=True).measurements)
