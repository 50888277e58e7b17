"""Weighted classes, probabilities as labels, and float images: from prepared data to trainers and ensembles."""

import numpy as np
import pytest
from tiny_run import EVERYTHING, digest, fit, make_network, make_trainer

import cyconv
from cyconv import Augmentation, reference

pytestmark = pytest.mark.usefixtures("on_one_thread")
FINGERPRINT = "a38215764029ad63c5e1ae63e59749f74fc7f8f81f628e03cb42c0c94412b620"  # as 0.1.0 takes it
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0, 1.0, 1.0, 0.1, 1.0])
TOLERANCE = {"float32": 2e-4, "float64": 1e-11}


def float_split(n=107, seed=0, dtype=np.float32, soft=True):
    rng = np.random.default_rng(seed)
    labels = rng.dirichlet(np.ones(10), n) if soft else rng.integers(0, 10, n)
    return cyconv.Split(rng.standard_normal((n, 3, 8, 8)).astype(dtype), labels)


@pytest.mark.parametrize("optimizer", [None, cyconv.AdamW()])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_updates_are_the_references(rng, assert_close, dtype, soft, weighted, optimizer):
    """Of float images, augmented and not normalised."""
    network = make_network(dtype=dtype, n_filters=5)
    split = float_split(dtype=dtype, soft=soft)
    order, rates = rng.integers(0, 107, 10 * 13), np.linspace(0.1, 1, 10) * (0.02 if optimizer is None else 0.001)
    settings = {
        "batch_size": 13,
        "l2": 0.01,
        "label_smoothing": 0.0 if soft else 0.1,
        "class_weight": WEIGHTS if weighted else None,
        "optimizer": optimizer,
        "augmentation": Augmentation(flip=True, shift=2, cutout=3),
        "dropout": 0.2,
        "seed": 3,
    }
    expected = {name: values.copy() for name, values in network.parameters.items()}
    expected_costs = reference.train_steps(expected, split.images, split.labels, order, rates, **settings)
    costs = network.train_steps(network.prepare(split.images, split.labels), order, rates, **settings)
    assert_close(costs, expected_costs, TOLERANCE[dtype])
    assert_close(network.parameters, expected, TOLERANCE[dtype])


def test_same_bits_for_any_number_of_threads(monkeypatch, rng, dtype):
    monkeypatch.setattr("cyconv.backend.threads._chosen", None)
    split, order = float_split(dtype=dtype), rng.integers(0, 107, 200)
    found = []
    for n_threads in (1, 2, 3, 4):
        cyconv.set_num_threads(n_threads)
        network = make_network(dtype=dtype)
        source = network.prepare(split.images, split.labels)
        costs = network.train_steps(source, order, [0.1, 0.1], class_weight=WEIGHTS)
        found.append((costs.tobytes(), [v.tobytes() for v in network.parameters.values()], network.evaluate(source)))
    assert found.count(found[0]) == 4


def test_equal_weights_change_nothing_but_last_digits(rng, assert_close):
    split, order = float_split(soft=False), rng.integers(0, 107, 60)
    plain, weighted = make_network(dtype="float64"), make_network(dtype="float64")
    for network, class_weight in ((plain, None), (weighted, [7] * 10)):
        source = network.prepare(split.images, split.labels)
        network.train_steps(source, order, [0.1] * 3, batch_size=20, class_weight=class_weight)
    assert_close(weighted.parameters, plain.parameters, 1e-13)


def test_probabilities_of_single_classes_are_classes(rng):
    split = float_split(soft=False)
    one_hot = np.eye(10)[split.labels]
    assert cyconv.Split(split.images, one_hot).fingerprint() == split.fingerprint()
    network = make_network()
    nearly = one_hot.copy()
    nearly[0] = 0.1
    classes, rows = (network.prepare(split.images, labels) for labels in (one_hot, nearly))
    assert classes.labels.dtype == np.int32 and classes.labels.shape == (107,)
    assert rows.labels.dtype == np.float32 and rows.labels.shape == (107, 10) and not rows.labels.flags.writeable
    cost, gradients = network.loss_and_gradients(rows, None)
    expected_cost, expected = network.loss_and_gradients(split.images, nearly)
    assert cost == expected_cost and all(np.array_equal(gradients[name], expected[name]) for name in expected)


def test_evaluation_by_probabilities(dtype):
    split, network = float_split(dtype=dtype), make_network(dtype=dtype)
    p = network.predict_proba(split).astype(np.float64)
    for found in (
        network.evaluate(split),
        network.evaluate(split.images, split.labels),
        cyconv.Ensemble([network]).evaluate(split),
    ):
        assert found.loss == pytest.approx(-(split.labels * np.log(p)).sum(axis=1).mean(), rel=1e-5)
        assert found.accuracy == np.mean(p.argmax(axis=1) == split.labels.argmax(axis=1))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", [{}, {"class_weight": WEIGHTS, "optimizer": cyconv.AdamW()}])
