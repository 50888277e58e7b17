"""Callbacks are called in order, can stop a run, and never change its results."""

import json

import numpy as np
import pytest
from tiny_run import EVERYTHING, PLAIN, digest, fit, make_data, make_trainer

import cyconv


def whole_run(**changes):
    trainer = make_trainer(**changes)
    fit(trainer)
    return trainer


def test_events_come_at_logged_points_and_at_the_ends_of_cycles():
    events = []
    trainer = make_trainer()
    fit(trainer, callbacks=[events.append])
    assert [(event.kind, event.step) for event in events] == [
        *(("logged", 0), ("logged", 7), ("cycle_end", 12), ("logged", 14), ("logged", 21)),
        *(("logged", 28), ("logged", 35), ("logged", 36), ("cycle_end", 36)),
    ]
    history = trainer.history
    assert [event.row for event in events if event.kind == "logged"] == [
        {key: history[key][i] for key in events[0].row} for i in range(history.n_points)
    ]
    assert all(event.trainer is trainer for event in events)
    assert digest(trainer) == digest(whole_run())


@pytest.mark.parametrize("settings", [PLAIN, EVERYTHING])
@pytest.mark.parametrize("stop", [0, 7, 12, 35, 36])
def test_a_run_stopped_by_a_callback_resumes_with_the_same_bits(tmp_path, settings, stop):
    path, trainer = tmp_path / "run.npz", make_trainer(**settings)
    history = fit(trainer, checkpoint=path, callbacks=[lambda event: event.step == stop])
    assert trainer.step == stop and history.complete == (stop == 36)
    expected = digest(whole_run(**settings))
    resumed = cyconv.CyclicTrainer.resume(path)
    assert resumed.step == stop
    for each in (resumed, trainer) if stop < 36 else (resumed,):
        fit(each, callbacks=[lambda event: event.step == stop])  # it is not called with the same event again
        assert digest(each) == expected


@pytest.mark.parametrize("at", [0, 12, 14, 36])
def test_a_callback_that_raises_leaves_the_run_resumable(tmp_path, at):
    def raises(event):
        if event.step == at:
            raise ZeroDivisionError("a logger's disk")

    path, trainer = tmp_path / "run.npz", make_trainer(**EVERYTHING)
    with pytest.raises(ZeroDivisionError):
        fit(trainer, checkpoint=path, checkpoint_every=5, callbacks=[raises])
    fit(trainer)
    assert digest(trainer) == digest(whole_run(**EVERYTHING))


@pytest.mark.parametrize("answer", [None, 1, "stop", False, np.False_])
def test_only_true_stops(answer):
    trainer = make_trainer()
    assert fit(trainer, callbacks=[lambda event: answer]).complete


def test_all_callbacks_are_called_before_training_stops():
    called = []
    callbacks = [lambda event: np.True_, lambda event: called.append(event.step)]
    fit(make_trainer(), callbacks=callbacks)
    assert called == [0]


@pytest.mark.parametrize("callbacks", [print, "print", None, 3, [3], [print, None], {"a": print}])
def test_callbacks_must_be_callable(callbacks):
    trainer = make_trainer()
    with pytest.raises(TypeError, match=r"^callbacks(\[\d\])? must be [^\n]*$"):
        fit(trainer, callbacks=callbacks)
    assert trainer.step == 0 and trainer.history.n_points == 0


# Early stopping ---------------------------------------------------------------------


def history_of(values, step=7):
    history = cyconv.History()
    for i, value in enumerate(values):
        history.append(i * step, 0.1, (1.0, 1.0, 0.5), (value, value, 0.5))
    return history


class Watched:
    """The parts of a trainer that these callbacks use."""

    def __init__(self, history, network=None):
        self.history, self.network = history, network


def event_of(history, network=None):
    return cyconv.TrainingEvent("logged", Watched(history, network), history.last_step, history.last_row)


@pytest.mark.parametrize(
    "values, options, stops",
    [
        ([3, 2, 1], {"patience": 1}, False),
        ([3, 2, 2], {"patience": 1}, True),
        ([3, 2, 2], {"patience": 2}, False),
        ([3, 2, 4, 2.5], {"patience": 2}, True),
        ([3, 2, 4, 1.9], {"patience": 2}, False),
        ([3, 2, 4, 1.9], {"patience": 2, "min_delta": 0.2}, True),
        ([1, 3, 2], {"patience": 2, "from_step": 7}, False),
        ([1, 3, 4, 4], {"patience": 2, "from_step": 7}, True),
        ([1, 1, 1], {"patience": 2, "monitor": "acc_val"}, True),
    ],
)
def test_early_stopping_counts_points_without_improvement(values, options, stops):
    history = history_of(values)
    assert cyconv.EarlyStopping(**options)(event_of(history)) is stops


