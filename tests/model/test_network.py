"""Network: parameters, predictions, evaluation, prepared data, files, and bad input."""

import numpy as np
import pytest
from cases import each

import cyconv
from cyconv import reference

TOLERANCE = {"float32": 5e-6, "float64": 1e-13}


# Parameters ------------------------------------------------------------------


def test_names_and_layouts_are_those_of_pytorch():
    network = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50, seed=0)
    assert {name: values.shape for name, values in network.parameters.items()} == {
        "conv.weight": (10, 3, 4, 4),
        "conv.bias": (10,),
        "hidden.weight": (50, 640),
        "hidden.bias": (50,),
        "output.weight": (10, 50),
        "output.bias": (10,),
    }
    assert {values.dtype for values in network.parameters.values()} == {np.dtype("float32")}
    assert network.n_parameters == 480 + 10 + 32000 + 50 + 500 + 10


def test_branches_and_hidden_layers_are_numbered():
    network = cyconv.Network(
        filter_size=(2, 4), n_filters=(3, 5), n_hidden=(20, 7), image_shape=(1, 8, 12), n_classes=4
    )
    assert {name: values.shape for name, values in network.parameters.items() if name.endswith("weight")} == {
        "conv.0.weight": (3, 1, 2, 2),
        "conv.1.weight": (5, 1, 4, 4),
        "hidden.0.weight": (20, 3 * 24 + 5 * 6),
        "hidden.1.weight": (7, 20),
        "output.weight": (4, 7),
    }


def test_he_initialisation_is_addressed_by_the_seed(dtype):
    first, again, other = (cyconv.Network(4, 40, 300, seed=seed, dtype=dtype).parameters for seed in (3, 3, 4))
    for name, values in first.items():
        assert np.array_equal(values, again[name])
        if name.endswith(".bias"):
            assert not values.any()
        else:
            assert not np.array_equal(values, other[name])
            fan_in = values[0].size
            error = 5 / np.sqrt(2 * values.size)  # five standard errors of a standard deviation
            assert values.std() == pytest.approx(np.sqrt(2 / fan_in), rel=error)
            assert abs(values.mean()) < 5 * np.sqrt(2 / fan_in / values.size)


def test_parameters_are_read_only_copies(make_network):
    network = make_network()
    before = network.parameters
    with pytest.raises(ValueError):
        before["conv.weight"][0] = 1
    kept = {name: values.copy() for name, values in before.items()}
    network.set_parameters({name: values + 1 for name, values in kept.items()})
    assert all(np.array_equal(before[name], kept[name]) for name in kept)
    assert all(np.array_equal(network.parameters[name], kept[name] + 1) for name in kept)


@pytest.mark.parametrize("settings", [{}, {"filter_size": (2, 16), "n_filters": (3, 5), "n_hidden": (7, 4)}])
def test_set_parameters_returns_what_was_set(make_network, rng, dtype, settings):
    network = make_network(dtype=dtype, **settings)
    wanted = {name: rng.standard_normal(v.shape).astype(dtype) for name, v in network.parameters.items()}
    network.set_parameters({name: np.asfortranarray(values) for name, values in wanted.items()})
    assert list(network.parameters) == list(wanted)
    assert all(np.array_equal(network.parameters[name], wanted[name]) for name in wanted)


def test_copy_is_independent(make_network, pixels):
    network = make_network()
    twin = network.copy()
    before = twin.parameters
    images, labels = pixels(10)
    source = network.prepare(images, labels, cyconv.Normalizer.fit(images))
    network.train_steps(source, np.arange(10), [0.1], batch_size=10)
    assert all(np.array_equal(twin.parameters[name], before[name]) for name in before)
    assert not np.array_equal(network.parameters["conv.weight"], before["conv.weight"])


