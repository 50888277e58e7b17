"""Runs described as data: executed, saved, resumed, distributed over processes."""

import contextlib
import dataclasses
import inspect
import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import cyconv
from cyconv.experiments import (
    ARCHITECTURES,
    LONGER_TRAINING,
    DataSource,
    Result,
    Run,
    RunFiles,
    RunInterrupted,
    executors,
    longest_first,
    over_seeds,
    report,
    run_all,
    run_experiment,
)
from cyconv.experiments.executors import executor_factory
from cyconv.experiments.workers import Origin
from cyconv.history import CURVES

TINY = Run("tiny", n_filters=2, n_hidden=6, step_size=6, n_cycles=2, growth=1.0, batch_size=20, log_every=4)


@pytest.fixture(scope="module")
def data():
    return cyconv.make_shapes(200, 60, 80)


def same(first, second):
    """Whether two results are equal bit for bit, except for times."""
    documents = [first.document(), second.document()]
    for document in documents:
        del document["updates_per_second"]
        for key in ("training_time", "update_time", "evaluation_time"):
            del document["history"][key]
    filters = zip(first.filters, second.filters, strict=True)
    return documents[0] == documents[1] and all(np.array_equal(a, b) for a, b in filters)


def interrupt_after(monkeypatch, n_points, number=signal.SIGINT):
    """Send this process a signal once that many points have been logged."""
    append = cyconv.History.append

    def appended(self, *arguments, **options):
        append(self, *arguments, **options)
        if self.n_points == n_points:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(cyconv.History, "append", appended)


def test_a_run_survives_json_and_pickle():
    run = Run(
        "wide.2_x-y",
        label="2: wide",
        filter_size=(2, 4),
        n_filters=(3, 5),
        n_hidden=(20, 10),
        dropout=0.3,
        label_smoothing=0.1,
        momentum=0.9,
        flip=True,
        shift=2,
        cutout=8,
        eta_max_decay=0.9,
        snapshots=True,
        seed=7,
        n_train_evaluated=100,
    )
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    assert pickle.loads(pickle.dumps(run)) == run
    assert run.augmentation == cyconv.Augmentation(flip=True, shift=2, cutout=8)
    assert Run("plain").augmentation is None


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a b", "x" * 101, 3, None, np.float32])
def test_a_name_that_cannot_be_a_file_name_is_refused(name):
    with pytest.raises(ValueError, match="name must be"):
        Run(name)


