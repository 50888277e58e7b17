"""The compiled kernels against the NumPy reference: odd shapes, both dtypes, any memory layout."""

import ast
import importlib
import inspect
import platform
import re
from pathlib import Path

import numpy as np
import pytest
from builds import INSTRUCTION_SETS
from kernel_arguments import NAMES, draw_arguments

from cyconv import Augmentation, _kernels, reference
from cyconv._kernels import processor
from cyconv.backend import ops

TOLERANCE = {"float32": 5e-6, "float64": 1e-14}
EXACT = {"im2col", "col2im", "shuffled_order", "whiten"}


def copied(arguments):
    return tuple(a.copy() if isinstance(a, np.ndarray) else a for a in arguments)


def results(module, name, arguments):
    """The function's results as a tuple; for the update in place, the weight."""
    returned = getattr(module, name)(*arguments)
    if name == "sgd_update":
        assert returned is None
        return (arguments[0],)
    return returned if isinstance(returned, tuple) else (returned,)


def assert_same(name, actual, expected, dtype, assert_close):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected):
        if name in EXACT:
            assert a.dtype == e.dtype and np.array_equal(a, e)
        elif name == "sum_of_squares":
            assert type(a) is float and a == pytest.approx(e, rel=TOLERANCE[dtype])
        else:
            assert_close(a, e, TOLERANCE[dtype])


@pytest.mark.parametrize("name", NAMES)
def test_kernels_and_reference_have_the_same_signatures(name):
    assert inspect.signature(getattr(ops, name)) == inspect.signature(getattr(reference, name))


def compiled(module):
    """A compiled module's functions with the names of their parameters, and the names of its constants."""
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    functions = {name: list(inspect.signature(value).parameters) for name, value in values.items() if callable(value)}
    return functions, values.keys() - functions.keys()


def promised(stub):
    """The same for a stub, as type checkers read it."""
    nodes = ast.parse((Path(_kernels.__file__).parent / stub).read_text()).body
    functions = {
        node.name: [argument.arg for argument in node.args.args] for node in nodes if isinstance(node, ast.FunctionDef)
    }
    return functions, {node.target.id for node in nodes if isinstance(node, ast.AnnAssign)}


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_the_stub_lists_the_functions_of_every_build(instruction_set):
    module = importlib.import_module(f"cyconv._kernels.{instruction_set}")
    assert compiled(module)[0] == promised("baseline.pyi")[0]


def test_the_stub_of_the_processor_names_its_functions_and_constants():
    assert compiled(_kernels.processor) == promised("processor.pyi")


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("name", NAMES)
def test_kernels_agree_with_the_reference(name, seed, dtype, assert_close):
    arguments = draw_arguments(name, np.random.default_rng([seed, NAMES.index(name)]), dtype)
    untouched = copied(arguments)
    expected = results(reference, name, copied(arguments))
    actual = results(ops, name, arguments)
    assert_same(name, actual, expected, dtype, assert_close)
    for argument, before in zip(arguments[name == "sgd_update" :], untouched[name == "sgd_update" :]):
        assert np.array_equal(argument, before), "an argument was changed"


def reversed_strides(array):
    return np.flip(np.flip(array).copy())


def every_other(array):
    wide = np.repeat(array, 2, axis=-1)
    wide[..., 1::2] = 77
    return wide[..., ::2]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def other_byte_order(array):
    return array.astype(array.dtype.newbyteorder())


@pytest.mark.parametrize("layout", [np.asfortranarray, reversed_strides, every_other, read_only, other_byte_order])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "shuffled_order"])
def test_any_memory_layout(name, layout, dtype, assert_close):
    arguments = draw_arguments(name, np.random.default_rng([99, NAMES.index(name)]), dtype)
    expected = results(reference, name, copied(arguments))
    laid_out = [layout(a) if isinstance(a, np.ndarray) else a for a in arguments]
    if name == "sgd_update":
        laid_out[0] = arguments[0]  # updates in place have their own test
    assert_same(name, results(ops, name, tuple(laid_out)), expected, dtype, assert_close)