# Predictions and evaluation ----------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 100, 257])
@pytest.mark.parametrize(
    "settings",
    [
        {"filter_size": 2},
        {"filter_size": 16, "n_filters": 13},
        {"filter_size": 32, "n_filters": 5},
        {"filter_size": 1, "n_filters": 2},
        {"filter_size": (4, 8), "n_filters": (3, 5), "n_hidden": (9, 6)},
        {"filter_size": 3, "image_shape": (2, 6, 9), "n_classes": 3},
    ],
)
def test_predictions_agree_with_the_reference(make_network, rng, assert_close, dtype, settings, n):
    network = make_network(dtype=dtype, **settings)
    X = rng.standard_normal((n, *network.image_shape)).astype(dtype)
    expected = reference.forward(network.parameters, X)["probabilities"]
    probabilities = network.predict_proba(X)
    assert_close(probabilities, expected, TOLERANCE[dtype])
    assert np.array_equal(network.predict(X), probabilities.argmax(axis=1))


@pytest.mark.parametrize("settings", [{}, {"filter_size": (16, 4), "n_filters": (3, 5), "n_hidden": (9, 6)}])
def test_evaluation_agrees_with_the_reference(make_network, rng, dtype, settings):
    network = make_network(dtype=dtype, **settings)
    X, labels = rng.standard_normal((211, 3, 32, 32)).astype(dtype), rng.integers(0, 10, 211)
    logits = reference.forward(network.parameters, X)["output"]
    loss = reference.softmax_cross_entropy_forward(logits, labels)[1].mean()
    cost, _ = reference.loss_and_gradients(network.parameters, X, labels, l2=0.01)
    for evaluation in (
        network.evaluate(X, labels, l2=0.01),
        network.evaluate(network.prepare(X, labels), l2=0.01),
    ):
        assert evaluation.loss == pytest.approx(loss, rel=TOLERANCE[dtype])
        assert evaluation.cost == pytest.approx(cost, rel=TOLERANCE[dtype])
        assert evaluation.accuracy == np.mean(logits.argmax(axis=1) == labels)
        assert {type(value) for value in evaluation} == {float}


@pytest.mark.parametrize(
    "settings",
    [
        {"filter_size": 16, "n_filters": 13},
        {"filter_size": (16, 4), "n_filters": (3, 5), "n_hidden": (9, 6)},
        {"filter_size": 3, "image_shape": (2, 6, 9), "n_classes": 3},
    ],
)
def test_training_leaves_nothing_in_the_padding_that_a_penalty_would_count(make_network, rng, dtype, settings):
    network = make_network(dtype=dtype, **settings)
    X = rng.standard_normal((40, *network.image_shape)).astype(dtype)
    source = network.prepare(X, rng.integers(0, network.n_classes, 40))
    network.train_steps(source, np.arange(40), np.full(4, 0.1), batch_size=10, l2=0.01, momentum=0.9)
    weights = [values for name, values in network.parameters.items() if name.endswith("weight")]
    expected = sum(reference.sum_of_squares(weight) for weight in weights)
    assert network.penalty() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("filter_size", [1, 2, 4, 8, 16, 32])
def test_pixels_and_normalised_images_agree_for_every_filter_size(
    make_network, pixels, assert_close, dtype, filter_size
):
    images, _ = pixels(23)
    network = make_network(dtype=dtype, filter_size=filter_size)
    network.normalizer = cyconv.Normalizer.fit(images)
    expected = network.predict_proba(network.normalizer(images).astype(dtype))
    assert_close(network.predict_proba(images), expected, 1e-5)


def test_pixels_and_normalised_images_agree(make_network, pixels, assert_close, dtype):
    """Pixels are normalised while a batch is gathered; the result is that of normalised floats."""
    images, labels = pixels(150)
    normalizer = cyconv.Normalizer.fit(images[:100])
    X = (images * normalizer.scale + normalizer.offset).astype(dtype)
    by_pixels = make_network(dtype=dtype, filter_size=(4, 16), n_filters=(3, 6))
    by_floats = by_pixels.copy()
    source, float_source = by_pixels.prepare(images, labels, normalizer), by_floats.prepare(X, labels)
    assert len(source) == len(float_source) == 150
    tolerance = 10 * TOLERANCE[dtype]
    assert by_pixels.evaluate(source) == pytest.approx(by_floats.evaluate(float_source), rel=tolerance)

    order, rates = np.arange(150)[::-1].copy(), [0.05] * 3
    costs = by_pixels.train_steps(source, order, rates, batch_size=50)
    assert_close(costs, by_floats.train_steps(float_source, order, rates, batch_size=50), tolerance)
    assert_close(by_pixels.parameters, by_floats.parameters, tolerance)

    by_pixels.normalizer = normalizer
    assert_close(by_pixels.predict_proba(images), by_floats.predict_proba(X), tolerance)


