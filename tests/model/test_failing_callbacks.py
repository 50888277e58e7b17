"""A callback that raises takes nothing from the run or from the other callbacks."""

import pytest

import cyconv


def make_trainer():
    network = cyconv.Network(filter_size=8, n_filters=2, n_hidden=4, seed=0)
    return cyconv.CyclicTrainer(network, cyconv.ConstantSchedule(0.01, 10), batch_size=20)


def fail(event):
    if event.step == 10:
        raise RuntimeError("a callback failed")


def test_the_last_checkpoint_is_written_if_a_callback_fails(tmp_path):
    data = cyconv.make_shapes(n_train=60, n_validation=10, n_test=10, seed=0)
    path = tmp_path / "run.npz"
    with pytest.raises(RuntimeError, match="a callback failed"):
        make_trainer().fit(data.train, log_every=5, progress=False, checkpoint=path, callbacks=[fail])
    assert cyconv.CyclicTrainer.resume(path).history.complete


def test_the_other_callbacks_are_called_if_one_fails():
    data = cyconv.make_shapes(n_train=60, n_validation=10, n_test=10, seed=0)
    seen = []
    with pytest.raises(RuntimeError, match="a callback failed"):
        make_trainer().fit(
            data.train,
            log_every=5,
            progress=False,
            callbacks=[fail, lambda event: seen.append((event.kind, event.step))],
        )
    assert seen == [("logged", 0), ("logged", 5), ("logged", 10), ("cycle_end", 10)]