@pytest.mark.parametrize("settings", [None, [], {}, {"filter_size": 4}, {"name": "a", "foreign": 1}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(ValueError, match="settings must hold a run's settings"):
        Run.from_dict(settings)


@pytest.mark.parametrize(
    "change",
    [
        {"filter_size": 5},
        {"eta_max": 1e-9},
        {"growth": -1.0},
        {"log_every": 0},
        {"n_train_evaluated": 0},
        {"batch_size": 0},
        {"dropout": 1.0},
        {"shift": -1},
    ],
)
def test_check_finds_bad_settings_before_any_work(change):
    with pytest.raises(ValueError):
        dataclasses.replace(TINY, **change).check()
    assert TINY.check() is TINY


def test_the_architectures_are_those_of_the_assignment():
    settings = [(run.filter_size, run.n_filters, run.n_hidden) for run in ARCHITECTURES]
    assert settings == [(2, 3, 50), (4, 10, 50), (8, 40, 50), (16, 160, 50)]
    assert {run.schedule().total_steps for run in ARCHITECTURES} == {4800}
    assert {run.schedule().total_steps for run in LONGER_TRAINING} == {11200}
    for run in ARCHITECTURES + LONGER_TRAINING:
        assert (run.eta_min, run.eta_max, run.l2, run.batch_size) == (1e-5, 1e-1, 0.003, 100)
    stems = [run.stem for run in over_seeds(ARCHITECTURES + LONGER_TRAINING, 3)]
    assert len(set(stems)) == 21


def test_a_runs_results_are_those_of_its_network(data, tmp_path):
    result = run_experiment(TINY, data, folder=tmp_path, progress=False)
    files = RunFiles(tmp_path, TINY)
    network = cyconv.Network.load(files.network)
    measured = network.evaluate(data.test.images, data.test.labels)
    assert result.complete and result.test == {"loss": measured.loss, "accuracy": measured.accuracy}
    predicted = network.predict(data.test.images)
    expected = np.zeros((10, 10), np.int64)
    np.add.at(expected, (data.test.labels, predicted), 1)
    assert np.array_equal(result.confusion, expected)
    assert np.array_equal(result.filters[0], network.parameters["conv.weight"])
    assert result.history["update_steps"][-1] == TINY.schedule().total_steps == result.history.last_step
    assert files.history.read_text().count("\n") == result.history.n_points + 1
    assert sorted(tmp_path.iterdir()) == sorted([files.history, files.network, files.result])
    assert same(result, Result.load(files.result))
    json.dumps(result.document(), allow_nan=False)


def test_the_test_split_is_read_only_once_at_the_end(data, monkeypatch):
    seen = []
    prepare = cyconv.Network.prepare

    def watched(self, images, *arguments, **options):
        seen.append("test" if images is data.test.images else "other")
        return prepare(self, images, *arguments, **options)

    monkeypatch.setattr(cyconv.Network, "prepare", watched)
    run_experiment(TINY, data, progress=False)
    assert seen.count("test") == 1 and seen[-1] == "test" and len(seen) > 1


@pytest.mark.parametrize("augmentation", [dict(flip=True), dict(shift=1), dict(flip=True, shift=1, cutout=8)])
def test_views_are_all_that_mirroring_and_shifts_allow(data, augmentation):
    run = dataclasses.replace(TINY, views=True, **augmentation)
    result = run_experiment(run, data, progress=False)
    trainer = run.trainer()
    trainer.fit(data.train, data.validation, log_every=4, progress=False)
    average = cyconv.ViewAverage(trainer.network, run.flip, run.shift)
    assert run.n_views == average.n_views
    assert result.test["view_accuracy"] == average.evaluate(data.test.images, data.test.labels).accuracy
    (row,) = report.summarise([result])
    (views,) = report.view_row(row, run.n_views).test_accuracy
    assert views == result.test["view_accuracy"] and "mean of views (%)" in report.summary_table([row]).text()


def test_views_need_an_augmentation():
    with pytest.raises(ValueError, match="views must be False without flip or shift, but got True"):
        Run(views=True, cutout=3).check()
    with pytest.raises(TypeError, match="views must be"):
        Run(views=2, flip=True).check()


def test_views_that_would_be_shifted_out_of_the_image_are_refused_before_training():
    with pytest.raises(ValueError, match=r"shift must be an integer in \[0, 31\], but got 32"):
        Run(views=True, shift=32).check()
    with pytest.raises(ValueError, match=r"shift must be an integer in \[0, 7\], but got 8"):
        Run(views=True, shift=8).check(image_shape=(3, 16, 8))
    Run(views=True, shift=31).check()
    Run(shift=32).check()


def test_snapshots_make_an_ensemble(data):
    run = dataclasses.replace(TINY, snapshots=True)
    result = run_experiment(run, data, progress=False)
    trainer = run.trainer()
    trainer.fit(data.train, data.validation, log_every=4, progress=False)
    networks = []
    for parameters in trainer.snapshots:
        networks.append(trainer.network.copy())
        networks[-1].set_parameters(parameters)
    votes = sum(network.predict_proba(data.test.images) for network in networks).argmax(axis=1)
    ensemble = cyconv.Ensemble.from_snapshots(trainer.network, trainer.snapshots)
    assert len(networks) == 2
    assert result.test["ensemble_accuracy"] == ensemble.evaluate(data.test.images, data.test.labels).accuracy
    assert result.test["ensemble_accuracy"] == np.mean(votes == data.test.labels)


def test_several_branches_give_several_arrays_of_filters(data, tmp_path):
    run = dataclasses.replace(TINY, filter_size=(4, 8), n_filters=(2, 3), n_hidden=(6, 5))
    result = run_experiment(run, data, folder=tmp_path, progress=False)
    assert [array.shape for array in result.filters] == [(2, 3, 4, 4), (3, 3, 8, 8)]
    assert same(result, Result.load(RunFiles(tmp_path, run).result))


def test_a_diverged_run_is_saved_as_a_result(data, tmp_path):
    run = dataclasses.replace(TINY, eta_max=1e6, l2=0.1, name="wild")
    result = run_experiment(run, data, folder=tmp_path, progress=False)
    assert result.state == "diverged" and result.test is None and "step" in result.message
    loaded = Result.load(RunFiles(tmp_path, run).result)
    assert (loaded.state, loaded.message) == (result.state, result.message)
    json.dumps(loaded.document(), allow_nan=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_with_the_same_bits(data, tmp_path, monkeypatch, number):
    whole = run_experiment(TINY, data, progress=False)
    files = RunFiles(tmp_path, TINY)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3, number)
        with pytest.raises(RunInterrupted) as caught:
            run_experiment(TINY, data, folder=tmp_path, progress=False)
    partial = caught.value.result
    travelled = pickle.loads(pickle.dumps(caught.value))
    assert travelled.signum == number and same(travelled.result, partial)
    assert caught.value.signum == number and partial.state == "interrupted" and partial.test is None
    assert 3 <= partial.history.n_points < whole.history.n_points
    assert files.checkpoint.is_file() and not files.result.exists()
    assert files.history.read_text().count("\n") == partial.history.n_points + 1
    resumed = run_experiment(TINY, data, folder=tmp_path, resume=True, progress=False)
    assert same(resumed, whole)
    assert not files.checkpoint.exists() and files.result.is_file()


def test_a_finished_run_is_not_run_again(data, tmp_path, monkeypatch):
    first = run_experiment(TINY, data, folder=tmp_path, progress=False)
    monkeypatch.setattr(cyconv.CyclicTrainer, "fit", lambda *a, **k: pytest.fail("it trained again"))
    second = run_experiment(TINY, data, folder=tmp_path, resume=True, progress=False)
    assert same(first, second) and second.history.training_time == first.history.training_time


def test_results_of_other_settings_or_data_are_not_resumed(data, tmp_path, monkeypatch):
    other = dataclasses.replace(TINY, l2=0.5)
    run_experiment(TINY, data, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        run_experiment(other, data, folder=tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match="other data"):
        run_experiment(TINY, cyconv.make_shapes(200, 60, 81), folder=tmp_path, resume=True, progress=False)
    RunFiles(tmp_path, TINY).result.unlink()
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(RunInterrupted):
            run_experiment(TINY, data, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        run_experiment(other, data, folder=tmp_path, resume=True, progress=False)


def test_a_damaged_result_is_refused_in_one_sentence(data, tmp_path):
    run_experiment(TINY, data, folder=tmp_path, progress=False)
    path = RunFiles(tmp_path, TINY).result
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + bytes(100)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="path must be a cyconv run file"):
            Result.load(path)
    cyconv.History().save(path)
    with pytest.raises(ValueError, match="path must be a cyconv run file"):
        Result.load(path)


def test_a_data_source_is_loaded_once():
    source = DataSource(small=True)
    assert pickle.loads(pickle.dumps(source)).load() is source.load()
    with pytest.raises(ValueError, match="protocol must be one of"):
        DataSource(protocol="half")


def test_data_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="data must be a Dataset or a DataSource"):
        run_experiment(TINY, np.zeros(3))


def test_runs_that_would_share_their_files_are_refused(data):
    with pytest.raises(ValueError, match="'tiny-seed0' more than once"):
        run_all([TINY, dataclasses.replace(TINY, l2=0.1)], data)


def test_processes_give_the_same_bits_as_serial_runs(tmp_path):
    source = DataSource(small=True)
    runs = over_seeds([TINY, dataclasses.replace(TINY, name="other", filter_size=8)], 2)
    serial = list(run_all(runs, source, progress=False))
    spread = list(run_all(runs, source, executor_factory("process", 2), folder=tmp_path, threads=1, progress=False))
    spread.sort(key=lambda result: runs.index(result.run))
    assert all(same(a, b) for a, b in zip(serial, spread, strict=True))
    assert len(list(tmp_path.glob("run-*.npz"))) == 4


def test_a_failing_run_cancels_the_waiting_ones(data):
    runs = over_seeds([TINY], 6)
    bad = [dataclasses.replace(TINY, name="bad", filter_size=5)]
    with pytest.raises(ValueError, match="filter_size"):
        list(run_all(bad + runs, data, partial(ThreadPoolExecutor, 1), progress=False))


def test_a_run_whose_process_dies_is_run_again(tmp_path):
    runs, source = over_seeds([TINY], 2), DataSource(small=True)
    process_opener, opened = executor_factory("process", 2), []

    def kill_both():
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        time.sleep(0.2)  # both are still starting and have work to do
        for process in multiprocessing.active_children():
            process.kill()

    @contextlib.contextmanager
    def dying_once():
        opened.append(threading.Thread(target=kill_both))
        if len(opened) == 1:
            opened[0].start()
        with process_opener() as executor:
            yield executor

    results = run_all(runs, source, dying_once, folder=tmp_path, threads=1, progress=False)
    assert sorted(result.run.seed for result in results) == [0, 1] and len(opened) == 2
    opened[0].join()


@pytest.mark.slow
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_terminated_processes_write_their_checkpoints(tmp_path):
    short = dataclasses.replace(TINY, name="short", step_size=1500, n_hidden=200)
    long = dataclasses.replace(short, name="long", step_size=10**9, n_cycles=1, log_every=10**6)
    waiting = over_seeds([long], 3, first=1)
    results = run_all(
        [long, short, *waiting],
        DataSource(small=True),
        executor_factory("process", 2),
        folder=tmp_path,
        threads=1,
        progress=False,
    )
    assert next(results).run == short
    ended = time.monotonic()
    results.close()
    assert time.monotonic() - ended < executors.SHUTDOWN_TIMEOUT  # no waiting run was started
    assert not multiprocessing.active_children() and not list(tmp_path.glob(".*"))
    assert cyconv.CyclicTrainer.resume(RunFiles(tmp_path, long).checkpoint).step > 0


def test_the_longest_runs_start_first():
    long = dataclasses.replace(TINY, name="long", step_size=60)
    wide = dataclasses.replace(TINY, name="wide", n_filters=8, n_hidden=60)
    fine = dataclasses.replace(TINY, name="fine", filter_size=2)
    assert [run.name for run in longest_first([TINY, fine, wide, long])] == ["long", "wide", "fine", "tiny"]
    assert [run.name.removeprefix("part1-") for run in longest_first(ARCHITECTURES)] == [
        "f16-nf160",
        "f8-nf40",
        "f4-nf10",
        "f2-nf3",
    ]


# Schedules and optimisers -----------------------------------------------------------


@pytest.mark.parametrize(
    "changes, schedule",
    [
        ({}, cyconv.CyclicSchedule(1e-5, 0.1, 6, 2, 1.0)),
        ({"mode": "triangular2"}, cyconv.CyclicSchedule(1e-5, 0.1, 6, 2, 1.0, mode="triangular2")),
        (
            {"mode": "exp_range", "gamma": 0.9},
            cyconv.CyclicSchedule(1e-5, 0.1, 6, 2, 1.0, mode="exp_range", gamma=0.9),
        ),
        ({"mode": "cosine", "growth": 2.0}, cyconv.CosineSchedule(1e-5, 0.1, 6, 2)),
        ({"mode": "one_cycle"}, cyconv.OneCycleSchedule(0.1, 24, eta_min=1e-5)),
        (
            {"mode": "one_cycle", "anneal": "linear"},
            cyconv.OneCycleSchedule(0.1, 24, eta_min=1e-5, anneal="linear"),
        ),
        ({"mode": "constant"}, cyconv.ConstantSchedule(0.1, 24)),
        ({"mode": "cosine", "warmup": 5}, cyconv.WarmupSchedule(cyconv.CosineSchedule(1e-5, 0.1, 6, 2, 1.0), 5)),
    ],
)
def test_the_schedule_of_a_run(changes, schedule):
    run = dataclasses.replace(TINY, **changes)
    assert run.check().schedule() == schedule
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


@pytest.mark.parametrize(
    "changes, optimizer",
    [
        ({"momentum": 0.9}, None),
        ({"optimizer": "nesterov", "momentum": 0.9}, cyconv.SGD(0.9, nesterov=True)),
        ({"optimizer": "adamw", "weight_decay": 0.1}, cyconv.AdamW(weight_decay=0.1)),
    ],
)
def test_the_optimizer_of_a_run(changes, optimizer, data):
    run = dataclasses.replace(TINY, **changes)
    assert run.trainer().optimizer == optimizer
    result = run_experiment(run, data, progress=False)
    assert result.complete and Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_settings_that_earlier_versions_lacked_are_only_written_where_they_are_used():
    assert not {"mode", "gamma", "warmup", "optimizer", "weight_decay"} & set(TINY.to_dict())
    assert dataclasses.replace(TINY, mode="cosine").to_dict()["mode"] == "cosine"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"mode": "square"}, "^mode must be one of"),
        ({"warmup": -1}, "^warmup must"),
        ({"mode": "one_cycle", "eta_max_decay": 0.5}, "^eta_max_decay must be 1 with the mode"),
        ({"gamma": 0.5}, "^gamma must be 1 unless"),
        ({"anneal": "linear"}, "^anneal must be 'cos' unless mode is 'one_cycle', but got 'linear'"),
        ({"mode": "one_cycle", "anneal": "square"}, "^anneal must be one of"),
        ({"optimizer": "adam"}, "^optimizer must be one of"),
        ({"optimizer": "nesterov"}, "^momentum must be greater than 0"),
        ({"optimizer": "adamw", "momentum": 0.9}, "^momentum must be 0 with the optimizer 'adamw'"),
        ({"weight_decay": 0.1}, "^weight_decay must be 0 unless the optimizer is 'adamw'"),
    ],
)
def test_settings_that_do_not_go_together(changes, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        dataclasses.replace(TINY, **changes).check()


def test_every_field_is_one_of_0_1_0_or_known_to_be_new():
    """Else output folders of earlier versions could not be resumed."""
    first = {
        *(
            "name",
            "label",
            "filter_size",
            "n_filters",
            "n_hidden",
            "dtype",
            "eta_min",
            "eta_max",
            "step_size",
            "n_cycles",
        ),
        *("growth", "eta_max_decay", "batch_size", "l2", "label_smoothing", "momentum", "dropout", "flip", "shift"),
        *("cutout", "snapshots", "seed", "log_every", "n_train_evaluated"),
    }
    assert set(TINY.to_dict()) == first


# Names and defaults -----------------------------------------------------------------


@pytest.mark.parametrize(
    "run, name, label",
    [
        (Run(), "f4-nf10", "f=4, nf=10"),
        (Run(n_hidden=(100, 50), l2=0.01), "f4-nf10-nh100_50-l2_0.01", "f=4, nf=10, nh=(100, 50), λ=0.01"),
        (Run(filter_size=(4, 8), n_filters=(3, 5)), "f4_8-nf3_5", "f=(4, 8), nf=(3, 5)"),
        (
            Run(flip=True, optimizer="adamw", growth=1),
            "f4-nf10-growth_1-flip-adamw",
            "f=4, nf=10, growth=1, flip, adamw",
        ),
        (Run(label="mine"), "f4-nf10", "mine"),
        (Run("mine"), "mine", "mine"),
        (dataclasses.replace(Run("mine"), name="ours"), "ours", "ours"),
        (dataclasses.replace(Run("mine"), n_filters=3), "mine", "mine"),
        (dataclasses.replace(Run(), n_filters=3), "f4-nf3", "f=4, nf=3"),
        (dataclasses.replace(ARCHITECTURES[1], n_filters=20), "part1-f4-nf20", "2: f=4, nf=20"),
        (dataclasses.replace(LONGER_TRAINING[2], l2=0.01), "part2-f4-nf40-l2_0.01", "2 wide: f=4, nf=40, λ=0.01"),
    ],
)
def test_names_and_labels_follow_the_settings_unless_they_are_given(run, name, label):
    for each in (run, pickle.loads(pickle.dumps(run)), Run.from_dict(json.loads(json.dumps(run.to_dict())))):
        assert (each.name, each.label) == (name, label) and each == run
        assert dataclasses.replace(each, seed=3).stem == f"{name}-seed3"


def test_different_settings_have_different_names():
    values = {
        "filter_size": 2,
        "n_filters": 3,
        "n_hidden": (50, 50),
        "dtype": "float64",
        "eta_min": 0.0,
        "eta_max": 0.2,
        "step_size": 9,
        "n_cycles": 4,
        "growth": 1.5,
        "eta_max_decay": 0.5,
        "batch_size": 50,
        "l2": 1e-5,
        "label_smoothing": 0.1,
        "momentum": 0.9,
        "dropout": 0.1,
        "flip": True,
        "shift": 1,
        "cutout": 2,
        "snapshots": True,
        "log_every": 7,
        "n_train_evaluated": None,
        "mode": "cosine",
        "gamma": 0.9,
        "warmup": 5,
        "optimizer": "nesterov",
        "weight_decay": 0.1,
        "views": True,
        "whitening": 0.3,
        "anneal": "linear",
    }
    assert set(values) == {field.name for field in dataclasses.fields(Run)} - {"name", "label", "seed"}
    runs = [Run(), *(Run(**{name: value}) for name, value in values.items()), Run(**values)]
    assert len({run.stem for run in runs}) == len({run.label for run in runs}) == len(runs)
    long = [Run(n_hidden=(*range(1, 60), last)) for last in (7, 8)]
    assert long[0].name != long[1].name and len(long[0].name) <= 100


def test_a_setting_that_no_name_can_hold_is_refused_by_check():
    for value in (np.ones(2), object(), [1, 2], {"a": 1}, -(10**5000), (10**5000,)):
        with pytest.raises((TypeError, ValueError), match="^l2 must be"):
            Run(l2=value).check()


def test_a_loaded_run_still_has_a_derived_name():
    loaded = Run.from_dict(json.loads(json.dumps(Run(n_filters=3).to_dict())))
    assert dataclasses.replace(loaded, n_filters=4).name == "f4-nf4"


def test_defaults_are_those_of_the_classes_that_are_used():
    defaults = {field.name: field.default for field in dataclasses.fields(Run)}
    for function in (cyconv.Network, cyconv.CyclicSchedule, cyconv.CyclicTrainer, cyconv.CyclicTrainer.fit):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in set(defaults) - {"n_train_evaluated", "optimizer"} and parameter.default is not parameter.empty:
                assert parameter.default == defaults[name], (function, name)
    assert Run().trainer().optimizer == cyconv.CyclicTrainer(Run().network(), Run().schedule()).optimizer


# Many runs ----------------------------------------------------------------------------


def test_calling_run_all_again_continues(tmp_path, data, monkeypatch):
    runs = over_seeds([TINY, dataclasses.replace(TINY, name="other", l2=0.1)], 2)
    whole = list(run_all(runs, data, progress=False))
    folder = tmp_path / "new" / "folder"
    trained = []
    fit = cyconv.CyclicTrainer.fit

    def watched(self, *arguments, **options):
        trained.append(self.step)
        return fit(self, *arguments, **options)

    monkeypatch.setattr(cyconv.CyclicTrainer, "fit", watched)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3)
        with pytest.raises(RunInterrupted):
            list(run_all(runs, data, folder=folder, progress=False))
    assert list(run_all(runs[:2], data, folder=folder, progress=False))
    again = list(run_all(runs, data, folder=folder, progress=False))
    assert all(same(a, b) for a, b in zip(again, whole, strict=True))
    assert len(trained) == 5 and trained[0] == 0 < trained[1] and trained[2:] == [0, 0, 0]
    with pytest.raises(ValueError, match="other settings"):
        list(run_all([dataclasses.replace(TINY, l2=0.3)], data, folder=folder, progress=False))


