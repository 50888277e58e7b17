"""Network.loss_and_gradients against finite differences, the reference and PyTorch's autograd."""

import numpy as np
import pytest

from cyconv import reference

# Architectures 1 to 4 of the assignment, the extremes of the filter size, branches and several hidden layers.
ARCHITECTURES = [
    {"filter_size": 2, "n_filters": 3, "n_hidden": 50},
    {"filter_size": 4, "n_filters": 10, "n_hidden": 50},
    {"filter_size": 8, "n_filters": 40, "n_hidden": 50},
    {"filter_size": 16, "n_filters": 160, "n_hidden": 50},
    {"filter_size": 1, "n_filters": 2, "n_hidden": 9},
    {"filter_size": 32, "n_filters": 7, "n_hidden": 33},
    {"filter_size": (2, 4, 16), "n_filters": (3, 10, 5), "n_hidden": 50},
    {"filter_size": 4, "n_filters": 11, "n_hidden": (30, 17)},
    {"filter_size": (8, 4), "n_filters": (5, 6), "n_hidden": (20, 10, 15)},
]
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def draw_batch(rng, dtype, n, soft):
    X = rng.standard_normal((n, 3, 32, 32)).astype(dtype)
    return X, rng.dirichlet(np.ones(10), n).astype(dtype) if soft else rng.integers(0, 10, n)


def autograd(parameters, X, labels, l2, label_smoothing, class_weight=None):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    tensors = {name: torch.tensor(values, requires_grad=True) for name, values in parameters.items()}
    x = torch.tensor(X)

    def layers(kind):
        names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
        return [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names if name.startswith(kind)]

    branches = [torch.flatten(F.relu(F.conv2d(x, w, b, stride=w.shape[-1])), 1) for w, b in layers("conv")]
    x = torch.cat(branches, 1)
    for weight, bias in layers("hidden"):
        x = F.relu(F.linear(x, weight, bias))
    [(weight, bias)] = layers("output")
    # PyTorch gives every class ε/K, the assignment every wrong one ε/(K − 1).
    weights = None if class_weight is None else torch.tensor(class_weight, dtype=x.dtype)
    loss = F.cross_entropy(
        F.linear(x, weight, bias), torch.tensor(labels), weight=weights, label_smoothing=label_smoothing * 10 / 9
    )
    cost = loss + l2 * sum((t**2).sum() for name, t in tensors.items() if name.endswith(".weight"))
    cost.backward()
    return cost.item(), {name: t.grad.numpy() for name, t in tensors.items()}


@pytest.mark.optional
@pytest.mark.parametrize("l2, label_smoothing, soft", [(0.0, 0.0, False), (0.003, 0.1, False), (0.01, 0.0, True)])
@pytest.mark.parametrize("settings", ARCHITECTURES)
def test_gradients_agree_with_pytorch(rng, make_network, assert_close, dtype, settings, l2, label_smoothing, soft):
    network = make_network(dtype=dtype, **settings)
    X, labels = draw_batch(rng, dtype, 33, soft)
    expected_cost, expected = autograd(network.parameters, X, labels, l2, label_smoothing)
    cost, gradients = network.loss_and_gradients(X, labels, l2=l2, label_smoothing=label_smoothing)
    assert cost == pytest.approx(expected_cost, rel=TOLERANCE[dtype])
    assert_close(gradients, expected, TOLERANCE[dtype])


