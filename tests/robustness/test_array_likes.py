"""Images and labels in the forms users have them: lists, tensors, splits, channels last, one-hot, not normalised."""

import linecache
import warnings

import numpy as np
import pytest

import cyconv

SHAPE = (3, 8, 8)
N = 6


class Tensor:
    """Like a tensor of PyTorch: it has ``__array__`` and a dtype that is not NumPy's."""

    def __init__(self, array):
        self.array, self.dtype, self.shape = array, f"torch.{array.dtype}", array.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array)

    def __int__(self):
        return int(self.array)


class Interface:
    """An array of another library that has only ``__array_interface__``."""

    def __init__(self, array):
        self.array = array

    @property
    def __array_interface__(self):
        return self.array.__array_interface__


class Exported:
    """An array that only DLPack can convert."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return Exported(self.array[index])


def failing(reason):
    class Refusing(Tensor):
        def __array__(self, dtype=None, copy=None):
            raise reason

    return Refusing


class OnTheGpu(Exported):
    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **options):
        raise BufferError("a tensor on a GPU is handed over to a GPU only")


LIKES = {
    "list": list,
    "nested list": np.ndarray.tolist,
    "tensor": Tensor,
    "interface": Interface,
    "DLPack": Exported,
    "list of tensors": lambda array: [Tensor(each) for each in array],
}


@pytest.fixture
def images(pixels):
    return pixels(N, SHAPE, n_classes=4)[0]


@pytest.fixture
def labels():
    return np.array([0, 3, 1, 2, 2, 1])


@pytest.fixture
def network(make_network, images):
    made = make_network(image_shape=SHAPE, n_classes=4)
    made.normalizer = cyconv.Normalizer.fit(images)
    return made


@pytest.fixture
def ensemble(make_network, network, images):
    made = [network, *(make_network(image_shape=SHAPE, n_classes=4, seed=seed) for seed in (1, 2))]
    made[1].normalizer = made[2].normalizer = cyconv.Normalizer.fit(images[:3])
    return cyconv.Ensemble(made)


FLOAT_ENTRIES = [
    *("Network.prepare", "Network.predict_proba", "Network.predict", "Network.evaluate", "Network.loss_and_gradients"),
    *("Ensemble.predict_proba", "Ensemble.predict", "Ensemble.evaluate", "Network.forward"),
]
ENTRIES = ["Split", "Normalizer.fit", "Normalizer", *FLOAT_ENTRIES[:-1]]
each_entry = pytest.mark.parametrize("entry", ENTRIES)
each_float_entry = pytest.mark.parametrize("entry", FLOAT_ENTRIES)


@pytest.fixture
def call(entry, network, ensemble, labels):
    """A call that takes images: pixels in ENTRIES, normalised ones in FLOAT_ENTRIES."""
    return {
        "Split": lambda X: cyconv.Split(X, labels).images,
        "Normalizer.fit": lambda images: cyconv.Normalizer.fit(images).mean,
        "Normalizer": network.normalizer,
        "Network.prepare": lambda images: network.predict_proba(network.prepare(images, labels)),
        "Network.predict_proba": network.predict_proba,
        "Network.predict": network.predict,
        "Network.evaluate": lambda X: network.evaluate(X, labels),
        "Network.loss_and_gradients": lambda X: network.loss_and_gradients(X, labels)[0],
        "Ensemble.predict_proba": ensemble.predict_proba,
        "Ensemble.predict": ensemble.predict,
        "Ensemble.evaluate": lambda X: ensemble.evaluate(X, labels),
        "Network.forward": network.forward,
    }[entry]


# Other arrays ------------------------------------------------------------------


@each_entry
@pytest.mark.parametrize("like", LIKES)
def test_pixels_may_be_any_array_like(call, images, like):
    np.testing.assert_array_equal(call(LIKES[like](images)), call(images))


@pytest.mark.parametrize("like", LIKES)
def test_floats_and_labels_may_be_any_array_like(network, ensemble, images, labels, like):
    X = network.normalizer(images)
    like = LIKES[like]
    np.testing.assert_array_equal(network.predict_proba(like(X)), network.predict_proba(X))
    np.testing.assert_array_equal(network.forward(like(X))["logits"], network.forward(X)["logits"])
    np.testing.assert_array_equal(ensemble.predict_proba(like(X)), ensemble.predict_proba(X))
    assert network.evaluate(X, like(labels)) == network.evaluate(X, labels)
    assert network.loss_and_gradients(X, like(labels))[0] == network.loss_and_gradients(X, labels)[0]
    assert cyconv.Split(images, like(labels)).labels.tolist() == labels.tolist()


@each_entry
@pytest.mark.parametrize("dtype", ["i2", "u4", "i8", ">i4", "u8"])
def test_pixels_may_be_of_other_integer_types(call, images, dtype):
    np.testing.assert_array_equal(call(images.astype(dtype)), call(images))
    wrong = images.astype(dtype)
    wrong[2, 1, 0, 3] = 256
    with pytest.raises(ValueError, match=r"^(X|images) must hold pixels in 0\.\.255 .* but got 256"):
        call(wrong)


def test_negative_pixels_are_refused(images):
    signed = images.astype("i2")
    signed[0, 0, 0, 0] = -1
    with pytest.raises(ValueError, match="but got -1"):
        cyconv.Split(signed, range(N))


NO_GRADIENT = "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
NOT_ON_CPU = (
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
)
each_refusal = pytest.mark.parametrize(
    "like, reason",
    [
        (failing(RuntimeError(NO_GRADIENT)), "Use tensor.detach"),
        (failing(TypeError(NOT_ON_CPU)), r"Use Tensor.cpu\(\) to copy the tensor to host memory first"),
        (OnTheGpu, "Unsupported device|on a GPU"),
    ],
    ids=["requires grad", "on a GPU, by __array__", "on a GPU, by DLPack"],
)


@each_refusal
@pytest.mark.parametrize("entry", [*ENTRIES, "Network.forward"])
def test_the_reason_why_images_cannot_be_converted_is_shown(call, images, like, reason):
    with pytest.raises(TypeError, match=f"^(X|images) must be an array, but got .*: .*({reason})"):
        call(like(images))


@each_refusal
def test_the_reason_why_labels_cannot_be_converted_is_shown(network, images, labels, like, reason):
    with pytest.raises(TypeError, match=f"^labels must be an array, but got .*: .*({reason})"):
        network.evaluate(images, like(labels))


@each_entry
def test_images_that_are_not_arrays_are_refused(call):
    with pytest.raises(TypeError, match=r"^(X|images) must be an array of numbers, but got <.*> \(zip\)"):
        call(zip())


def test_labels_that_are_not_arrays_are_refused(network, images):
    with pytest.raises(TypeError, match=r"^labels must be an array of numbers, but got <.*> \(zip\)"):
        network.evaluate(images, zip())


# Splits ------------------------------------------------------------------------


def test_a_split_is_evaluated_with_its_own_labels(network, ensemble, images, labels):
    split = cyconv.Split(images, labels)
    for model in (network, ensemble):
        assert model.evaluate(split) == model.evaluate(images, labels)
        np.testing.assert_array_equal(model.predict(split), model.predict(images))
        np.testing.assert_array_equal(model.predict_proba(split), model.predict_proba(images))
        with pytest.raises(ValueError, match="^labels must be left out with a Split"):
            model.evaluate(split, labels)
    assert network.evaluate(split, l2=0.1).cost == network.evaluate(images, labels, l2=0.1).cost
    assert network.loss_and_gradients(split, None)[0] == network.loss_and_gradients(images, labels)[0]
    np.testing.assert_array_equal(
        network.loss_and_gradients(split, np.eye(4)[labels])[0], network.loss_and_gradients(images, labels)[0]
    )
    with pytest.raises(ValueError, match="^X must have shape"):
        network.evaluate(cyconv.Split(images[:, :1], labels))
    with pytest.raises(ValueError, match="^labels must lie in 0..3, but got 7"):
        network.evaluate(cyconv.Split(images, labels + 4))


# Channels last -----------------------------------------------------------------


@each_entry
def test_channels_last_are_recognised_everywhere(call, images):
    with pytest.raises(ValueError, match=r"^(\w+) must have shape .* come last: \1\.transpose\(0, 3, 1, 2\)"):
        call(images.transpose(0, 2, 3, 1))
    call(images.transpose(0, 2, 3, 1).transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "shape", [(32, 32, 3), (28, 28, 1), (8, 8, 4), (5, 5, 3), (48, 64, 3), (64, 48, 4), (224, 224, 3)]
)
def test_shapes_with_channels_last(shape):
    for call in (cyconv.Normalizer.fit, lambda images: cyconv.Split(images, [0, 0])):
        with pytest.raises(ValueError, match="channels come last"):
            call(np.zeros((2, *shape), np.uint8))


@pytest.mark.parametrize(
    "shape",
    [
        *((3, 32, 32), (1, 28, 28), (4, 8, 8), (3, 3, 3), (3, 4, 4), (1, 1, 1), (3, 4, 3), (4, 4, 3), (1, 3, 1)),
        *((3, 100, 4), (16, 4, 4), (32, 3, 3), (64, 1, 1), (16, 16, 16), (22, 1000, 1), (12, 24, 1), (9, 128, 1)),
        *((6, 50, 3), (1, 1000, 1), (3, 5, 2), (13, 13, 5), (2, 8, 8)),
    ],
)
def test_shapes_whose_channels_may_come_first(shape):
    images = np.zeros((2, *shape), np.uint8)
    assert cyconv.Split(images, [0, 0]).images.shape == images.shape
    assert cyconv.Normalizer.fit(images)(images).shape == images.shape


def test_the_networks_own_shape_decides_where_it_is_known(make_network):
    network = make_network(filter_size=1, image_shape=(8, 8, 3))
    assert network.predict(np.zeros((2, 8, 8, 3), np.float32)).shape == (2,)
    with pytest.raises(ValueError, match="^X must have shape .* channels come last"):
        network.predict(np.zeros((2, 8, 3, 8), np.float32))
    assert make_network(filter_size=3, image_shape=(3, 3, 3)).predict(np.zeros((2, 3, 3, 3), np.float32)).shape == (2,)


# Labels ------------------------------------------------------------------------

ONE_HOT = np.eye(4)[[0, 3, 1, 2, 2, 1]]


@pytest.mark.parametrize(
    "given",
    [
        lambda labels: labels[:, None],
        lambda labels: labels[None],
        lambda labels: Tensor(labels[:, None].astype("u1")),
        lambda labels: ONE_HOT,
        lambda labels: ONE_HOT.astype(bool),
        lambda labels: ONE_HOT.astype("f4"),
        lambda labels: ONE_HOT.astype(int).tolist(),
        lambda labels: np.asfortranarray(ONE_HOT),
        lambda labels: Tensor(ONE_HOT),
    ],
    ids=["column", "row", "tensor", "one-hot", "bool", "float32", "list", "fortran", "one-hot tensor"],
)
def test_labels_in_other_forms(network, ensemble, images, labels, given):
    expected, given = labels, given(labels)
    assert cyconv.Split(images, given).labels.tolist() == expected.tolist()
    assert network.prepare(images, given).labels.tolist() == expected.tolist()
    assert network.evaluate(images, given) == network.evaluate(images, labels)
    assert ensemble.evaluate(images, given) == ensemble.evaluate(images, labels)
    cost, gradients = network.loss_and_gradients(images, given)
    expected_cost, expected_gradients = network.loss_and_gradients(images, labels)
    assert cost == pytest.approx(expected_cost, rel=1e-6)
    np.testing.assert_allclose(gradients["hidden.weight"], expected_gradients["hidden.weight"], atol=1e-6)


def test_labels_are_smoothed_unless_they_are_probabilities(network, images, labels):
    expected = network.loss_and_gradients(images, labels, label_smoothing=0.1)[0]
    for given in (labels[:, None], ONE_HOT.astype(int), ONE_HOT.astype(bool)):
        assert network.loss_and_gradients(images, given, label_smoothing=0.1)[0] == expected
    with pytest.raises(ValueError, match="^label_smoothing must be 0 where labels are probabilities"):
        network.loss_and_gradients(images, ONE_HOT, label_smoothing=0.1)


def test_labels_of_a_single_image_and_of_two_classes(make_network):
    image = np.zeros((1, *SHAPE), np.uint8)
    assert cyconv.Split(image, [[3]]).labels.tolist() == [3]
    assert cyconv.Split(image, [[1]]).labels.tolist() == [1]
    assert cyconv.Split(image, [[0, 0, 1]]).labels.tolist() == [2]
    assert cyconv.Split(np.zeros((3, *SHAPE), np.uint8), [[1], [1], [1]]).labels.tolist() == [1, 1, 1]
    two = np.zeros((2, *SHAPE), np.float32)
    network = make_network(image_shape=SHAPE, n_classes=2)
    assert network.prepare(two, [[1, 0], [0, 1]]).labels.tolist() == [0, 1]
    assert network.prepare(two, [[1, 0]]).labels.tolist() == [1, 0]
    assert network.prepare(two, [[1], [1]]).labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        ONE_HOT.T,
        ONE_HOT[:, :3],
        ONE_HOT * 0,
        ONE_HOT + 0.0 * 1j,
        ONE_HOT * 0.9,
        ONE_HOT + np.eye(4)[0],
        2 * ONE_HOT,
        np.ones((3, 2), int),
        np.zeros((N, 1)),
        np.zeros((N, 1), bool),
        np.zeros((N, 1, 1), int),
        np.zeros((N, 2), int),
    ],
)
def test_invalid_labels(network, images, wrong):
    for call in (cyconv.Split, network.prepare, network.evaluate):
        if call == cyconv.Split and wrong.shape == (N, 3):
            continue  # it does not know the number of classes
        with pytest.raises((TypeError, ValueError), match="^labels must "):
            call(images, wrong)


# Floats that were never normalised ---------------------------------------------


def warnings_of(call, X):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(X)
    return caught


@each_float_entry
@pytest.mark.parametrize(
    "raw",
    [
        lambda raw, rng: raw,
        lambda raw, rng: raw / 255,
        lambda raw, rng: raw.astype(float)[:1].repeat(N, 0),
        lambda raw, rng: raw / 256 + 0.001,
        lambda raw, rng: rng.random(raw.shape),
        lambda raw, rng: (raw > 127).astype(float),
    ],
    ids=["as they are", "to 1", "float64", "above 0", "random", "black and white"],
)
def test_pixels_as_floats_give_one_warning(call, images, rng, raw):
    caught = warnings_of(call, raw(images.astype(np.float32), rng))
    assert [warning.category for warning in caught] == [UserWarning]
    assert str(caught[0].message).startswith(("X must be normalised", "images must be normalised"))
    assert caught[0].filename == __file__


def test_the_warning_names_the_callers_line(network, ensemble, images, labels):
    for model in (network, ensemble):
        with pytest.warns(UserWarning) as caught:
            model.evaluate(images / 255, labels)  # this line
            model.predict(images / 255)  # this line
        lines = [linecache.getline(warning.filename, warning.lineno) for warning in caught]
        assert len(lines) == 2 and all("# this line" in line for line in lines)


def test_without_a_normaliser_only_large_values_give_a_warning(make_network, images, labels):
    network = make_network(image_shape=SHAPE, n_classes=4)
    for X, n_warnings in ((images.astype(float), 1), (images / 255.0, 0), (images / 100.0, 0)):
        for call in (network.predict, lambda X: network.prepare(X, labels), lambda X: network.evaluate(X, labels)):
            assert len(warnings_of(call, X)) == n_warnings


@each_float_entry
def test_normalised_images_give_no_warning(call, network, images):
    normalizer = network.normalizer
    bright = (normalizer.mean + 0.4 * normalizer.std).round().clip(0, 255).astype(np.uint8)[None].repeat(N, 0)
    above_the_mean = (np.floor(normalizer.mean) + 1).astype(np.uint8)[None].repeat(N, 0)
    dark, white = np.zeros_like(images), np.full_like(images, 255)
    assert normalizer(bright).min() > 0 and normalizer(above_the_mean).min() > 0 and normalizer(bright).max() < 1
    for X in (
        *(normalizer(pixels) for pixels in (images, bright, above_the_mean, dark, white)),
        normalizer(images).astype(float),
        *(np.full(images.shape, value) for value in (0.0, 1.0, 1e6)),
    ):
        assert not warnings_of(call, X)


def test_prepared_images_are_not_checked_again(network, images, labels):
    with pytest.warns(UserWarning, match="^images must be normalised"):
        source = network.prepare(images / 255, labels)

    def train(source):
        return network.train_steps(source, np.arange(N), [0.1], batch_size=N)

    for call in (network.evaluate, network.predict, train):
        assert not warnings_of(call, source)


# Probabilities as targets ------------------------------------------------------


@pytest.mark.parametrize("excess", [1.0009, 0.9992])
def test_cost_and_gradient_agree_where_probabilities_sum_nearly_to_one(make_network, rng, excess):
    """By central differences: a gradient that assumes a sum of 1 would be wrong by the excess."""
    network = make_network(filter_size=4, image_shape=SHAPE, n_classes=4, dtype="float64")
    X, targets = rng.standard_normal((N, *SHAPE)), rng.dirichlet(np.ones(4), N)
    _, gradients = network.loss_and_gradients(X, excess * targets)
    parameters = {name: array.copy() for name, array in network.parameters.items()}
    costs = []
    for step in (1e-5, -1e-5):
        changed = {**parameters, "output.bias": parameters["output.bias"] + step * np.array([1, 0, 0, 0])}
        network.set_parameters(changed)
        costs.append(network.loss_and_gradients(X, excess * targets)[0])
    numeric = (costs[0] - costs[1]) / 2e-5
    assert gradients["output.bias"][0] == pytest.approx(numeric, abs=1e-8)
    network.set_parameters(parameters)
    cost = network.loss_and_gradients(X, targets)[0]
    assert network.loss_and_gradients(X, excess * targets)[0] == pytest.approx(cost)
