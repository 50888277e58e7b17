"""The course's layouts: round trips, and the course's own computation in plain NumPy."""

import numpy as np
import pytest

import cyconv
from cyconv import reference
from cyconv.backend import ops
from cyconv.experiments import course_layout


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 6)])
def test_images_survive_a_round_trip(rng, shape):
    images = rng.integers(0, 256, (7, *shape), dtype=np.uint8)
    columns = course_layout.images_to_columns(images)
    assert columns.shape == (np.prod(shape), 7)
    back = course_layout.images_from_columns(columns, shape)
    assert back.dtype == np.uint8 and back.flags.c_contiguous
    np.testing.assert_array_equal(back, images)
    # The assignment's own line for the images of X.
    channels, height, width = shape
    theirs = np.transpose(columns.reshape((width, height, channels, 7), order="F"), (1, 0, 2, 3))
    np.testing.assert_array_equal(theirs.transpose(3, 2, 0, 1), images)


def test_filters_and_hidden_weights_survive_a_round_trip(rng):
    weight = rng.standard_normal((5, 3, 4, 4))
    np.testing.assert_array_equal(course_layout.filters_from_course(course_layout.filters_to_course(weight)), weight)
    hidden = rng.standard_normal((6, 5 * 64))
    there = course_layout.hidden_to_course(hidden, 5)
    assert there[2, 7 * 5 + 3] == hidden[2, 3 * 64 + 7]
    np.testing.assert_array_equal(course_layout.hidden_from_course(there, 5), hidden)


