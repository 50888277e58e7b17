"""CyclicTrainer: what a run computes, logs and refuses."""

import copy
import pickle
import threading

import numpy as np
import pytest
from cases import each
from concurrency import in_threads
from tiny_run import EVERYTHING, PLAIN, digest, fit, make_data, make_network, make_trainer, set_call_seconds

import cyconv
from cyconv.datasets.normalizer import blocks

pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture
def data():
    return make_data()


@pytest.mark.parametrize("options", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_fit_equals_separate_updates(data, options):
    """The loop consists of shuffled_order, the schedule and train_steps."""
    train, validation = data
    trainer = make_trainer(**options)
    history = fit(trainer)

    network = make_network()
    normalizer = cyconv.Normalizer.fit(train.images)
    source = network.prepare(train.images, train.labels, normalizer=normalizer)
    settings = {key: value for key, value in options.items() if key != "snapshots"}
    for step in range(36):
        epoch, batch = divmod(step, 5)
        order = cyconv.backend.ops.shuffled_order(107, 1, epoch)[20 * batch : 20 * batch + 20]
        rates = trainer.schedule([step])
        network.train_steps(source, order, rates, batch_size=20, l2=0.01, seed=1, first_step=step, **settings)

    assert trainer.step == 36 and history is trainer.history and history.complete
    for name, values in network.parameters.items():
        assert np.array_equal(values, trainer.network.parameters[name])
    watched = network.prepare(validation.images, validation.labels, normalizer=normalizer)
    for suffix, prepared in (("train", source), ("val", watched)):
        loss, cost, accuracy = network.evaluate(prepared, l2=0.01)
        assert history[f"loss_{suffix}"][-1] == loss
        assert history[f"cost_{suffix}"][-1] == cost > loss
        assert history[f"acc_{suffix}"][-1] == accuracy
    assert np.array_equal(history["learning_rates"], trainer.schedule(history["update_steps"]))
    assert history["training_time"] >= history["update_time"] + history["evaluation_time"] > 0


@pytest.mark.parametrize(
    "log_every, steps",
    [(7, [0, 7, 14, 21, 28, 35, 36]), (12, [0, 12, 24, 36]), (50, [0, 36]), (10**12, [0, 36])],
)
def test_logged_steps(log_every, steps):
    assert fit(make_trainer(), log_every=log_every)["update_steps"].tolist() == steps


@pytest.mark.parametrize("options", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_logging_and_checkpoints_do_not_change_results(options, tmp_path, monkeypatch):
    reference = make_trainer(**options)
    curves = fit(reference, log_every=1)
    for seconds in (0.0, 1e9):
        set_call_seconds(monkeypatch, seconds)
        for log_every, every in ((1, None), (7, 3), (13, None), (36, 10)):
            trainer = make_trainer(**options)
            checkpoint = None if every is None else tmp_path / "c.npz"
            history = fit(trainer, log_every=log_every, checkpoint=checkpoint, checkpoint_every=every)
            for name, values in reference.network.parameters.items():
                assert np.array_equal(values, trainer.network.parameters[name])
            where = np.isin(curves["update_steps"], history["update_steps"])
            for key in ("cost_train", "loss_val", "acc_val", "learning_rates"):
                assert np.array_equal(history[key], curves[key][where])


def test_calls_are_short_and_grow(monkeypatch):
    """They start at one update, grow with the measured speed, and never span two epochs."""
    lengths = []
    original = cyconv.Network.train_steps

    def counted(self, source, order, learning_rates, **options):
        lengths.append(len(learning_rates))
        return original(self, source, order, learning_rates, **options)

    monkeypatch.setattr(cyconv.Network, "train_steps", counted)
    fit(make_trainer(step_size=10), log_every=1000)
    assert lengths[0] == 1 and sum(lengths) == 60 and max(lengths) <= 5


def test_snapshots_are_the_parameters_at_cycle_ends():
    trainer = make_trainer(snapshots=True)
    fit(trainer)
    first, second = trainer.snapshots
    one_cycle = make_trainer(n_cycles=1)
    fit(one_cycle)
    for name, values in trainer.network.parameters.items():
        assert np.array_equal(first[name], one_cycle.network.parameters[name])
        assert np.array_equal(second[name], values)
    assert fit(make_trainer()) and make_trainer().snapshots == []


def test_normalizer_is_fitted_unless_there_is_one(data):
    trainer = make_trainer()
    fit(trainer)
    assert np.array_equal(trainer.network.normalizer.mean, cyconv.Normalizer.fit(data[0].images).mean)

    own = cyconv.Normalizer.fit(data[1].images)
    pretrained = make_trainer()
    pretrained.network.normalizer = own
    fit(pretrained)
    assert pretrained.network.normalizer is own
    assert digest(pretrained) != digest(trainer)


def test_velocity_starts_from_zero():
    first = make_trainer(momentum=0.9)
    fit(first)
    assert first.network.velocity is not None
    fresh = make_network()
    fresh.set_parameters(first.network.parameters)
    fresh.normalizer = first.network.normalizer
    trainers = [cyconv.CyclicTrainer(n, first.schedule, 20, momentum=0.9) for n in (first.network, fresh)]
    for trainer in trainers:
        fit(trainer)
    assert digest(trainers[0]) == digest(trainers[1])


def test_only_the_first_training_images_are_evaluated():
    history = fit(make_trainer(), n_train_evaluated=10)
    full = fit(make_trainer(), n_train_evaluated=10**6)
    assert np.array_equal(history["loss_val"], full["loss_val"])
    assert not np.array_equal(history["loss_train"], full["loss_train"])
    assert set(np.round(history["acc_train"] * 10, 9) % 1) == {0}


def test_a_finished_trainer_refuses():
    trainer = make_trainer()
    fit(trainer)
    before = digest(trainer)
    with pytest.raises(RuntimeError, match="done its 36 steps"):
        fit(trainer)
    assert digest(trainer) == before


def test_two_trainers_in_two_threads():
    expected = [digest_of_run(seed) for seed in (1, 2)]
    assert in_threads(digest_of_run, (1, 2)) == expected
    assert expected[0] != expected[1]


def digest_of_run(seed):
    trainer = make_trainer(seed=seed)
    fit(trainer)
    return digest(trainer)


def test_progress_bar_only_where_wanted(capsys):
    fit(make_trainer(), progress=None)  # stderr is no terminal here
    fit(make_trainer(), progress=False)
    assert capsys.readouterr().err == ""
    threads = threading.active_count()
    fit(make_trainer(), progress="A title")
    shown = capsys.readouterr()
    assert shown.out == "" and threading.active_count() == threads
    for text in ("A title", "36/36", "step/s", "lr 1.00e-04", "loss", "val acc"):
        assert text in shown.err


# Divergence ------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_divergence_is_seen_without_logging(monkeypatch, seconds):
    set_call_seconds(monkeypatch, seconds)
    trainer = make_trainer(eta_max=1e20)
    with pytest.raises(cyconv.DivergenceError, match="the cost is not finite") as caught:
        fit(trainer, log_every=1000)
    assert 1 <= caught.value.step <= 4
    assert trainer.history["update_steps"].tolist() == [0] and not trainer.history.complete


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_divergence_names_step_and_rate_and_keeps_what_was_good(tmp_path, monkeypatch, seconds):
    set_call_seconds(monkeypatch, seconds)
    path = tmp_path / "c.npz"
    trainer = make_trainer(eta_max=1e20)
    with pytest.raises(cyconv.DivergenceError) as caught:
        fit(trainer, log_every=1, checkpoint=path, checkpoint_every=1)
    error = caught.value
    assert isinstance(error, ArithmeticError)
    assert f"step {error.step} " in str(error) and f"{error.learning_rate:.6g}" in str(error)
    assert 1 <= error.step <= 4 and error.learning_rate == trainer.schedule(error.step)

    history = trainer.history
    assert history.n_points >= 1 and history.last_step <= error.step and not history.complete
    assert all(np.isfinite(history[key]).all() for key in history)
    with pytest.raises(RuntimeError, match="diverged"):
        fit(trainer)
    if path.exists():  # written before, and whole: going on diverges again at the same step
        resumed = cyconv.CyclicTrainer.resume(path)
        assert 0 < resumed.step <= error.step
        with pytest.raises(cyconv.DivergenceError):
            fit(resumed, log_every=1)


def test_checkpoint_is_never_overwritten_by_a_diverged_state(tmp_path):
    """Not even if the parameters overflow in the update right before a checkpoint is due."""
    path = tmp_path / "c.npz"
    trainer = make_trainer()
    spoil_at(trainer, 10)
    with pytest.raises(cyconv.DivergenceError, match="step 10 "):
        fit(trainer, log_every=100, checkpoint=path, checkpoint_every=5)
    assert cyconv.CyclicTrainer.resume(path).step == 5


def test_a_diverged_state_is_not_kept_as_a_snapshot():
    trainer = make_trainer(snapshots=True)
    spoil_at(trainer, 36)
    with pytest.raises(cyconv.DivergenceError, match="step 36 "):
        fit(trainer, log_every=100)
    assert len(trainer.snapshots) == 1


def spoil_at(trainer, step):
    """Let the update before ``step`` give infinite parameters while its cost is still finite."""
    spoilt = []

    class Spoilt(cyconv.Network):
        def train_steps(self, source, order, learning_rates, first_step, **options):
            costs = super().train_steps(source, order, learning_rates, first_step=first_step, **options)
            if first_step + len(learning_rates) >= step:
                spoilt.append(True)
            return costs

        @property
        def parameters(self):
            mapping = {name: values.copy() for name, values in super().parameters.items()}
            if spoilt:
                mapping["conv.bias"][0] = np.inf
            return mapping

    trainer.network.__class__ = Spoilt


def test_errors_survive_pickling():
    trainer = make_trainer(eta_max=1e20)
    with pytest.raises(cyconv.DivergenceError) as caught:
        fit(trainer)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(error), error.step) == (str(caught.value), caught.value.step)
    stop = cyconv.Interrupted("stopped")
    stop.signum = 15
    assert pickle.loads(pickle.dumps(stop)).signum == 15


# Bad input -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value",
    each(
        batch_size=[0, 20.0],
        l2=[-0.1, np.nan],
        label_smoothing=[1.0, -0.1],
        seed=[-1, 2**64, 0.5],
        momentum=[1.0, "high"],
        dropout=[1.0, -0.5],
        augmentation=[{"flip": True}, True],
        snapshots=[1],
    ),
)
def test_bad_settings(name, value):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must [^\n]*$"):
        make_trainer(**{name: value})


