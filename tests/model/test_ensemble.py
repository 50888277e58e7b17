"""Ensemble: the mean of probabilities of networks or snapshots, and bad input."""

import numpy as np
import pytest

import cyconv
from cyconv import Ensemble
from cyconv._files import load_arrays, save_arrays


@pytest.fixture
def networks(make_network, dtype):
    return [make_network(seed=seed, dtype=dtype) for seed in range(3)]


@pytest.fixture
def images(rng, dtype):
    return rng.standard_normal((20, 3, 32, 32)).astype(dtype)


def test_probabilities_are_the_mean_of_the_networks(networks, images, dtype):
    expected = np.mean([network.predict_proba(images) for network in networks], axis=0, dtype=np.float64)
    ensemble = Ensemble(networks)
    assert ensemble.predict_proba(images).dtype == dtype
    np.testing.assert_allclose(ensemble.predict_proba(images), expected, rtol=1e-6)
    assert np.array_equal(ensemble.predict(images), expected.argmax(axis=1))


def test_the_mean_of_probabilities_can_disagree_with_the_majority(make_network):
    """Two networks slightly favour class 0, one strongly favours class 1, and so does the mean."""
    networks = [make_network() for _ in range(3)]
    for network, bias in zip(networks, ([0.1, 0], [0.1, 0], [0, 9])):
        parameters = {name: np.zeros_like(values) for name, values in network.parameters.items()}
        parameters["output.bias"][:] = -9
        parameters["output.bias"][:2] = bias
        network.set_parameters(parameters)
    X = np.zeros((1, 3, 32, 32), np.float32)
    assert [int(network.predict(X)[0]) for network in networks] == [0, 0, 1]
    assert Ensemble(networks).predict(X).tolist() == [1]


def test_evaluation_of_arrays_and_sources(networks, images, rng):
    labels = rng.integers(0, 10, len(images))
    ensemble = Ensemble(networks)
    probabilities = ensemble.predict_proba(images)
    found = ensemble.evaluate(images, labels)
    expected = -np.log(probabilities[np.arange(20), labels]).mean()
    assert found.loss == found.cost == pytest.approx(expected, rel=1e-6)
    assert found.accuracy == np.mean(probabilities.argmax(axis=1) == labels)
    assert ensemble.evaluate(networks[0].prepare(images, labels)) == found


def test_an_ensemble_of_one_equals_its_network(networks, images, rng):
    labels = rng.integers(0, 10, len(images))
    alone, ensemble = networks[0].evaluate(images, labels), Ensemble(networks[:1]).evaluate(images, labels)
    assert ensemble.loss == pytest.approx(alone.loss, rel=1e-5)
    assert ensemble.accuracy == alone.accuracy


def test_the_least_probability_gives_a_finite_loss(make_network):
    network = make_network()
    parameters = {name: np.zeros_like(values) for name, values in network.parameters.items()}
    parameters["output.bias"][0] = 1e6
    network.set_parameters(parameters)
    found = Ensemble([network]).evaluate(np.zeros((1, 3, 32, 32), np.float32), [1])
    assert 80 < found.loss < 90


def test_each_network_normalises_pixels_by_itself(make_network, pixels):
    images, labels = pixels(30)
    networks = [make_network(seed=seed) for seed in range(2)]
    networks[0].normalizer = cyconv.Normalizer.fit(images)
    networks[1].normalizer = cyconv.Normalizer.fit(images[:10])
    expected = np.mean([n.predict_proba(n.normalizer(images)) for n in networks], axis=0)
    np.testing.assert_allclose(Ensemble(networks).predict_proba(images), expected, rtol=1e-4)
    assert Ensemble(networks).evaluate(images, labels).accuracy == np.mean(expected.argmax(axis=1) == labels)