@pytest.mark.parametrize("f, n_filters", [(2, 3), (4, 10), (8, 40), (16, 160), (4, 40), (1, 3), (32, 7)])
@pytest.mark.parametrize("n", [1, 7, 100, 101])
def test_shapes_of_the_assignment(rng, dtype, assert_close, f, n_filters, n):
    D, P = 3 * f * f, (32 // f) ** 2
    patches, weight = (
        rng.standard_normal((n, D, P)).astype(dtype),
        rng.standard_normal((n_filters, D)).astype(dtype),
    )
    bias = rng.standard_normal(n_filters).astype(dtype)
    activations = reference.patch_matmul_forward(patches, weight, bias)
    assert_close(ops.patch_matmul_forward(patches, weight, bias), activations, TOLERANCE[dtype])
    d = rng.standard_normal(activations.shape).astype(dtype)
    gradients = zip(
        ops.patch_matmul_backward(d, patches, activations),
        reference.patch_matmul_backward(d, patches, activations),
    )
    for actual, expected in gradients:
        assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name, shapes, place",
    [
        (name, shapes, place)
        for name, shapes in {
            "patch_matmul_forward": [(3, 4, 5), (2, 4), (2,)],
            "dense_forward": [(3, 4), (2, 4), (2,)],
            "dense_backward": [(3, 2), (3, 4), (2, 4)],
            "sum_of_squares": [(4, 5)],
        }.items()
        for place in range(len(shapes))
    ],
)
def test_nan_and_infinity_propagate(rng, dtype, name, shapes, place, bad):
    arguments = [np.abs(rng.standard_normal(shape)).astype(dtype) for shape in shapes]
    arguments[place].flat[-1] = bad
    returned = getattr(ops, name)(*arguments)
    returned = returned if isinstance(returned, tuple) else (returned,)
    assert not all(np.isfinite(array).all() for array in returned)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_logits_spoil_only_their_own_loss(dtype, bad):
    logits = np.zeros((2, 3), dtype=dtype)
    logits[1, 2] = bad
    _, losses = ops.softmax_cross_entropy_forward(logits, np.array([0, 1]))
    assert np.isfinite(losses[0]) and not np.isfinite(losses[1])


def test_softmax_survives_large_logits(dtype):
    logits = np.array([[1e4, 0, -1e4], [0, 0, 0], [-1e4, -1e4, -1e4]], dtype=dtype)
    probabilities, losses = ops.softmax_cross_entropy_forward(logits, np.array([2, 0, 1]))
    assert np.allclose(probabilities, [[1, 0, 0], [1 / 3] * 3, [1 / 3] * 3])
    assert np.allclose(losses, [2e4, np.log(3), np.log(3)])


@pytest.mark.parametrize("layout", [np.asfortranarray, reversed_strides, every_other])
def test_update_in_place_works_for_any_layout(rng, dtype, layout, assert_close):
    weight = layout(rng.standard_normal((5, 7)).astype(dtype))
    gradient, expected = rng.standard_normal((5, 7)).astype(dtype), weight.copy()
    reference.sgd_update(expected, gradient, 0.1, 0.01)
    ops.sgd_update(weight, gradient, 0.1, 0.01)
    assert_close(weight, expected, TOLERANCE[dtype])
    if layout is every_other:
        assert np.all(weight.base[:, 1::2] == 77)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filter_size", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize(
    "augmentation", [None, Augmentation(True, 3, 8), Augmentation(True, 40, 0), Augmentation(False, 31, 1)]
)
def test_gather_for_every_filter_size_of_cifar10(rng, dtype, assert_close, augmentation, filter_size, channels):
    """Some have code of their own; shifts beyond the image leave zeros."""
    shape = (channels, 32, 32)
    images = rng.integers(0, 256, (9, *shape), dtype=np.uint8)
    scale, offset = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    for centre in (None, rng.integers(0, 256, shape).astype(dtype)):
        arguments = images, rng.integers(0, 9, 40), filter_size, scale, offset, augmentation, 5, 0, centre
        assert_close(ops.gather_batch(*arguments), reference.gather_batch(*arguments), TOLERANCE[dtype])