@pytest.mark.parametrize("learning_rates", [[0.1], [np.nan] * 36, "rates", [[0.1] * 36]])
def test_a_custom_schedule_must_give_learning_rates(learning_rates):
    class Strange(cyconv.CyclicSchedule):
        def __call__(self, step):
            return learning_rates

    with pytest.raises((TypeError, ValueError), match="^the learning rates of schedule must "):
        cyconv.CyclicTrainer(make_network(), Strange(1e-4, 0.05, 6, 2))


def test_network_and_schedule_of_wrong_types():
    schedule = cyconv.CyclicSchedule(0, 1, 1, 1)
    with pytest.raises(TypeError, match="^network must be a Network"):
        cyconv.CyclicTrainer("network", schedule)
    with pytest.raises(TypeError, match="^schedule must be a CyclicSchedule"):
        cyconv.CyclicTrainer(make_network(), lambda step: 0.1)


@pytest.mark.parametrize(
    "name, value",
    each(
        log_every=[0, 2.5],
        checkpoint=[7],
        checkpoint_every=[0],
        progress=[1],
        n_train_evaluated=[0, "all"],
    ),
)
def test_bad_options_of_fit_change_nothing(name, value):
    trainer = make_trainer()
    before = digest(trainer)
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must [^\n]*$"):
        fit(trainer, **{name: value})
    assert digest(trainer) == before and trainer.network.normalizer is None