def test_early_stopping_of_a_resumed_run_equals_that_of_an_uninterrupted_one(tmp_path):
    """Its state is the history, which is part of a checkpoint."""
    path, options = tmp_path / "run.npz", {"log_every": 1}
    whole, cut = make_trainer(eta_max=3.0), make_trainer(eta_max=3.0)
    fit(whole, callbacks=[cyconv.EarlyStopping(patience=3)], **options)
    assert 0 < whole.step < 36
    fit(cut, checkpoint=path, callbacks=[lambda event: event.step == whole.step - 2], **options)
    resumed = cyconv.CyclicTrainer.resume(path)
    fit(resumed, callbacks=[cyconv.EarlyStopping(patience=3)], **options)
    assert resumed.step == whole.step and digest(resumed) == digest(whole)


@pytest.mark.parametrize(
    "name, value",
    [("monitor", "accuracy"), ("patience", 0), ("patience", 1.5), ("min_delta", -1), ("from_step", -1)],
)
def test_bad_settings_of_early_stopping(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must [^\n]*$"):
        cyconv.EarlyStopping(**{name: value})


# The best network -------------------------------------------------------------------


@pytest.mark.parametrize("monitor", ["acc_val", "loss_val", "loss_train"])
def test_keep_best_has_the_parameters_of_the_best_point(tmp_path, monitor):
    seen = {}
    best = cyconv.KeepBest(tmp_path / "best.npz", monitor=monitor)
    trainer = make_trainer(eta_max=1.0)
    fit(trainer, log_every=1, callbacks=[lambda e: seen.update({e.step: e.trainer.network.parameters}) and None, best])
    curve = trainer.history[monitor]
    place = curve.argmax() if monitor == "acc_val" else curve.argmin()
    assert best.step == trainer.history["update_steps"][place] and best.value == curve[place]
    saved = cyconv.Network.load(tmp_path / "best.npz")
    best.restore(trainer.network)
    for name, values in seen[best.step].items():
        assert (best.parameters[name] == values).all()
        assert (saved.parameters[name] == values).all() and (trainer.network.parameters[name] == values).all()
    assert np.array_equal(saved.normalizer.mean, trainer.network.normalizer.mean)


def test_keep_best_of_a_resumed_run_leaves_a_better_file_alone(tmp_path):
    path, file = tmp_path / "run.npz", tmp_path / "best.npz"
    whole, cut = make_trainer(eta_max=1.0), make_trainer(eta_max=1.0)
    fit(whole, log_every=1, callbacks=[cyconv.KeepBest(file)])
    expected = cyconv.Network.load(file).parameters
    file.unlink()
    fit(cut, log_every=1, checkpoint=path, callbacks=[cyconv.KeepBest(file), lambda event: event.step == 20])
    fit(cyconv.CyclicTrainer.resume(path), log_every=1, callbacks=[cyconv.KeepBest(file)])
    for name, values in cyconv.Network.load(file).parameters.items():
        assert (values == expected[name]).all()


def test_bad_use_of_keep_best(tmp_path):
    with pytest.raises(ValueError, match=r"^monitor must "):
        cyconv.KeepBest(monitor="accuracy")
    with pytest.raises(FileNotFoundError, match=r"^path must "):
        cyconv.KeepBest(tmp_path / "none" / "best.npz")
    with pytest.raises(RuntimeError, match=r"^restore must be called after"):
        cyconv.KeepBest().restore(make_trainer().network)


# Without validation -----------------------------------------------------------------


def test_training_without_a_validation_split(tmp_path):
    train, _ = make_data()
    with_it, without = make_trainer(), make_trainer()
    fit(with_it)
    path = tmp_path / "run.npz"
    fit(without, data=(train, None), checkpoint=path, callbacks=[lambda event: event.step == 14])
    resumed = cyconv.CyclicTrainer.resume(path)
    with pytest.raises(ValueError, match="^validation must be the data that this run began with"):
        fit(resumed)
    history = resumed.fit(train, log_every=7, progress=False)
    assert (history["loss_train"] == with_it.history["loss_train"]).all()
    assert all(np.isnan(history[key]).all() for key in ("loss_val", "cost_val", "acc_val"))
    for name, values in resumed.network.parameters.items():
        assert (values == with_it.network.parameters[name]).all()
    history.save(tmp_path / "history.npz")
    assert cyconv.History.load(tmp_path / "history.npz") == history
    assert json.loads(json.dumps(history.to_dict(), allow_nan=False))["acc_val"] == [None] * history.n_points
    figure = cyconv.plots.plot_train_validation(history, "without validation")
    cyconv.plots.save_figure(figure, tmp_path / "curves.png")


def test_the_best_network_and_the_checkpoint_are_two_files(tmp_path):
    path, trainer = tmp_path / "run.npz", make_trainer()
    (tmp_path / "link").symlink_to(tmp_path)
    for same in (path, tmp_path / "link" / "run.npz"):
        with pytest.raises(ValueError, match="^checkpoint must be another file than a callback writes"):
            fit(trainer, checkpoint=path, callbacks=[cyconv.KeepBest(same)])
    assert trainer.step == 0 and not path.exists()