def test_a_trainer_takes_floats_and_resumes(tmp_path, soft, options):
    data = float_split(soft=soft), float_split(31, 1, soft=soft)
    options = {**EVERYTHING, "label_smoothing": 0.0, **options}
    if "optimizer" in options:
        del options["momentum"]
    uninterrupted, trainer = make_trainer(**options), make_trainer(**options)
    fit(uninterrupted, data)
    assert uninterrupted.network.normalizer is None
    path = tmp_path / "c.npz"
    fit(trainer, data, checkpoint=path, callbacks=[lambda event: event.step >= 14])
    assert 14 <= trainer.step < 36
    resumed = cyconv.CyclicTrainer.resume(path)
    assert resumed.settings == trainer.settings and resumed.class_weight == trainer.class_weight
    fit(resumed, data)
    assert digest(resumed) == digest(uninterrupted)
    with pytest.raises(ValueError, match="train must be the data that this run began with"):
        fit(cyconv.CyclicTrainer.resume(path), (float_split(soft=not soft), data[1]))


def test_weights_change_what_is_learnt_and_can_be_changed(tmp_path):
    data = float_split(soft=False), float_split(31, 1, soft=False)
    weighted, plain = make_trainer(class_weight=WEIGHTS), make_trainer()
    fit(weighted, data, checkpoint=tmp_path / "c.npz")
    fit(plain, data)
    assert digest(weighted) != digest(plain) and "class_weight" not in plain.settings
    schedule = cyconv.ConstantSchedule(0.01, 5)
    trainer = cyconv.CyclicTrainer.resume_with(
        tmp_path / "c.npz", schedule, class_weight=None, optimizer=cyconv.SGD(0.9, nesterov=True)
    )
    assert (
        trainer.settings["optimizer"]["nesterov"] and trainer.settings["earlier"][0]["class_weight"] == WEIGHTS.tolist()
    )
    fit(trainer, data)
    assert trainer.network.optimizer_state["n_updates"] == 5


def test_range_test_takes_them_all():
    found = cyconv.lr_range_test(
        make_network(), float_split(), n_steps=40, batch_size=20, optimizer=cyconv.AdamW(), class_weight=WEIGHTS
    )
    assert len(found.costs) > 4


def train(**options):
    split, network = float_split(), make_network()
    labels = options.pop("labels", split.labels)
    network.train_steps(network.prepare(split.images, labels), np.arange(40), [0.1, 0.1], batch_size=20, **options)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: train(class_weight=[1] * 9), r"class_weight must have shape \(10,\), but got .*\(9,\)"),
        (
            lambda: train(class_weight=[-1] + [1] * 9),
            "class_weight must not be negative and not 0 for all classes, but got -1",
        ),
        (lambda: train(class_weight=[0] * 10), "class_weight must not be negative .* but got only zeros"),
        (lambda: train(class_weight=[np.nan] + [1] * 9), "class_weight must hold finite numbers, but got nan"),
        (lambda: train(class_weight=["a"] * 10), "class_weight must be numbers, but got"),
        (
            lambda: train(class_weight=[0] + [1] * 9, labels=np.repeat([1, 0], [20, 87])),
            "class_weight must not be 0 for all classes of a batch, but it is for those of update 1",
        ),
        (lambda: train(label_smoothing=0.1), "label_smoothing must be 0 where labels are probabilities, but got 0.1"),
        (lambda: train(labels=np.full((107, 10), 0.2)), "labels must be probabilities that sum to 1 in each row"),
        (lambda: train(labels=np.full((107, 9), 1 / 9)), r"labels must have shape \(107, 10\)"),
        (lambda: cyconv.Split(np.zeros((2, 3, 8, 8)), [[2.0, -1.0]] * 2), "labels must be probabilities that sum to 1"),
        (lambda: cyconv.Split(np.full((2, 3, 8, 8), np.inf), [0, 1]), "images must hold finite numbers, but got inf"),
        (lambda: cyconv.Split(np.zeros((2, 3, 8, 8), np.float16), [0, 1]), "images must have dtype float32 or float64"),
        (lambda: cyconv.Normalizer.fit(float_split().images), "images must have dtype uint8, but got"),
        (lambda: make_trainer(class_weight=[1, 2]), r"class_weight must have shape \(10,\)"),
        (
            lambda: fit(make_trainer(), (cyconv.Split(np.zeros((30, 3, 8, 8)), np.full((30, 2), 0.5)),) * 2),
            "train must hold probabilities of 10 classes, but got those of 2",
        ),
        (
            lambda: fit(make_trainer(label_smoothing=0.1), (float_split(), float_split())),
            "label_smoothing must be 0 where labels are probabilities, but got 0.1",
        ),
    ],
)
def test_each_mistake_is_one_sentence(call, sentence):
    with pytest.raises((TypeError, ValueError), match="^" + sentence):
        call()


def test_fingerprints_tell_dtypes_apart_and_pixels_keep_theirs():
    pixels = np.arange(192, dtype=np.uint8).reshape(1, 3, 8, 8)
    assert cyconv.Split(pixels, [3]).fingerprint() == FINGERPRINT
    splits = [cyconv.Split(pixels.astype(dtype), [3]) for dtype in ("float32", "float64")]
    splits += [cyconv.Split(pixels, np.array([[0.25, 0.75]], dtype)) for dtype in ("float32", "float64")]
    assert len({split.fingerprint() for split in splits} | {FINGERPRINT}) == 5