def other_splits(kind):
    """Splits that do not match the network of make_trainer."""
    train, _ = make_data()
    return {
        "array": train.images,
        "none": None,
        "wide": cyconv.Split(np.zeros((40, 3, 8, 12), np.uint8), np.zeros(40, int)),
        "eleven classes": cyconv.Split(train.images, np.full(len(train), 10)),
        "less than a batch": cyconv.Split(train.images[:19], train.labels[:19]),
    }[kind]


@pytest.mark.parametrize(
    "name, kind, sentence",
    [
        ("train", "array", "must be a Split"),
        ("train", "none", "must be a Split"),
        ("validation", "array", "must be a Split"),
        ("train", "wide", r"must hold images of the network's shape \(3, 8, 8\)"),
        ("validation", "wide", r"must hold images of the network's shape \(3, 8, 8\)"),
        ("train", "eleven classes", "must hold labels in 0..9, but got 10"),
        ("validation", "eleven classes", "must hold labels in 0..9, but got 10"),
        ("train", "less than a batch", "must hold at least batch_size = 20 images, but got 19"),
    ],
)
def test_data_that_do_not_match_the_network(name, kind, sentence):
    data = dict(zip(("train", "validation"), make_data()))
    with pytest.raises((TypeError, ValueError), match=f"^{name} {sentence}"):
        fit(make_trainer(), data=list({**data, name: other_splits(kind)}.values()))