@pytest.mark.parametrize(
    "given, value",
    [
        ({"n_hidden": [5, 4]}, (5, 4)),
        ({"n_hidden": np.array([5, 4])}, (5, 4)),
        ({"n_filters": np.int64(3)}, 3),
        ({"l2": np.float32(0.1)}, float(np.float32(0.1))),
        ({"flip": np.True_}, True),
        ({"dtype": np.float64}, "float64"),
        ({"seed": np.uint8(3)}, 3),
    ],
    ids=str,
)
def test_settings_that_numpy_made_are_saved_and_resumed(given, value, data, tmp_path, monkeypatch):
    run = dataclasses.replace(TINY, **given)
    (name,) = given
    assert getattr(run, name) == value and type(getattr(run, name)) is type(value)
    assert Run.from_dict(json.loads(json.dumps(run.to_dict()))) == pickle.loads(pickle.dumps(run)) == run
    (first,) = run_all([run], data, folder=tmp_path, progress=False)
    monkeypatch.setattr(cyconv.CyclicTrainer, "fit", None)  # is not called again
    (again,) = run_all([dataclasses.replace(TINY, **{name: value})], data, folder=tmp_path, progress=False)
    assert same(first, again)


def test_numbers_of_other_precision_have_names_of_their_own():
    assert Run(l2=np.float32(0.1)).name != Run(l2=0.1).name


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"l2": -1}, "l2 must be a number at least 0"),
        ({"filter_size": 3}, "filter_size must divide"),
        ({"seed": "../x"}, "seed must be an integer"),
        ({"seed": 2**64}, "seed must be an integer"),
        ({"n_hidden": {3}}, "n_hidden must be an integer"),
        ({"log_every": 0}, "log_every must be an integer"),
    ],
)
@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor])
def test_every_run_is_checked_before_the_first_is_trained(wrong, sentence, executor, data, tmp_path):
    runs = [TINY, dataclasses.replace(TINY, **{"seed": 1, **wrong})]
    with pytest.raises((TypeError, ValueError), match=f"^{sentence}"):
        run_all(runs, data, executor, folder=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"runs": None}, "runs must be an iterable of Run, but got None"),
        ({"runs": TINY}, "runs must be an iterable of Run, but got"),
        ({"threads": 0}, "threads must be an integer"),
        ({"resume": "no"}, "resume must be True or False"),
        ({"executor": "thread"}, "executor must be one of"),
        ({"folder": os.devnull}, f"folder must be a folder that can be written, but {os.devnull} cannot: File exists"),
    ],
)
def test_a_wrong_argument_of_run_all_is_named(arguments, sentence, data):
    with pytest.raises((TypeError, ValueError, OSError), match=f"^{sentence}"):
        run_all(**{"runs": [TINY], "data": data, "progress": False, **arguments})