# Files -------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"filter_size": (2, 4), "n_filters": (3, 5), "n_hidden": (7, 4)}])
def test_saved_network_returns_the_same(make_network, pixels, tmp_path, dtype, settings):
    network = make_network(dtype=dtype, **settings)
    images, _ = pixels(20)
    network.normalizer = cyconv.Normalizer.fit(images)
    network.save(tmp_path / "network.npz")
    loaded = cyconv.Network.load(tmp_path / "network.npz")
    assert loaded.architecture == network.architecture
    assert list(loaded.parameters) == list(network.parameters)
    for name, values in network.parameters.items():
        assert loaded.parameters[name].dtype == values.dtype and np.array_equal(loaded.parameters[name], values)
    assert np.array_equal(loaded.predict_proba(images), network.predict_proba(images))


def test_a_file_that_does_not_hold_a_network_is_refused(tmp_path):
    path = tmp_path / "network.npz"
    with pytest.raises(FileNotFoundError, match="network.npz"):
        cyconv.Network.load(path)
    path.write_bytes(b"not an archive at all")
    with pytest.raises(ValueError, match="network.npz"):
        cyconv.Network.load(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(ValueError, match="network.npz"):
        cyconv.Network.load(path)


def test_truncated_file_is_refused(make_network, tmp_path):
    path = tmp_path / "network.npz"
    make_network().save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="network.npz"):
        cyconv.Network.load(path)


# Bad input -----------------------------------------------------------------------


def assert_sentence(caught, name):
    message = str(caught.value)
    assert message.startswith(name), message
    assert "\n" not in message and len(message) < 300


@pytest.mark.parametrize(
    "name, value",
    each(
        filter_size=[5, 0, -4, 64, 4.0, "4", True, ()],
        n_filters=[0, 2.5, (3, 3), None],
        n_hidden=[0, -1, (5, 0), ()],
        seed=[0.5, "zero"],
        dtype=["float16", "int32", "nonsense"],
        image_shape=[(32, 32), (3, 32, 0), 32],
        n_classes=[1, "ten"],
    ),
)
def test_bad_architecture(name, value):
    with pytest.raises((TypeError, ValueError)) as caught:
        cyconv.Network(**{"filter_size": 4, "n_filters": 3, "n_hidden": 8, name: value})
    assert_sentence(caught, name)


@pytest.mark.parametrize("filter_sizes", [(4, 5), (3, 4)])
def test_every_branch_must_divide_the_image(filter_sizes):
    with pytest.raises(ValueError, match="^filter_size"):
        cyconv.Network(filter_sizes, n_filters=(3, 3), n_hidden=8)


@pytest.mark.parametrize("name", ["n_filters", "n_hidden"])
@pytest.mark.parametrize("value", [10**9, 10**18, 10**30])
def test_network_larger_than_the_machine(name, value):
    with pytest.raises((ValueError, MemoryError)) as caught:
        cyconv.Network(**{"filter_size": 1, "n_filters": 3, "n_hidden": 10**6, name: value})
    assert str(caught.value) and "\n" not in str(caught.value)


def set_entry(name, value):
    return lambda parameters: parameters.__setitem__(name, value)


@pytest.mark.parametrize(
    "spoil, name",
    [
        (lambda parameters: parameters.pop("hidden.bias"), "hidden.bias"),
        (set_entry("hidden.1.weight", np.zeros(3, "f4")), "hidden.1.weight"),
        (set_entry("conv.bias", np.zeros(4, "f4")), "conv.bias"),
        (set_entry("conv.weight", np.zeros((3, 48), "f4")), "conv.weight"),
        (set_entry("conv.bias", np.zeros(3, "i4")), "conv.bias"),
        (set_entry("conv.bias", np.zeros(3, "c16")), "conv.bias"),
        (set_entry("output.bias", np.full(10, np.nan, "f4")), "output.bias"),
        (set_entry("output.bias", np.full(10, np.inf, "f4")), "output.bias"),
        (set_entry("output.bias", None), "output.bias"),
    ],
)
def test_bad_parameters_change_nothing(make_network, spoil, name):
    network = make_network()
    before = network.parameters
    parameters = {key: values + 1 for key, values in before.items()}
    spoil(parameters)
    with pytest.raises((TypeError, ValueError, KeyError), match=name.replace(".", r"\.")):
        network.set_parameters(parameters)
    assert all(np.array_equal(network.parameters[key], before[key]) for key in before)