# Attributes ------------------------------------------------------------------------


def test_settings_are_read_only():
    trainer = make_trainer(**EVERYTHING)
    names = ["batch_size", "l2", "label_smoothing", "seed", "momentum", "dropout"]
    assert all(getattr(trainer, name) == trainer.settings[name] for name in names)
    assert trainer.augmentation == EVERYTHING["augmentation"]
    for name in [*names, "augmentation", "network", "schedule", "history", "step", "snapshots", "settings"]:
        with pytest.raises(AttributeError, match=f"^{name} of a trainer cannot be changed"):
            setattr(trainer, name, getattr(trainer, name))


@pytest.fixture(scope="module")
def objects():
    """An object of every class whose attributes are checked."""
    split, network, trainer = make_data()[0], make_network(), make_trainer()
    normalizer = cyconv.Normalizer.fit(split.images)
    return {
        "trainer": trainer,
        "history": trainer.history,
        "schedule": trainer.schedule,
        "network": network,
        "source": network.prepare(split.images, split.labels, normalizer),
        "augmentation": cyconv.Augmentation(),
        "normalizer": normalizer,
        "ensemble": cyconv.Ensemble([network]),
        "split": split,
    }


CHECKED = ("trainer", "history", "schedule", "network", "source", "augmentation", "normalizer", "ensemble", "split")


@pytest.mark.parametrize("kind", CHECKED)
def test_unknown_attributes_cannot_be_set(objects, kind):
    with pytest.raises(AttributeError, match="normaliser"):
        objects[kind].normaliser = None


@pytest.mark.parametrize(
    "kind, name",
    [
        ("schedule", "eta_max"),
        ("schedule", "total_steps"),
        ("network", "parameters"),
        ("network", "n_hidden"),
        ("normalizer", "mean"),
        ("normalizer", "scale"),
        ("ensemble", "networks"),
    ],
)
def test_fixed_attributes_cannot_be_set(objects, kind, name):
    with pytest.raises(AttributeError, match=name):
        setattr(objects[kind], name, getattr(objects[kind], name))


@pytest.mark.parametrize("kind", ["network", "schedule", "trainer", "history"])
def test_subclasses_may_have_their_own_attributes(kind):
    trainer = make_trainer()
    thing = trainer if kind == "trainer" else getattr(trainer, kind)
    own = type("Own", (type(thing),), {})
    if kind == "network":
        thing = own(**thing.architecture)
    elif kind == "schedule":
        thing = own(**thing.settings)
    else:
        thing = own() if kind == "history" else own(trainer.network, trainer.schedule)
    thing.remark = "mine"
    assert thing.remark == "mine"


def test_trainers_are_copied_and_pickled():
    trainer = make_trainer(**EVERYTHING)
    fit(trainer)
    for twin in (copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))):
        assert digest(twin) == digest(trainer) and twin.settings == trainer.settings


def test_images_are_read_once_before_training_and_never_again_if_they_cannot_change(monkeypatch):
    read = []

    def counted(array):
        read.append(array)
        return blocks(array)

    monkeypatch.setattr("cyconv.datasets.split.blocks", counted)
    monkeypatch.setattr("cyconv.datasets.normalizer.blocks", counted)
    splits = make_data()
    fit(make_trainer(), splits)
    assert [sum(array is split.images for array in read) for split in splits] == [1, 1]
    fit(make_trainer(), splits)
    assert [sum(array is split.images for array in read) for split in splits] == [2, 2]
    for split in splits:
        split.images.flags.writeable = split.labels.flags.writeable = False
    for split in splits:
        split.fingerprint()
    trainers = [make_trainer(), make_trainer()]
    fit(trainers[0], splits)
    read.clear()
    fit(trainers[1], splits)
    assert not read and digest(trainers[0]) == digest(trainers[1])
    assert np.array_equal(trainers[1].network.normalizer.mean, cyconv.Normalizer.fit(splits[0].images).mean)