def test_a_bar_counts_the_runs(data, capsys):
    list(run_all(over_seeds([TINY], 2), data, progress=True))
    bars = capsys.readouterr().err
    assert "runs: 100%" in bars and "2/2" in bars and "tiny, seed 1" in bars


def test_any_executor_is_taken(data):
    runs, taken = over_seeds([TINY], 2), []

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments):
            taken.append(self)
            return super().submit(*arguments)

    with Pool(1) as pool:
        for executor in (pool, pool, lambda: Pool(1)):
            assert len(list(run_all(runs, data, executor, progress=False))) == 2
        assert taken[:4] == 4 * [pool] != taken[4:6]
        assert pool.submit(int).result() == 0  # it was not shut down
    assert len(list(run_all(runs, data, "serial", progress=False))) == 2
    with pytest.raises(TypeError, match="^executor must be a concurrent"):
        run_all(runs, data, 3)
    with pytest.raises(ValueError, match="^executor must be one of"):
        run_all(runs, data, "threads")
    with pytest.raises(ValueError, match="^n_workers must be None with"):
        run_all(runs, data, pool, n_workers=2)
    with pytest.raises(TypeError, match="runs must be Run objects"):
        run_all(["tiny"], data)


@pytest.mark.optional
def test_lokys_executor_gives_the_same_bits(tmp_path):
    loky = pytest.importorskip("loky")
    runs, source = over_seeds([TINY], 2), DataSource(small=True)
    executor = loky.get_reusable_executor(max_workers=2)
    found = list(run_all(runs, source, executor, folder=tmp_path, threads=1, progress=False))
    executor.shutdown()
    found.sort(key=lambda result: result.run.seed)
    assert all(same(a, b) for a, b in zip(found, run_all(runs, source, progress=False), strict=True))


