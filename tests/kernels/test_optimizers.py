"""Optimisers: the kernels against their twins and torch.optim, the state between calls, and what is refused."""

import pickle

import numpy as np
import pytest

import cyconv
from cyconv import reference
from cyconv.optimizers import check_optimizer, optimizer_from

OPTIMIZERS = {
    "SGD": cyconv.SGD(),
    "momentum": cyconv.SGD(momentum=0.9),
    "Nesterov": cyconv.SGD(momentum=0.9, nesterov=True),
    "Adam": cyconv.AdamW(),
    "AdamW": cyconv.AdamW(betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
}
RATES = {"SGD": 0.03, "momentum": 0.01, "Nesterov": 0.01, "Adam": 0.001, "AdamW": 0.001}
TORCH = {"float32": 2e-5, "float64": 1e-11}
ARCHITECTURES = [
    {"filter_size": 4, "n_filters": 10, "n_hidden": 50},
    {"filter_size": (16, 4), "n_filters": (5, 3), "n_hidden": (21, 9)},
    {"filter_size": 3, "n_filters": 4, "n_hidden": 6, "image_shape": (2, 6, 9), "n_classes": 5},
]


def same(one, other):
    """Whether two networks' parameters and optimiser states have the same bits."""
    return equal(one.parameters, other.parameters) and equal(one.optimizer_state, other.optimizer_state)


def equal(one, other):
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    return np.array_equal(one, other)


@pytest.fixture(params=OPTIMIZERS)
def name(request):
    return request.param


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_updates_are_the_references(make_network, rng, assert_close, pixels, dtype, name, architecture):
    network = make_network(dtype=dtype, **architecture)
    images, labels = pixels(30, network.image_shape, network.n_classes)
    normalizer = cyconv.Normalizer.fit(images)
    order, rates = rng.integers(0, 30, 130), np.linspace(0.1, 1, 10) * RATES[name]
    settings = {"batch_size": 13, "l2": 0.01, "optimizer": OPTIMIZERS[name]}
    expected, state = {key: values.copy() for key, values in network.parameters.items()}, {}
    scale, offset = normalizer.scale.astype(dtype), normalizer.offset.astype(dtype)
    expected_costs = reference.train_steps(
        expected, images, labels, order, rates, **settings, scale=scale, offset=offset, state=state
    )
    source = network.prepare(images, labels, normalizer)
    costs = network.train_steps(source, order, rates, **settings)
    tolerance = {"float32": 2e-4, "float64": 1e-11}[dtype]
    assert_close(costs, expected_costs, tolerance)
    assert_close(network.parameters, expected, tolerance)
    if OPTIMIZERS[name].keeps_state:
        found = network.optimizer_state
        assert found["n_updates"] == state["n_updates"] == 10 and found["optimizer"] == state["optimizer"]
        for key in OPTIMIZERS[name].state_names:
            assert_close(found[key], state[key], 10 * tolerance)
    else:
        assert network.optimizer_state is None


def torch_optimizer(torch, name, tensors, l2):
    weights = [t for key, t in tensors.items() if key.endswith("weight")]
    biases = [t for key, t in tensors.items() if key.endswith("bias")]
    optimizer = OPTIMIZERS[name]
    if isinstance(optimizer, cyconv.SGD):
        groups = [{"params": weights, "weight_decay": 2 * l2}, {"params": biases, "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=1.0, momentum=optimizer.momentum, nesterov=optimizer.nesterov)
    groups = [{"params": weights, "weight_decay": optimizer.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1.0, betas=optimizer.betas, eps=optimizer.eps)


@pytest.mark.optional
def test_two_hundred_updates_are_pytorchs(assert_close, dtype, name):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    # Small: of many million sums, one would lie so near 0 that single precision has it on ReLU's other side.
    network = cyconv.Network(filter_size=4, n_filters=5, n_hidden=12, image_shape=(3, 8, 8), dtype=dtype)
    rng = np.random.default_rng(0)
    X, labels = rng.standard_normal((500, 3, 8, 8)).astype(dtype), rng.integers(0, 10, 500)
    order, l2 = rng.integers(0, 500, 200 * 20), 0.003
    schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=RATES[name], step_size=50, n_cycles=2, growth=1.0)
    rates = schedule(np.arange(200))
    tensors = {key: torch.tensor(values, requires_grad=True) for key, values in network.parameters.items()}
    peer = torch_optimizer(torch, name, tensors, l2)
    for i, rate in enumerate(rates):
        batch = order[i * 20 : (i + 1) * 20]
        x = F.conv2d(torch.tensor(X[batch]), tensors["conv.weight"], tensors["conv.bias"], stride=4)
        x = F.linear(torch.flatten(F.relu(x), 1), tensors["hidden.weight"], tensors["hidden.bias"])
        cost = F.cross_entropy(
            F.linear(F.relu(x), tensors["output.weight"], tensors["output.bias"]), torch.tensor(labels[batch])
        )
        if isinstance(OPTIMIZERS[name], cyconv.AdamW):  # whose weight_decay is not a penalty of the cost
            cost = cost + l2 * sum((t**2).sum() for key, t in tensors.items() if key.endswith("weight"))
        peer.zero_grad()
        cost.backward()
        for group in peer.param_groups:
            group["lr"] = float(rate)
        peer.step()
    source = network.prepare(X, labels)
    network.train_steps(source, order, rates, batch_size=20, l2=l2, optimizer=OPTIMIZERS[name])
    assert_close(network.parameters, {key: t.detach().numpy() for key, t in tensors.items()}, TORCH[dtype])


def train(network, steps=slice(0, 6), **settings):
    """Some of six updates, of which each has its own images and rate."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (40, *network.image_shape), dtype=np.uint8)
    source = network.prepare(images, rng.integers(0, 10, 40), cyconv.Normalizer.fit(images))
    order, rates = rng.integers(0, 40, (6, 33)), np.linspace(0.001, 0.01, 6)
    return network.train_steps(source, order[steps].ravel(), rates[steps], batch_size=33, l2=0.01, **settings)


def test_same_bits_for_any_number_of_threads(monkeypatch, make_network, dtype, name):
    monkeypatch.setattr("cyconv.backend.threads._chosen", None)
    first = make_network(dtype=dtype, n_filters=10, n_hidden=50)
    networks = [first.copy() for _ in range(4)]
    for n_threads, network in enumerate(networks, 1):
        cyconv.set_num_threads(n_threads)
        train(network, optimizer=OPTIMIZERS[name])
    assert all(same(network, networks[0]) for network in networks) and not same(first, networks[0])


@pytest.mark.parametrize("through", ["the network itself", "copy", "pickle", "optimizer_state"])
def test_state_goes_from_call_to_call(make_network, dtype, name, through):
    once = make_network(dtype=dtype)
    twice = once.copy()
    train(once, optimizer=OPTIMIZERS[name])
    train(twice, slice(0, 2), optimizer=OPTIMIZERS[name])
    if through == "copy":
        twice = twice.copy()
    elif through == "pickle":
        twice = pickle.loads(pickle.dumps(twice))
    elif through == "optimizer_state":
        state, parameters = twice.optimizer_state, twice.parameters
        twice = make_network(dtype=dtype)
        train(twice, optimizer=cyconv.AdamW())  # which leaves nothing
        twice.set_parameters(parameters)
        twice.set_optimizer_state(state)
    train(twice, slice(2, 6), optimizer=OPTIMIZERS[name])
    assert same(once, twice)


def test_a_copys_state_is_its_own(make_network):
    network = make_network()
    train(network, optimizer=cyconv.AdamW())
    twin, state = network.copy(), network.optimizer_state
    train(network, optimizer=cyconv.AdamW())
    assert equal(twin.optimizer_state, state) and network.optimizer_state["n_updates"] == 12


def test_momentum_is_the_short_way(make_network):
    short = make_network()
    long = short.copy()
    train(short, momentum=0.9)
    train(long, optimizer=cyconv.SGD(momentum=0.9))
    assert same(short, long) and equal(short.velocity, short.optimizer_state["velocity"])


def test_another_optimizers_state_starts_afresh(make_network):
    network = make_network()
    train(network, momentum=0.9)
    fresh = network.copy()
    fresh.set_optimizer_state(None)
    for each in (network, fresh):
        train(each, optimizer=cyconv.AdamW())
    assert same(network, fresh) and network.velocity is None
    kept = network.optimizer_state
    train(network)  # plain descent keeps nothing, and leaves what is there
    assert equal(network.optimizer_state, kept)
    network.set_velocity(fresh.optimizer_state["exp_avg"])
    assert equal(network.velocity, fresh.optimizer_state["exp_avg"])
    network.set_velocity(None)
    assert network.optimizer_state is None


def test_biases_do_not_decay_and_dead_units_stay(make_network):
    network = make_network(dtype="float64")
    parameters = {key: values.copy() for key, values in network.parameters.items()}
    parameters["hidden.bias"][:] = -1e6  # no unit is on: nothing before them has a gradient
    network.set_parameters(parameters)
    train(network, slice(5, 6), optimizer=cyconv.AdamW(weight_decay=0.5))
    found = network.parameters
    decay = 1 - 0.01 * (0.5)
    gradient_of_penalty = parameters["conv.weight"] * 0.02
    step = 0.01 * gradient_of_penalty / (np.abs(gradient_of_penalty) + 1e-8)
    np.testing.assert_allclose(found["conv.weight"], decay * parameters["conv.weight"] - step, rtol=1e-12)
    assert np.array_equal(found["conv.bias"], parameters["conv.bias"])
    assert np.array_equal(found["hidden.bias"], parameters["hidden.bias"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_settings_make_the_optimizer_again(optimizer):
    assert optimizer_from(optimizer.settings) == optimizer


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: cyconv.SGD(1.0), r"momentum must be a number in \[0, 1\), but got 1.0"),
        (lambda: cyconv.SGD("high"), "momentum must be a real number, but got 'high'"),
        (lambda: cyconv.SGD(0.9, nesterov=1), "nesterov must be True or False, but got 1"),
        (lambda: cyconv.SGD(nesterov=True), "momentum must be greater than 0 with nesterov, but got 0"),
        (lambda: cyconv.AdamW(0.9), "betas must be a pair of numbers, but got 0.9"),
        (lambda: cyconv.AdamW((0.9, 1.0)), r"betas\[1\] must be a number in \[0, 1\), but got 1.0"),
        (lambda: cyconv.AdamW(eps=0.0), "eps must be a number at least 1e-30, but got 0.0"),
        (lambda: cyconv.AdamW(weight_decay=-1), "weight_decay must be a number at least 0, but got -1"),
        (lambda: cyconv.AdamW(weight_decay=np.nan), "weight_decay must be a finite number, but got nan"),
        (lambda: check_optimizer("Adam"), "optimizer must be one of SGD, AdamW or None, but got 'Adam'"),
        (lambda: check_optimizer(cyconv.AdamW), "optimizer must be one of SGD, AdamW or None, but got <class"),
        (lambda: check_optimizer(cyconv.SGD(), 0.9), "momentum must be left out where an optimizer is given.* 0.9"),
        (lambda: optimizer_from({"class": "Lion"}), "the optimiser must be one of SGD, AdamW, but got 'Lion'"),
        (lambda: optimizer_from({"momentum": 0.9}), "the optimiser must be one of SGD, AdamW, but got None"),
        (lambda: optimizer_from({"class": "SGD", "beta": 0.9}), "the settings of SGD must be its arguments"),
        (lambda: optimizer_from([]), r"the settings of an optimiser must be a dict, but got \[\]"),
    ],
)
def test_each_mistake_is_one_sentence(call, sentence):
    with pytest.raises((TypeError, ValueError), match="^" + sentence):
        call()


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda state: [], r"mapping must be a dict as optimizer_state has it, or None, but got \[\]"),
        (lambda state: {**state, "optimizer": "Lion"}, "the optimiser must be one of SGD, AdamW, but got 'Lion'"),
        (
            lambda state: {**state, "optimizer": "SGD"},
            "mapping must have the names optimizer, n_updates, velocity, but",
        ),
        (lambda state: {**state, "n_updates": -1}, r"mapping\['n_updates'\] must be an integer in"),
        (lambda state: {**state, "exp_avg": {}}, r"mapping\['exp_avg'\] must have the names conv.weight"),
        (
            lambda state: {**state, "exp_avg_sq": {**state["exp_avg_sq"], "conv.bias": np.full(3, np.nan)}},
            r"mapping\['exp_avg_sq'\]\['conv.bias'\] must hold finite numbers, but got nan",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(make_network, change, sentence):
    network = make_network(dtype="float64")
    train(network, optimizer=cyconv.AdamW())
    before = network.optimizer_state
    with pytest.raises((TypeError, ValueError), match="^" + sentence):
        network.set_optimizer_state(change(before))
    assert equal(network.optimizer_state, before)