@pytest.mark.parametrize("filter_size", [2, 4, 16])
def test_patches_are_the_courses_products(rng, filter_size):
    """MX_i Fs_flat, one product per image, equals the convolution in the course's layout."""
    images = rng.standard_normal((3, 3, 32, 32))
    weight = rng.standard_normal((5, 3, filter_size, filter_size))
    MX = course_layout.patches_to_course(ops.im2col(images, filter_size))
    Fs_flat = course_layout.filters_to_course(weight).reshape(-1, 5)
    products = np.stack([MX[:, :, i] @ Fs_flat for i in range(3)], axis=-1)
    maps = course_layout.maps_to_course(reference.convolve_loops(images, weight, np.zeros(5)))
    np.testing.assert_allclose(products.reshape(maps.shape), maps, atol=1e-11)
    f = filter_size
    patch = images[1, :, f : 2 * f, :f].transpose(1, 2, 0)  # (row, column, channel), as the assignment cuts it
    np.testing.assert_array_equal(MX[32 // f, :, 1], patch.reshape(-1))


def test_a_network_accepts_the_courses_parameters(rng):
    network = cyconv.Network(filter_size=4, n_filters=2, n_hidden=10, dtype="float64")
    arrays = {
        "Fs": rng.standard_normal((4, 4, 3, 2)),
        "W1": rng.standard_normal((10, 128)),
        "b1": rng.standard_normal((10, 1)),
        "W2": rng.standard_normal((10, 10)),
        "b2": rng.standard_normal(10),
    }
    network.set_parameters(course_layout.parameters_from_course(arrays))
    np.testing.assert_array_equal(network.parameters["output.bias"], arrays["b2"])
    np.testing.assert_array_equal(network.parameters["conv.weight"][1, 2], arrays["Fs"][:, :, 2, 1])


def test_parameters_survive_a_round_trip(rng):
    network = cyconv.Network(filter_size=4, n_filters=2, n_hidden=10, dtype="float64")
    network.set_parameters({name: rng.standard_normal(array.shape) for name, array in network.parameters.items()})
    arrays = course_layout.parameters_to_course(network.parameters)
    assert arrays["Fs"].shape == (4, 4, 3, 2) and arrays["Fs_b"].shape == (2, 1)
    back = course_layout.parameters_from_course(arrays)
    assert all(np.array_equal(back[name], array) for name, array in network.parameters.items())


@pytest.mark.parametrize("channels", [1, 3])
def test_flat_filters_are_accepted(rng, channels):
    arrays = {**course_parameters(rng), "Fs": rng.standard_normal((4, 4, channels, 2))}
    flat = {**arrays, "Fs_flat": arrays["Fs"].reshape(-1, 2)}
    del flat["Fs"]
    expected = course_layout.parameters_from_course(arrays)
    found = course_layout.parameters_from_course(flat, channels)
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
    both = course_layout.parameters_from_course({**flat, "Fs": arrays["Fs"], "Fs_flat": np.zeros(1)})
    np.testing.assert_array_equal(both["conv.weight"], expected["conv.weight"])
    with pytest.raises(ValueError, match=r"^Fs_flat must have f²·3 rows, where f is an integer, but got .*\(47, 2\)"):
        course_layout.parameters_from_course({**flat, "Fs_flat": np.zeros((47, 2))})


def course_parameters(rng):
    return {
        "Fs": rng.standard_normal((4, 4, 3, 2)),
        "W1": rng.standard_normal((10, 128)),
        "b1": rng.standard_normal((10, 1)),
        "W2": rng.standard_normal((10, 10)),
        "b2": rng.standard_normal(10),
    }


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_the_convolutions_bias_is_accepted(rng, shape):
    """Activations and gradients equal those of the course's product plus the bias."""
    network = cyconv.Network(filter_size=4, n_filters=2, n_hidden=10, dtype="float64")
    arrays = {**course_parameters(rng), "Fs_b": rng.standard_normal(shape)}
    network.set_parameters(course_layout.parameters_from_course(arrays))
    images = rng.standard_normal((3, 3, 32, 32))
    MX = course_layout.patches_to_course(ops.im2col(images, 4))
    products = np.einsum("ijn,jl->iln", MX, arrays["Fs"].reshape(-1, 2)) + arrays["Fs_b"].reshape(1, -1, 1)
    hidden = np.maximum(arrays["W1"] @ np.maximum(products, 0).reshape(-1, 3) + arrays["b1"], 0)
    np.testing.assert_allclose(network.forward(images)["hidden"].T, hidden, atol=1e-10)
    _, gradients = network.loss_and_gradients(images, [0, 1, 2])
    gradient = course_layout.gradients_to_course(gradients)["grad_Fs_b"]
    np.testing.assert_array_equal(gradient, gradients["conv.bias"][:, None])
    assert not course_layout.parameters_from_course(course_parameters(rng))["conv.bias"].any()


@pytest.mark.parametrize("name", ["b_F", "Fs_bias", "b0", "W3", "b3", "gamma1", 3])
def test_unknown_arrays_are_refused(rng, name):
    with pytest.raises(ValueError, match=f"^arrays must hold only Fs, Fs_b, W1, .* but got '?{name}'? "):
        course_layout.parameters_from_course({**course_parameters(rng), name: np.zeros(2)})


def test_a_whole_debug_file_is_accepted(rng):
    results = "X Y MX conv_outputs conv_outputs_mat conv_flat X1 P grad_Fs_flat grad_W1 grad_b1 grad_W2 grad_b2"
    arrays = {**course_parameters(rng), **dict.fromkeys(results.split(), np.zeros(1))}
    assert list(course_layout.parameters_from_course(arrays)) == list(cyconv.Network(4, 2, 10).parameters)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: course_layout.parameters_from_course(
                {**course_parameters(np.random.default_rng(0)), "Fs_b": np.zeros(3)}
            ),
            r"Fs_b must have shape \(2,\)",
        ),
        (
            lambda: course_layout.parameters_from_course(
                {**course_parameters(np.random.default_rng(0)), "Fs_b": [np.inf, 0.0]}
            ),
            "Fs_b must hold finite numbers",
        ),
        (lambda: course_layout.images_from_columns(np.zeros((3071, 2))), "columns must have shape"),
        (lambda: course_layout.images_to_columns(np.zeros((2, 3072))), "images must have shape"),
        (lambda: course_layout.filters_from_course(np.zeros((4, 4, 3))), "filters must have shape"),
        (lambda: course_layout.filters_to_course(np.zeros(4)), "weight must have shape"),
        (lambda: course_layout.hidden_from_course(np.zeros((2, 7)), 2), "weight must have a multiple of 2"),
        (lambda: course_layout.hidden_to_course(np.zeros((2, 7)), 0), "n_filters must be"),
        (lambda: course_layout.patches_to_course(np.zeros((1, 4, 1))), "patches must have a multiple of 3"),
        (lambda: course_layout.maps_to_course(np.zeros((1, 4, 1))), "maps must have shape"),
        (
            lambda: course_layout.parameters_from_course(
                {
                    "Fs": np.zeros((4, 4, 3, 2)),
                    "W1": np.zeros((3, 128)),
                    "b1": np.zeros(4),
                    "W2": np.zeros((10, 3)),
                    "b2": np.zeros(10),
                }
            ),
            "b1 must have shape",
        ),
        (
            lambda: course_layout.parameters_from_course(
                {
                    "Fs": np.full((4, 4, 3, 2), np.nan),
                    "W1": np.zeros((3, 128)),
                    "b1": np.zeros(3),
                    "W2": np.zeros((10, 3)),
                    "b2": np.zeros(10),
                }
            ),
            "Fs must hold finite numbers",
        ),
    ],
)
def test_a_mistake_is_one_sentence(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()


def test_debug_files_are_read_without_pickle(tmp_path):
    path = tmp_path / "debug.npz"
    np.savez(
        path, X=np.ones((2, 3), np.float32), note=np.array([{"an": "object"}], dtype=object), name=np.array("text")
    )
    arrays = course_layout.read_debug_file(path)
    assert list(arrays) == ["X"] and arrays["X"].dtype == np.float64
    with pytest.raises(FileNotFoundError, match="there is no file"):
        course_layout.read_debug_file(tmp_path / "missing.npz")
    whole = path.read_bytes()
    for damaged in (b"no archive", whole[:-30], whole[:60] + b"\xff" * 20 + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not one or is damaged"):
            course_layout.read_debug_file(path)
