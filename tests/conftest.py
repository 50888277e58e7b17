"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import cyconv

# As in a terminal: jobs in the background ignore SIGINT, those of nohup SIGHUP.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_make_parametrize_id(val):
    """Name cases by settings, sizes and arrays, which pytest would number."""
    if isinstance(val, dict):
        name = ", ".join(f"{key}={value}" for key, value in val.items()) or "default"
    elif isinstance(val, np.ndarray):
        name = f"{val.dtype}{list(val.shape)}"
    elif isinstance(val, list | tuple) and all(isinstance(each, int | float | str) for each in val):
        name = " ".join(map(str, val)) or "empty"
    else:
        return None
    return name if len(name) < 80 else None


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def assert_close():
    """assert_close(actual, expected, tolerance): arrays or dicts of arrays, by relative 2-norm."""

    def check(actual, expected, tolerance):
        if isinstance(expected, dict):
            assert list(actual) == list(expected)
            for name in expected:
                _check(name, actual[name], expected[name], tolerance)
        else:
            _check("array", actual, expected, tolerance)

    return check


def _check(name, actual, expected, tolerance):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{name} has shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"{name} has dtype {actual.dtype}, expected {expected.dtype}"
    difference = np.linalg.norm((actual.astype(np.float64) - expected).ravel())
    error = difference / (np.linalg.norm(expected.ravel()) or 1.0)
    assert error <= tolerance, f"{name} differs by {error:.3g}, more than {tolerance:.3g}"


@pytest.fixture
def make_network(rng):
    """make_network(**settings): a Network whose biases are not zero, as if trained for a while."""

    def make(**settings):
        network = cyconv.Network(**{"filter_size": 4, "n_filters": 3, "n_hidden": 8, **settings})
        parameters = {name: values.copy() for name, values in network.parameters.items()}
        for name, values in parameters.items():
            if name.endswith(".bias"):
                values[:] = 0.1 * rng.standard_normal(values.shape)
        network.set_parameters(parameters)
        return network

    return make


@pytest.fixture
def pixels(rng):
    """pixels(n, image_shape): random uint8 images and labels."""

    def draw(n, image_shape=(3, 32, 32), n_classes=10):
        images = rng.integers(0, 256, (n, *image_shape), dtype=np.uint8)
        return images, rng.integers(0, n_classes, n)

    return draw


@pytest.fixture
def restored_num_threads():
    """For tests that call set_num_threads."""
    n = cyconv.get_num_threads()
    yield
    cyconv.set_num_threads(n)


@pytest.fixture
def on_one_thread(restored_num_threads):
    """For small networks, which gain nothing from more threads and wait for each other on a busy machine."""
    cyconv.set_num_threads(1)


@pytest.fixture(scope="session")
def cifar10_folder():
    """The folder of the real CIFAR-10; tests that use it are skipped without it."""
    from cyconv.datasets import find_cifar10

    folder = find_cifar10()
    if folder is None:
        pytest.skip("CIFAR-10 is not here; set CYCONV_DATA to its folder")
    return folder


@pytest.fixture
def environment(tmp_path):
    """Variables for a process that finds no CIFAR-10 and writes nothing outside its folder."""
    kept = {name: value for name, value in os.environ.items() if name != "CYCONV_DATA"}
    return {
        **kept,
        "PYTHONPATH": str(Path(cyconv.__file__).parents[1]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "KERAS_HOME": str(tmp_path / "keras"),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),
        "OMP_NUM_THREADS": "1",  # no waiting for a busy core
    }


@pytest.fixture
def console_script(tmp_path_factory):
    """A file that does what the one does that pip writes into bin/."""
    path = tmp_path_factory.mktemp("bin") / "cyconv"
    path.write_text("import sys\nfrom cyconv.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    return path