def test_snapshots_of_a_training(pixels):
    images, labels = pixels(60)
    split = cyconv.Split(images, labels)
    schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-2, step_size=3, n_cycles=2, growth=1.0)
    network = cyconv.Network(8, 4, 10)
    trainer = cyconv.CyclicTrainer(network, schedule, batch_size=20, momentum=0.5, snapshots=True)
    trainer.fit(split, split, log_every=6, progress=False)
    before = {name: values.copy() for name, values in network.parameters.items()}
    ensemble = Ensemble.from_snapshots(network, trainer.snapshots)
    assert len(ensemble) == 2
    for member, snapshot in zip(ensemble.networks, trainer.snapshots):
        assert member is not network and member.normalizer is network.normalizer and member.velocity is None
        assert all(np.array_equal(member.parameters[name], values) for name, values in snapshot.items())
    assert all(np.array_equal(network.parameters[name], values) for name, values in before.items())
    first, last = (member.predict_proba(images) for member in ensemble.networks)
    assert not np.array_equal(first, last)
    np.testing.assert_allclose(last, network.predict_proba(images), rtol=1e-6)
    np.testing.assert_allclose(ensemble.predict_proba(images), (first + last) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("networks", "error", "says"),
    [
        ([], ValueError, "networks must hold at least one network, but got none"),
        (None, TypeError, "networks must be a sequence of Network, but got None"),
        (cyconv.Network(8, 1, 1), TypeError, "networks must be a sequence of Network"),
        ([cyconv.Network(8, 1, 1), "b"], TypeError, "one entry is 'b'"),
        ([cyconv.Network(8, 1, 1), cyconv.Network(8, 1, 1, dtype="float64")], ValueError, "float32.*float64"),
        ([cyconv.Network(8, 1, 1), cyconv.Network(8, 1, 1, n_classes=3)], ValueError, "3 classes"),
        ([cyconv.Network(8, 1, 1), cyconv.Network(8, 1, 1, image_shape=(1, 8, 8))], ValueError, r"\(1, 8, 8\)"),
    ],
)
def test_networks_that_cannot_form_an_ensemble(networks, error, says):
    with pytest.raises(error, match=says):
        Ensemble(networks)


@pytest.mark.parametrize(
    "network, snapshots, error, sentence",
    [
        ("a network", [], ValueError, "snapshots must hold at least one set of parameters"),
        ("a network", "its parameters", TypeError, "snapshots must be a sequence of dicts"),
        ("a network", [{}], ValueError, "mapping must have the names"),
        (None, [{}], TypeError, "network must be a Network"),
    ],
)
def test_bad_snapshots(make_network, network, snapshots, error, sentence):
    network = make_network() if network == "a network" else network
    snapshots = network.parameters if snapshots == "its parameters" else snapshots
    with pytest.raises(error, match=f"^{sentence}"):
        Ensemble.from_snapshots(network, snapshots)


@pytest.mark.parametrize(
    "shape, labels, sentence",
    [
        ((2, 3, 32, 32), [0], "labels must have shape"),
        ((2, 3, 32, 32), [0, 10], "labels must lie in 0..9, but got 10"),
        ((2, 3, 32, 32), None, "labels must be given"),
        ((2, 1, 32, 32), [0, 1], "X must have shape"),
    ],
)
def test_bad_images_and_labels(make_network, shape, labels, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        Ensemble([make_network()]).evaluate(np.zeros(shape, np.float32), labels)


# Files ------------------------------------------------------------------------------


def test_a_saved_ensemble_returns_the_same(tmp_path, pixels):
    images, labels = pixels(30)
    networks = [cyconv.Network(8, n, 10, seed=n, dtype="float64") for n in (2, 3)]
    networks[1].normalizer = cyconv.Normalizer.fit(images)
    networks[0].normalizer = cyconv.Normalizer.fit(images[:20])
    ensemble = cyconv.Ensemble(networks)
    ensemble.save(tmp_path / "ensemble.npz")
    loaded = cyconv.Ensemble.load(tmp_path / "ensemble.npz")
    assert [network.architecture for network in loaded.networks] == [network.architecture for network in networks]
    assert (loaded.predict_proba(images) == ensemble.predict_proba(images)).all()
    assert loaded.evaluate(images, labels) == ensemble.evaluate(images, labels)


def test_files_of_other_kinds_are_refused(tmp_path):
    network, path = cyconv.Network(8, 2, 10), tmp_path / "file.npz"
    network.save(path)
    with pytest.raises(ValueError, match="^path must be a cyconv ensemble file, but .* holds 'network'"):
        cyconv.Ensemble.load(path)
    with pytest.raises(FileNotFoundError, match="^path must be a cyconv ensemble file"):
        cyconv.Ensemble.load(tmp_path / "none.npz")


@pytest.mark.parametrize("change", ["missing", "shape", "architecture", "none"])
def test_a_damaged_ensemble_file(tmp_path, change):
    path = tmp_path / "ensemble.npz"
    cyconv.Ensemble([cyconv.Network(8, 2, 10, seed=seed) for seed in range(2)]).save(path)
    header, arrays = load_arrays(path, "ensemble", 1)
    if change == "missing":
        arrays = {name: array for name, array in arrays.items() if not name.startswith("1/")}
    elif change == "shape":
        arrays["1/parameters/output.bias"] = np.zeros(3, np.float32)
    elif change == "architecture":
        header["architectures"][1]["n_hidden"] = 10**6
    else:
        header["architectures"] = None
    contents = {name: value for name, value in header.items() if name not in ("kind", "version")}
    save_arrays(path, "ensemble", 1, contents, arrays)
    with pytest.raises(ValueError, match=r"^path must be a cyconv ensemble file, but .* is damaged: [^\n]*$"):
        cyconv.Ensemble.load(path)
