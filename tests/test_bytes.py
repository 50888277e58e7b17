"""The convolution of stored bytes: its twin's very bits on every build, its error, and its use in evaluation."""

import numpy as np
import pytest
from builds import INSTRUCTION_SETS, run_program

import cyconv
from cyconv import ops, reference

SHAPES = [(2, 1), (2, 3), (4, 7), (4, 10), (8, 5), (8, 40), (16, 16), (16, 17), (16, 40), (32, 16), (32, 33)]
COUNTS = [1, 3, 4, 7, 8, 13, 45, 81]


def draw(rng, f, n_filters, n=5, channels=3):
    """Arguments of convolve_bytes."""
    single = np.float32
    return {
        "images": rng.integers(0, 256, (n, channels, 32, 32), dtype=np.uint8),
        "weight": rng.standard_normal((n_filters, channels, f, f)).astype(single),
        "bias": rng.standard_normal(n_filters).astype(single),
        "scale": (0.02 * rng.standard_normal((channels, 32, 32))).astype(single),
        "offset": rng.standard_normal((channels, 32, 32)).astype(single),
    }


def exactly(images, weight, bias, scale, offset):
    """The convolution in double precision, after the ReLU."""
    values = images * scale.astype(float) + offset
    return np.maximum(0, reference.convolve_matmul(values, weight.astype(float), bias).reshape(len(images), len(weight), -1))


def differing():
    """The shapes and numbers of images whose bits are not the twin's."""
    rng, wrong = np.random.default_rng(0), []
    for f, n_filters in SHAPES:
        for n in COUNTS:
            arguments = draw(rng, f, n_filters, n, int(rng.integers(1, 5)))
            actual, expected = (module.convolve_bytes(**arguments) for module in (ops, reference))
            if actual.dtype != expected.dtype or not np.array_equal(actual, expected):
                wrong.append((f, n_filters, n))
    return wrong


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_bits_are_the_twins(instruction_set):
    assert run_program("test_bytes.py", CYCONV_ISA=instruction_set) == []


@pytest.mark.parametrize("f, n_filters", SHAPES)
def test_error_is_that_of_single_precision(f, n_filters):
    arguments = draw(np.random.default_rng(f), f, n_filters)
    expected = exactly(**arguments)
    assert np.abs(ops.convolve_bytes(**arguments) - expected).max() < 1e-6 * expected.max()


@pytest.mark.parametrize("f, n_filters", [(4, 3), (16, 18)])
@pytest.mark.parametrize("size", [1e-44, 1e-36, 1e-20, 1e20])
def test_weights_of_any_size(f, n_filters, size):
    arguments = draw(np.random.default_rng(1), f, n_filters)
    arguments["weight"] = (size * arguments["weight"].astype(float)).astype(np.float32)
    arguments["bias"][:] = 0
    expected = exactly(**arguments)
    assert np.abs(ops.convolve_bytes(**arguments) - expected).max() <= max(1e-6 * expected.max(), 1e-33)


@pytest.mark.parametrize("f, n_filters", [(4, 3), (16, 18)])
def test_largest_sums_do_not_overflow(f, n_filters):
    """Every pixel 255, every digit as large as it can be, in either direction, and as many channels as are taken."""
    arguments = draw(np.random.default_rng(2), f, n_filters, n=8, channels=64)
    arguments["images"][:] = 255
    arguments["scale"][:] = 1
    for weight in (1.0, -1.0):
        arguments["weight"][:] = weight
        assert np.array_equal(ops.convolve_bytes(**arguments), reference.convolve_bytes(**arguments))
        expected = exactly(**arguments)
        assert np.abs(ops.convolve_bytes(**arguments) - expected).max() <= 1e-6 * 255 * 64 * f * f


@pytest.mark.parametrize("f, n_filters", [(2, 2), (16, 18)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_filter_that_is_not_finite_gives_nan_and_the_others_do_not(f, n_filters, bad):
    arguments = draw(np.random.default_rng(3), f, n_filters)
    expected = ops.convolve_bytes(**arguments)
    arguments["weight"][1, 0, 1, 0] = bad
    actual = ops.convolve_bytes(**arguments)
    assert np.isnan(actual[:, 1]).all()
    assert np.array_equal(np.delete(actual, 1, axis=1), np.delete(expected, 1, axis=1))


def test_filter_of_zeros_gives_its_bias():
    arguments = draw(np.random.default_rng(4), 8, 2)
    arguments["weight"][:] = 0
    arguments["bias"][:] = 0.75, -0.5
    actual = ops.convolve_bytes(**arguments)
    assert (actual[:, 0] == 0.75).all() and (actual[:, 1] == 0).all()


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("images", lambda a: a.astype(np.int16), "images must have dtype uint8"),
        ("images", lambda a: a[:0], "images must hold at least one image"),
        ("images", lambda a: a[:, :, :16, :16].copy(), "weight must hold square filters"),
        ("weight", lambda a: a[:, :, :, :2], "weight must hold square filters"),
        ("weight", lambda a: np.zeros((15, 3, 16, 16), np.float32), "at least 16 of width 16 or 32"),
        ("weight", lambda a: a.astype(float), "weight must have dtype float32"),
        ("weight", lambda a: a[:0], "weight must hold at least one filter"),
        ("bias", lambda a: a[:2], "bias must have shape"),
        ("scale", lambda a: a + np.inf, "scale must hold finite numbers"),
        ("offset", lambda a: a[0], "offset must have shape"),
    ],
)
def test_mistakes_are_named(name, change, message):
    arguments = draw(np.random.default_rng(5), 4, 3)
    arguments[name] = change(arguments[name])
    with pytest.raises((TypeError, ValueError), match=message):
        ops.convolve_bytes(**arguments)


