"""Runs described as data: executed, saved, resumed, distributed over processes."""

import contextlib
import dataclasses
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
    run_all,
    run_experiment,
)
from cyconv.experiments.executors import executor_factory

TINY = Run("tiny", n_filters=2, n_hidden=6, step_size=6, n_cycles=2, batch_size=20, log_every=4)


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


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a b", "x" * 101, 3, None])
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