# Bad input ---------------------------------------------------------------------

GOOD = {
    "im2col": {"images": np.zeros((2, 3, 4, 8)), "filter_size": 2},
    "col2im": {"patches": np.zeros((2, 12, 8)), "image_shape": (3, 4, 8), "filter_size": 2},
    "gather_batch": {
        "images": np.zeros((5, 3, 4, 8), np.uint8),
        "order": np.array([4, 0]),
        "filter_size": 2,
        "scale": np.ones((3, 4, 8)),
        "offset": np.ones((3, 4, 8)),
    },
    "patch_matmul_forward": {
        "patches": np.zeros((2, 12, 8)),
        "weight": np.zeros((3, 12)),
        "bias": np.zeros(3),
    },
    "patch_matmul_backward": {
        "d_activations": np.zeros((2, 3, 8)),
        "patches": np.zeros((2, 12, 8)),
        "activations": np.zeros((2, 3, 8)),
    },
    "dense_forward": {"inputs": np.zeros((2, 4)), "weight": np.zeros((3, 4)), "bias": np.zeros(3)},
    "dense_backward": {
        "d_outputs": np.zeros((2, 3)),
        "inputs": np.zeros((2, 4)),
        "weight": np.zeros((3, 4)),
        "outputs": np.zeros((2, 3)),
    },
    "softmax_cross_entropy_forward": {"logits": np.zeros((2, 3)), "targets": np.array([0, 2])},
    "softmax_cross_entropy_backward": {"probabilities": np.full((2, 3), 1 / 3), "targets": np.array([0, 2])},
    "sum_of_squares": {"weight": np.zeros((3, 4))},
    "sgd_update": {"weight": np.ones((3, 4)), "gradient": np.ones((3, 4)), "learning_rate": 0.1},
    "shuffled_order": {"n": 5, "seed": 0, "epoch": 0},
}