def test_parameters_must_be_a_mapping(make_network):
    with pytest.raises(TypeError, match="^mapping"):
        make_network().set_parameters([np.zeros(3)])


GOOD_X = np.zeros((4, 3, 32, 32), dtype=np.float32)
GOOD_LABELS = np.array([0, 1, 2, 9])


@pytest.mark.parametrize(
    "X",
    [
        GOOD_X[0],
        GOOD_X[:, :2],
        GOOD_X[..., :31],
        np.full_like(GOOD_X, np.nan),
        np.full_like(GOOD_X, -np.inf),
        GOOD_X.astype(complex),
        GOOD_X.astype(np.int64) - 1,
        GOOD_X.astype(np.int64) + 256,
        GOOD_X.astype(bool),
        GOOD_X.astype(object),
        GOOD_X.astype("U1"),
        None,
        "images",
        [[1.0, 2.0], [3.0]],
    ],
)
def test_bad_images(make_network, X):
    network = make_network()
    for call in (
        lambda: network.predict_proba(X),
        lambda: network.predict(X),
        lambda: network.evaluate(X, GOOD_LABELS),
        lambda: network.loss_and_gradients(X, GOOD_LABELS),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert_sentence(caught, "X")


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2, 10],
        [0, 1, 2, -1],
        [0, 1, 2],
        [[0], [1], [2], [10]],
        [[[0], [1], [2], [3]]],
        [[0, 1, 2, 3]] * 4,
        np.array([0.0, 1.0, 2.0, 3.0]),
        np.array([[0.0], [1.0], [2.0], [3.0]]),
        ["a", "b", "c", "d"],
        np.full((4, 10), 0.2),
        np.array([[2.0, -1.0, *[0.0] * 8]] * 4),
        np.full((4, 10), np.nan),
        np.full((4, 9), 1 / 9),
        np.array([2**40, 0, 0, 0]),
        [[0, 1], [2], [3], [4]],
    ],
)
def test_bad_labels(make_network, labels):
    network = make_network()
    for call in (network.loss_and_gradients, network.evaluate, network.prepare):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(GOOD_X, labels)
        assert_sentence(caught, "labels")


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, "0.1", None, 1j, True])
@pytest.mark.parametrize("name", ["l2", "label_smoothing"])
def test_bad_regularisation(make_network, name, value):
    network = make_network()
    with pytest.raises((TypeError, ValueError)) as caught:
        network.loss_and_gradients(GOOD_X, GOOD_LABELS, **{name: value})
    assert_sentence(caught, name)
    if name == "l2":
        with pytest.raises((TypeError, ValueError)) as caught:
            network.evaluate(GOOD_X, GOOD_LABELS, l2=value)
        assert_sentence(caught, "l2")


def test_label_smoothing_is_below_one_and_needs_class_labels(make_network):
    network = make_network()
    with pytest.raises(ValueError, match="^label_smoothing"):
        network.loss_and_gradients(GOOD_X, GOOD_LABELS, label_smoothing=1.5)
    with pytest.raises(ValueError, match="^label_smoothing"):
        network.loss_and_gradients(GOOD_X, np.full((4, 10), 0.1), label_smoothing=0.1)


@pytest.mark.parametrize("method", ["predict_proba", "predict", "evaluate", "loss_and_gradients", "prepare"])
def test_empty_input_is_refused(make_network, method):
    arguments = [GOOD_X[:0]] if method.startswith("predict") else [GOOD_X[:0], GOOD_LABELS[:0]]
    with pytest.raises(ValueError, match=f"^{'images' if method == 'prepare' else 'X'} must hold at least one image"):
        getattr(make_network(), method)(*arguments)