def test_a_source_becomes_absolute_when_it_is_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(DataSource("some.npz"))).folder == str(tmp_path / "some.npz")
    assert pickle.loads(pickle.dumps(DataSource())) == DataSource()


def test_a_worker_without_the_data_says_so(tmp_path, data):
    path = tmp_path / "some.npz"
    arrays = {
        f"{name}_{what}": getattr(getattr(data, name), what)
        for name in ("train", "test")
        for what in ("images", "labels")
    }
    np.savez(path, **arrays, validation_images=data.validation.images, validation_labels=data.validation.labels)
    factory = executor_factory("process", 1)

    def elsewhere():
        path.unlink()
        return factory()

    with pytest.raises(
        ChildProcessError, match=rf"^every worker must have the data at {path}, but \S+ cannot load them"
    ):
        list(run_all([TINY], DataSource(path), elsewhere, progress=False))


def test_a_worker_checks_its_version_its_folder_and_its_threads(tmp_path, data, restored_num_threads):
    elsewhere = ("somewhere else", 1)
    assert Origin(process=elsewhere).check_worker(data, tmp_path, threads=2) is data and cyconv.get_num_threads() == 2
    with pytest.raises(
        ChildProcessError, match="^every worker must have cyconv 99, as the process that sends runs, but"
    ):
        Origin("99", elsewhere).check_worker(data)
    with pytest.raises(ChildProcessError, match=f"^every worker must see the folder {tmp_path / 'gone'}, but on"):
        Origin(process=elsewhere).check_worker(data, tmp_path / "gone")


