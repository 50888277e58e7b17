"""Parameters to and from PyTorch modules and safetensors files."""

import itertools
import sys

import numpy as np
import pytest

SETTINGS = [
    {},
    {"n_hidden": (8, 6)},
    {"filter_size": (2, 4), "n_filters": (3, 5)},
    {"image_shape": (1, 8, 12), "n_classes": 3},
]


def make_module(torch, network):
    """An equivalent module, written as a PyTorch user would."""
    nn = torch.nn
    channels, height, width = network.image_shape
    sizes, filters, hidden = (
        np.atleast_1d(value).tolist() for value in (network.filter_size, network.n_filters, network.n_hidden)
    )

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            convs = [nn.Conv2d(channels, n, f, stride=f) for n, f in zip(filters, sizes)]
            self.conv = convs[0] if np.ndim(network.filter_size) == 0 else nn.ModuleList(convs)
            widths = [sum(n * (height // f) * (width // f) for n, f in zip(filters, sizes)), *hidden]
            layers = [nn.Linear(n, m) for n, m in itertools.pairwise(widths)]
            self.hidden = layers[0] if np.ndim(network.n_hidden) == 0 else nn.ModuleList(layers)
            self.output = nn.Linear(widths[-1], network.n_classes)

        def forward(self, X):
            convs = [self.conv] if isinstance(self.conv, nn.Conv2d) else self.conv
            x = torch.cat([conv(X).relu().flatten(1) for conv in convs], dim=1)
            for layer in [self.hidden] if isinstance(self.hidden, nn.Linear) else self.hidden:
                x = layer(x).relu()
            return self.output(x).softmax(dim=1)

    torch.manual_seed(3)
    return Module().to(getattr(torch, str(network.dtype)))


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.optional
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_module_computes_the_same_with_the_parameters_of_a_network(rng, make_network, torch, dtype, settings):
    network = make_network(dtype=dtype, **settings)
    X = rng.standard_normal((5, *network.image_shape)).astype(dtype)
    module = make_module(torch, network)
    module.load_state_dict(network.state_dict())
    expected = network.predict_proba(X)
    found = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4 if dtype == "float32" else 1e-10)


@pytest.mark.optional
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_network_takes_the_parameters_of_a_module(rng, make_network, torch, dtype, settings):
    network = make_network(dtype=dtype, **settings)
    module = make_module(torch, network)
    for mapping in (module.state_dict(), dict(module.named_parameters())):  # these require gradients
        network.load_state_dict(mapping)
        assert {name: tensor.tolist() for name, tensor in module.state_dict().items()} == {
            name: array.tolist() for name, array in network.parameters.items()
        }
        network.set_parameters({name: np.zeros_like(array) for name, array in network.parameters.items()})


@pytest.mark.optional
@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16"])
def test_tensors_of_any_floating_point_type_are_taken(make_network, torch, kind):
    network, other = make_network(), make_network(seed=1)
    rounded = {name: tensor.to(getattr(torch, kind)) for name, tensor in other.state_dict().items()}
    network.load_state_dict(rounded)
    assert all(np.array_equal(array, rounded[name].float().numpy()) for name, array in network.parameters.items())


@pytest.mark.optional
def test_the_tensors_are_copies(make_network, torch):
    network = make_network()
    before = network.parameters
    for tensor in network.state_dict().values():
        tensor.zero_()
    assert all(np.array_equal(array, before[name]) for name, array in network.parameters.items())


@pytest.mark.optional
def test_tensors_that_do_not_fit_are_refused_in_a_sentence(make_network, torch):
    network = make_network()
    before, state = network.parameters, network.state_dict()
    weight = state["output.weight"]
    for wrong, error, words in (
        (weight[:, 1:], ValueError, r"state_dict\['output.weight'\] must have shape \(10, 8\)"),
        (weight.to(torch.int64), TypeError, r"state_dict\['output.weight'\] must have dtype float32 or float64"),
        (weight * torch.inf, ValueError, r"state_dict\['output.weight'\] must hold finite numbers"),
        (weight.to_sparse(), TypeError, r"state_dict\['output.weight'\] must be an array"),
        (weight.to("meta"), TypeError, r"state_dict\['output.weight'\] must be an array"),
    ):
        with pytest.raises(error, match=words):
            network.load_state_dict({**state, "output.weight": wrong})
    with pytest.raises(ValueError, match=r"state_dict must have the names conv.weight, .* but got conv.weight"):
        network.load_state_dict({name: tensor for name, tensor in state.items() if name != "output.bias"})
    assert all(np.array_equal(array, before[name]) for name, array in network.parameters.items())


@pytest.mark.optional
def test_safetensors_as_the_readme_has_it(make_network, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    network, other = make_network(), make_network(seed=1)
    safetensors.save_file(network.parameters, tmp_path / "network.safetensors")
    other.load_state_dict(safetensors.load_file(tmp_path / "network.safetensors"))
    assert all(np.array_equal(array, network.parameters[name]) for name, array in other.parameters.items())


def test_arrays_are_taken_without_pytorch(make_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    network, other = make_network(), make_network(seed=1)
    network.load_state_dict(other.parameters)
    assert np.array_equal(network.parameters["conv.weight"], other.parameters["conv.weight"])
    with pytest.raises(ImportError, match=r"state_dict needs PyTorch, but .*torch.*; parameters holds the same as arr"):
        network.state_dict()
    with pytest.raises(TypeError, match="state_dict must be a dict of arrays, but got 3"):
        network.load_state_dict(3)