@pytest.mark.optional
@pytest.mark.parametrize("settings", ARCHITECTURES)
def test_weighted_gradients_are_pytorchs(rng, make_network, assert_close, dtype, settings):
    network = make_network(dtype=dtype, **settings)
    X, labels = draw_batch(rng, dtype, 33, soft=False)
    class_weight = rng.uniform(0, 3, 10)
    expected_cost, expected = autograd(network.parameters, X, labels, 0.01, 0.0, class_weight)
    cost, gradients = network.loss_and_gradients(X, labels, l2=0.01, class_weight=class_weight)
    assert cost == pytest.approx(expected_cost, rel=TOLERANCE[dtype])
    assert_close(gradients, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("settings", ARCHITECTURES)
def test_weighted_gradients_are_the_references(rng, make_network, assert_close, dtype, settings, soft):
    network = make_network(dtype=dtype, **settings)
    X, labels = draw_batch(rng, dtype, 33, soft)
    class_weight, smoothing = rng.uniform(0, 3, 10), 0.0 if soft else 0.2
    expected_cost, expected = reference.loss_and_gradients(
        network.parameters, X, labels, 0.003, smoothing, class_weight=class_weight
    )
    cost, gradients = network.loss_and_gradients(X, labels, 0.003, smoothing, class_weight)
    assert cost == pytest.approx(expected_cost, rel=TOLERANCE[dtype] / 10)
    assert_close(gradients, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("n", [1, 7, 100, 101])
@pytest.mark.parametrize("settings", ARCHITECTURES)
def test_gradients_agree_with_the_reference(rng, make_network, assert_close, dtype, settings, n):
    network = make_network(dtype=dtype, **settings)
    X, labels = draw_batch(rng, dtype, n, soft=False)
    expected_cost, expected = reference.loss_and_gradients(network.parameters, X, labels, 0.003, 0.1)
    cost, gradients = network.loss_and_gradients(X, labels, 0.003, 0.1)
    assert type(cost) is float and cost == pytest.approx(expected_cost, rel=TOLERANCE[dtype] / 10)
    assert_close(gradients, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "architecture",
    [
        {"filter_size": 2, "image_shape": (3, 4, 4)},
        {"filter_size": 3, "image_shape": (1, 6, 9), "n_filters": 2, "n_hidden": (5, 4), "n_classes": 3},
        {"filter_size": (4, 2), "image_shape": (2, 8, 4), "n_filters": (1, 3), "n_classes": 2},
    ],
)
def test_gradients_by_finite_differences(rng, make_network, architecture, soft, weighted):
    network = make_network(dtype="float64", **architecture)
    n_classes = network.n_classes
    X = rng.standard_normal((5, *network.image_shape))
    settings = {"l2": 0.01, "label_smoothing": 0.0 if soft else 0.1}
    settings["class_weight"] = rng.uniform(0.5, 2, n_classes) if weighted else None
    labels = rng.dirichlet(np.ones(n_classes), 5) if soft else rng.integers(0, n_classes, 5)
    parameters = {name: values.copy() for name, values in network.parameters.items()}
    _, gradients = network.loss_and_gradients(X, labels, **settings)

    def cost_at(name, index, value):
        before, parameters[name][index] = parameters[name][index], value
        network.set_parameters(parameters)
        parameters[name][index] = before
        return network.loss_and_gradients(X, labels, **settings)[0]

    for name, values in parameters.items():
        for flat in rng.choice(values.size, min(values.size, 25), replace=False):
            index = np.unravel_index(flat, values.shape)
            above, below = (
                cost_at(name, index, values[index] + 1e-6),
                cost_at(name, index, values[index] - 1e-6),
            )
            assert gradients[name][index] == pytest.approx((above - below) / 2e-6, abs=1e-7), (name, index)


def test_only_weights_are_penalised(rng, make_network):
    network = make_network(dtype="float64")
    X, labels = draw_batch(rng, "float64", 8, soft=False)
    plain_cost, plain = network.loss_and_gradients(X, labels)
    cost, gradients = network.loss_and_gradients(X, labels, l2=0.5)
    weights = {name: values for name, values in network.parameters.items() if name.endswith(".weight")}
    assert cost - plain_cost == pytest.approx(0.5 * sum(np.sum(values**2) for values in weights.values()))
    for name in plain:
        penalty = weights.get(name, 0.0)  # 2λ = 1
        np.testing.assert_allclose(gradients[name] - plain[name], penalty, atol=1e-12)