def test_workers_with_other_data_are_noticed(data):
    sets = iter([data, data, cyconv.make_shapes(200, 60, 81)])

    class Source(DataSource):
        def load(self):
            return next(sets)

    with pytest.raises(ChildProcessError, match="^every worker must have the same data, but tiny-seed1 was"):
        list(run_all(over_seeds([TINY], 2), Source(), progress=False))


def test_a_result_tells_its_versions(data, tmp_path):
    result = run_experiment(TINY, data, folder=tmp_path, progress=False)
    assert set(result.versions) == {"cyconv", "numpy", "instruction_set"}
    path = RunFiles(tmp_path, TINY).result
    loaded = Result.load(path)
    assert loaded.versions == result.versions == loaded.document()["versions"]
    other = dataclasses.replace(loaded, versions={**loaded.versions, "instruction_set": "other"})
    assert report.differing_versions([result, loaded]) == []
    (sentence,) = report.differing_versions([result, other, dataclasses.replace(loaded, versions={})])
    assert "computed with instruction set" in sentence and " and other: " in sentence


def test_a_comparison_ranks_by_validation_accuracy():
    runs = [dataclasses.replace(TINY, name=name, label=label) for name, label in zip("abc", ("x, 1", "x, 2", "x, 3"))]
    results = list(run_all(over_seeds(runs[:2], 2), DataSource(small=True), progress=False))
    for result in results:
        accuracy = 0.9 if result.run.name == "b" else 0.5 + 0.01 * result.run.seed
        result.history = _ending_with(result.history, accuracy)
    results.append(dataclasses.replace(results[0], run=runs[2], state="interrupted"))
    lines = report.comparison(results).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["2", "1", "3"]
    assert lines[2].endswith("best") and lines[3].endswith(" 0.00806") and "0 of 1" in lines[4]
    assert lines[-1].startswith("All have x. Best on validation data: 2. The other is significantly worse at 5 %.")
    assert max(map(len, lines[:5])) <= 80
    assert report.comparison([]) == "No run has finished: there is nothing to compare."
    with_one_seed = report.comparison(results[:2])
    assert "Where a row has one run" in with_one_seed
    assert report.comparison(results, markdown=True).startswith("| ")


def test_a_setting_whose_runs_diverged_is_not_the_best():
    runs = [dataclasses.replace(TINY, name=name, label=name) for name in ("wild", "gentle", "tame", "mild")]
    results = list(run_all(over_seeds(runs, 2), DataSource(small=True), progress=False))
    for result in results:
        accuracy = {"wild": 0.9, "gentle": 0.5, "tame": 0.4, "mild": 0.5}[result.run.name] + 0.01 * result.run.seed
        result.history = _ending_with(result.history, accuracy)
    (last,) = (result for result in results if (result.run.name, result.run.seed) == ("wild", 1))
    last.state = "diverged"
    text = report.comparison(results)
    assert [line.split()[0] for line in text.splitlines()[2:6]] == ["gentle", "mild", "tame", "wild"]
    assert "1 of 2" in text and "Best on validation data: gentle. Of the 3 others, " in text
    assert " could not be tested. Intervals" in text


def _ending_with(history, accuracy):
    curves = {key: np.array(history[key]) for key in CURVES}
    curves["acc_val"][-1] = accuracy
    return cyconv.History.from_arrays(history.header(), curves)