def test_costs_are_written_to_out(make_network):
    found, twin = [], make_network()
    for out in (None, np.full(2, -np.inf)):
        network = twin.copy()
        source = network.prepare(GOOD_X, GOOD_LABELS)
        costs = network.train_steps(source, [0, 1, 2, 3], [0.1, 0.1], batch_size=2, out=out)
        assert out is None or costs is out
        found.append(costs)
    assert np.isfinite(found).all() and np.array_equal(*found)


@pytest.mark.parametrize(
    "name, value",
    each(
        source=[GOOD_X, None],
        order=[[0.0, 1.0, 2.0, 3.0], [0, 1, 2, 4], [0, 1, 2, -1], [0, 1, 2], [[0, 1], [2, 3]], None],
        learning_rates=[0.1, [[0.1, 0.1]], [0.1, np.nan], [0.1, np.inf], [0.1, -0.1], ["a", "b"]],
        batch_size=[0, -2, 5, 2.0, 10**30],
        l2=[-1.0, np.nan],
        label_smoothing=[1.5, "much"],
        momentum=[1.5, -0.1],
        dropout=[1.0, -0.5, np.nan],
        augmentation=["flip"],
        seed=[0.5],
        first_step=[-1, 1.5],
        out=[[0.0, 0.0], np.zeros(3), np.zeros(2, np.float32), np.zeros(4)[::2], np.broadcast_to(0.0, 2)],
    ),
)
def test_bad_training_arguments_change_nothing(make_network, name, value):
    network = make_network()
    before = network.parameters
    good = {
        "source": network.prepare(GOOD_X, GOOD_LABELS),
        "order": [0, 1, 2, 3],
        "learning_rates": [0.1, 0.1],
        "batch_size": 2,
    }
    with pytest.raises((TypeError, ValueError)) as caught:
        network.train_steps(**{**good, name: value})
    assert_sentence(caught, name)
    assert all(np.array_equal(network.parameters[key], before[key]) for key in before)


def test_prepared_data_serve_networks_of_any_filter_size(make_network, pixels):
    images, labels = pixels(30)
    one, other = make_network(filter_size=8), make_network(filter_size=4)
    normalizer = cyconv.Normalizer.fit(images)
    own, borrowed = other.prepare(images, labels, normalizer), one.prepare(images, labels, normalizer)
    assert other.evaluate(borrowed) == other.evaluate(own)


@pytest.mark.parametrize("settings", [{"image_shape": (3, 16, 16)}, {"dtype": "float64"}, {"n_classes": 5}])
def test_prepared_data_of_other_images_are_refused(make_network, settings):
    source = make_network().prepare(GOOD_X, GOOD_LABELS)
    network = make_network(**settings)
    for call in (
        lambda: network.train_steps(source, [0, 1, 2, 3], [0.1], batch_size=4),
        lambda: network.evaluate(source),
        lambda: network.loss_and_gradients(source, GOOD_LABELS),
    ):
        with pytest.raises(ValueError, match="source must be prepared for"):
            call()


def test_prepared_data_without_labels(make_network):
    network = make_network()
    source = network.prepare(GOOD_X, None)
    assert np.array_equal(network.predict(source), network.predict(GOOD_X))
    for call in (
        lambda: network.train_steps(source, [0, 1, 2, 3], [0.1], batch_size=4),
        lambda: network.evaluate(source),
        lambda: network.evaluate(GOOD_X, None),
        lambda: network.loss_and_gradients(GOOD_X, None),
    ):
        with pytest.raises(ValueError, match="^labels"):
            call()


def test_pixels_need_a_normalizer(make_network, pixels):
    network = make_network()
    images, labels = pixels(5)
    with pytest.raises((TypeError, ValueError), match="normalizer"):
        network.predict(images)
    with pytest.raises((TypeError, ValueError), match="normalizer"):
        network.prepare(images, labels)
    with pytest.raises((TypeError, ValueError), match="^normalizer"):
        network.prepare(images, labels, normalizer="mean")
    small = cyconv.Normalizer.fit(np.zeros((2, 3, 8, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match="normalizer"):
        network.prepare(images, labels, small)