@pytest.fixture(params=[False, True], ids=["as this build does", "bytes on any build"])
def from_bytes(request, monkeypatch):
    """Networks evaluate from bytes, in plain C where the processor does not multiply them."""
    if request.param:
        monkeypatch.setattr(ops, "evaluates_bytes", True)


ARCHITECTURES = [
    {"filter_size": 2, "n_filters": 3, "n_hidden": 7},
    {"filter_size": 4, "n_filters": 10, "n_hidden": 50},
    {"filter_size": 8, "n_filters": 5, "n_hidden": (9, 8)},
    {"filter_size": 16, "n_filters": 17, "n_hidden": 5},
    {"filter_size": (32, 4, 16, 1), "n_filters": (16, 2, 3, 2), "n_hidden": 6},
]


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (101, 3, 32, 32), dtype=np.uint8)


def make_network(settings, pixels, **more):
    network = cyconv.Network(**settings, **more)
    network.normalizer = cyconv.Normalizer.fit(pixels)
    return network


@pytest.mark.parametrize("settings", ARCHITECTURES)
def test_evaluation_is_the_references(settings, pixels, from_bytes, assert_close):
    network = make_network(settings, pixels)
    parameters = {name: values.astype(float) for name, values in network.parameters.items()}
    normalizer = network.normalizer
    expected = reference.forward(parameters, pixels * normalizer.scale + normalizer.offset)["probabilities"]
    assert_close(network.predict_proba(pixels), expected.astype(np.float32), 2e-6)


@pytest.mark.parametrize("settings", ARCHITECTURES)
def test_an_images_bits_depend_on_no_other_image(settings, pixels, from_bytes):
    network = make_network(settings, pixels)
    expected = network.predict_proba(pixels)
    for n in (1, 2, 5, 8, 10, 33, 80):
        assert np.array_equal(network.predict_proba(pixels[:n]), expected[:n])
        assert np.array_equal(network.predict_proba(pixels[n:n + 1]), expected[n:n + 1])


def test_double_precision_and_float_images_take_no_bytes(pixels, monkeypatch):
    def predictions():
        network = make_network(ARCHITECTURES[1], pixels, dtype="float64")
        single = make_network(ARCHITECTURES[1], pixels)
        return network.predict_proba(pixels), single.predict_proba(single.normalizer(pixels))

    monkeypatch.setattr(ops, "evaluates_bytes", False)
    expected = predictions()
    monkeypatch.setattr(ops, "evaluates_bytes", True)
    for actual, bits in zip(predictions(), expected):
        assert np.array_equal(actual, bits)


def test_what_evaluation_prepared_is_made_anew_after_every_change(pixels, from_bytes):
    """The filters' digits and the normaliser's tables are kept from call to call."""
    settings, labels = ARCHITECTURES[3], np.arange(101) % 10
    network = make_network(settings, pixels)

    def fresh():
        twin = make_network(settings, pixels)
        twin.normalizer = network.normalizer
        twin.set_parameters(network.parameters)
        return twin.predict_proba(pixels)

    def changes():
        yield lambda: None
        yield lambda: network.set_parameters(cyconv.Network(**settings, seed=1).parameters)
        yield lambda: network.train_steps(network.prepare(pixels, labels), np.arange(50), [0.1], batch_size=50)
        yield lambda: setattr(network, "normalizer", cyconv.Normalizer.fit(pixels[:20]))
        yield lambda: network.predict_proba(network.normalizer(pixels))
        yield lambda: cyconv.set_num_threads(cyconv.get_num_threads() + 1)

    n_threads = cyconv.get_num_threads()
    try:
        for change in changes():
            change()
            for _ in range(2):
                assert np.array_equal(network.predict_proba(pixels), fresh())
            assert network.copy().predict_proba(pixels).tobytes() == fresh().tobytes()
    finally:
        cyconv.set_num_threads(n_threads)


if __name__ == "__main__":
    import json

    print(json.dumps(differing()))