BAD = [
    ("im2col", "filter_size", 3),
    ("im2col", "filter_size", 0),
    ("im2col", "filter_size", -2),
    ("im2col", "filter_size", 2.0),
    ("im2col", "images", np.zeros((2, 3, 4, 8), int)),
    ("col2im", "image_shape", (3, 4)),
    ("col2im", "image_shape", (3, 4, 16)),
    ("col2im", "image_shape", (3, 4, -8)),
    ("col2im", "filter_size", 4),
    ("gather_batch", "images", np.zeros((5, 3, 4, 8))),
    ("gather_batch", "order", np.array([5])),
    ("gather_batch", "order", np.array([-1])),
    ("gather_batch", "order", np.array([0.0])),
    ("gather_batch", "order", np.array([2**63], np.uint64)),
    ("gather_batch", "scale", np.ones((3, 4, 4))),
    ("gather_batch", "scale", np.full((3, 4, 8), np.nan)),
    ("gather_batch", "offset", np.ones((3, 4, 8), np.float32)),
    ("gather_batch", "centre", np.ones((3, 4, 4))),
    ("gather_batch", "centre", np.full((3, 4, 8), np.inf)),
    ("gather_batch", "augmentation", True),
    ("gather_batch", "seed", -1),
    ("gather_batch", "epoch", 0.5),
    ("patch_matmul_forward", "weight", np.zeros((3, 11))),
    ("patch_matmul_forward", "bias", np.zeros(4)),
    ("patch_matmul_forward", "bias", np.zeros(3, np.float32)),
    ("patch_matmul_backward", "d_activations", np.zeros((2, 3, 7))),
    ("patch_matmul_backward", "activations", np.zeros((2, 3, 7))),
    ("dense_forward", "weight", np.zeros((3, 5))),
    ("dense_forward", "bias", np.zeros((3, 1))),
    ("dense_forward", "relu", 1),
    ("dense_backward", "d_outputs", np.zeros((3, 3))),
    ("dense_backward", "outputs", np.zeros((2, 4))),
    ("softmax_cross_entropy_forward", "targets", np.array([0, 3])),
    ("softmax_cross_entropy_forward", "targets", np.array([-1, 0])),
    ("softmax_cross_entropy_forward", "targets", np.array([0.0, 1.0])),
    ("softmax_cross_entropy_forward", "targets", np.array([0])),
    ("softmax_cross_entropy_forward", "targets", np.full((2, 3), 0.5)),
    ("softmax_cross_entropy_forward", "targets", [[0], [0, 1]]),
    ("softmax_cross_entropy_forward", "label_smoothing", 1.0),
    ("softmax_cross_entropy_forward", "label_smoothing", -0.1),
    ("softmax_cross_entropy_backward", "targets", np.array([0, 3])),
    ("softmax_cross_entropy_backward", "label_smoothing", np.nan),
    ("sum_of_squares", "weight", np.zeros(3, int)),
    ("sum_of_squares", "weight", "w"),
    ("sgd_update", "weight", [[1.0] * 4] * 3),
    ("sgd_update", "weight", read_only(np.ones((3, 4)))),
    ("sgd_update", "gradient", np.ones((4, 3))),
    ("sgd_update", "gradient", np.ones((3, 4), np.float32)),
    ("sgd_update", "gradient", GOOD["sgd_update"]["weight"]),
    ("sgd_update", "learning_rate", -0.1),
    ("sgd_update", "learning_rate", np.inf),
    ("sgd_update", "l2", -1),
    ("shuffled_order", "n", -1),
    ("shuffled_order", "n", 2.5),
    ("shuffled_order", "seed", "zero"),
    ("shuffled_order", "epoch", -1),
]
# No function accepts an array of another rank, objects, or anything that is not an array.
BAD += [
    (function, name, bad)
    for function, arguments in GOOD.items()
    for name, value in arguments.items()
    if isinstance(value, np.ndarray)
    and (function, name) not in [("sum_of_squares", "weight"), ("dense_backward", "outputs")]
    for bad in (None, "text", np.zeros((2,) * (value.ndim + 2)), value.astype(object), value.astype(complex))
]


# Where two arguments do not match each other, the sentence names the other one.
MISMATCHED = {
    ("col2im", "image_shape"): "patches",
    ("col2im", "filter_size"): "patches",
    ("sgd_update", "weight"): "gradient",
}


@pytest.mark.parametrize("function, name, value", BAD)
def test_bad_input_gets_one_sentence(function, name, value):
    with pytest.raises((TypeError, ValueError)) as caught:
        getattr(ops, function)(**{**GOOD[function], name: value})
    message = str(caught.value)
    assert message.startswith((name, MISMATCHED.get((function, name), name))), message
    assert "\n" not in message and len(message) < 300


def test_targets_given_as_probabilities_take_no_smoothing():
    targets = np.full((2, 3), 1 / 3)
    with pytest.raises(ValueError, match="^label_smoothing"):
        ops.softmax_cross_entropy_forward(np.zeros((2, 3)), targets, 0.1)
    with pytest.raises(ValueError, match="^label_smoothing"):
        ops.softmax_cross_entropy_backward(targets, targets, 0.1)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").is_file(),
    reason="Linux tells what x86-64 processors have",
)
def test_the_processor_has_the_instruction_sets_that_linux_tells():
    flags = set(re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split())
    expected = ["baseline"]
    if {"avx2", "fma"} <= flags:
        expected.insert(0, "avx2")
        if {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"} <= flags:
            expected.insert(0, "avx512")
    assert processor.instruction_sets() == expected
