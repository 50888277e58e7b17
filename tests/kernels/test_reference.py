"""The NumPy reference on its own: against definitions, finite differences and PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest

from cyconv import randomness, reference


def random_parameters(rng, filter_sizes=(4,), n_filters=(3,), n_hidden=(8,), image_shape=(3, 8, 8), n_classes=10):
    channels, height, width = image_shape
    parameters, n_inputs = {}, 0
    for i, (f, n) in enumerate(zip(filter_sizes, n_filters)):
        name = f"conv.{i}" if len(filter_sizes) > 1 else "conv"
        parameters[f"{name}.weight"] = rng.standard_normal((n, channels, f, f)) / f
        parameters[f"{name}.bias"] = rng.standard_normal(n)
        n_inputs += n * (height // f) * (width // f)
    names = ["hidden"] if len(n_hidden) == 1 else [f"hidden.{i}" for i in range(len(n_hidden))]
    for name, n in [*zip(names, n_hidden), ("output", n_classes)]:
        parameters[f"{name}.weight"] = rng.standard_normal((n, n_inputs)) / np.sqrt(n_inputs)
        parameters[f"{name}.bias"] = rng.standard_normal(n)
        n_inputs = n
    return parameters


NETWORKS = [
    {},
    {"filter_sizes": (2,), "n_filters": (1,), "n_hidden": (5,), "n_classes": 2},
    {"filter_sizes": (2, 8, 4), "n_filters": (3, 2, 5), "n_hidden": (7, 6)},
    {"image_shape": (1, 4, 12), "n_hidden": (4, 3, 5)},
]


def finite_differences(function, array, step=1e-6):
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = function()
        array[index] = value - step
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


@pytest.mark.parametrize("shape, f, n_filters", [((3, 3, 8, 8), 4, 5), ((1, 1, 6, 9), 3, 1), ((2, 2, 4, 6), 1, 3)])
def test_three_convolutions_agree(rng, shape, f, n_filters):
    images = rng.standard_normal(shape)
    weight, bias = rng.standard_normal((n_filters, shape[1], f, f)), rng.standard_normal(n_filters)
    slow = reference.convolve_loops(images, weight, bias)
    np.testing.assert_allclose(reference.convolve_matmul(images, weight, bias), slow, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(reference.convolve_einsum(images, weight, bias), slow, rtol=1e-12, atol=1e-12)


@pytest.mark.optional
def test_convolution_agrees_with_pytorch(rng):
    torch = pytest.importorskip("torch")
    images, weight = rng.standard_normal((2, 3, 8, 12)), rng.standard_normal((5, 3, 4, 4))
    bias = rng.standard_normal(5)
    expected = torch.nn.functional.conv2d(*map(torch.tensor, (images, weight, bias)), stride=4)
    np.testing.assert_allclose(reference.convolve_loops(images, weight, bias), expected, rtol=1e-12, atol=1e-12)


def test_im2col_follows_its_definition(rng):
    images, f = rng.standard_normal((2, 3, 4, 6)), 2
    patches = reference.im2col(images, f)
    for n, c, y, x in np.ndindex(images.shape):
        row = (c * f + y % f) * f + x % f
        assert patches[n, row, (y // f) * (6 // f) + x // f] == images[n, c, y, x]
    assert np.array_equal(reference.col2im(patches, (3, 4, 6), f), images)


def test_layer_gradients_by_finite_differences(rng, assert_close):
    patches, weight, bias = (
        rng.standard_normal((3, 4, 5)),
        rng.standard_normal((2, 4)),
        rng.standard_normal(2),
    )
    d = rng.standard_normal((3, 2, 5))
    d_weight, d_bias = reference.patch_matmul_backward(
        d, patches, reference.patch_matmul_forward(patches, weight, bias)
    )

    def convolution():
        return np.sum(d * reference.patch_matmul_forward(patches, weight, bias))

    assert_close(d_weight, finite_differences(convolution, weight), 1e-7)
    assert_close(d_bias, finite_differences(convolution, bias), 1e-7)

    inputs, weight, bias = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5)
    d = rng.standard_normal((3, 5))
    for relu in (True, False):

        def dense(relu=relu):
            return np.sum(d * reference.dense_forward(inputs, weight, bias, relu))

        outputs = reference.dense_forward(inputs, weight, bias) if relu else None
        gradients = reference.dense_backward(d, inputs, weight, outputs)
        for gradient, array in zip(gradients, (inputs, weight, bias)):
            assert_close(gradient, finite_differences(dense, array), 1e-7)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("settings", NETWORKS)
def test_network_gradients_by_finite_differences(rng, assert_close, settings, soft, label_smoothing):
    parameters = random_parameters(rng, **settings)
    X = rng.standard_normal((3, *settings.get("image_shape", (3, 8, 8))))
    n_classes = settings.get("n_classes", 10)
    labels = rng.dirichlet(np.ones(n_classes), 3) if soft else rng.integers(0, n_classes, 3)
    kept = reference.dropout_factors(parameters, 3, 0.3, seed=1, step=2)

    def cost():
        return reference.loss_and_gradients(parameters, X, labels, 0.01, label_smoothing, kept)[0]

    _, gradients = reference.loss_and_gradients(parameters, X, labels, 0.01, label_smoothing, kept)
    assert list(gradients) == list(parameters)
    for name, array in parameters.items():
        assert_close(gradients[name], finite_differences(cost, array), 1e-6)


def test_dtype_is_kept(rng, dtype):
    parameters = {name: a.astype(dtype) for name, a in random_parameters(rng).items()}
    X = rng.standard_normal((4, 3, 8, 8)).astype(dtype)
    assert {a.dtype for a in reference.forward(parameters, X).values()} == {np.dtype(dtype)}
    kept = reference.dropout_factors(parameters, 4, 0.5, seed=0, step=0)
    cost, gradients = reference.loss_and_gradients(parameters, X, np.array([1, 2, 3, 4]), 0.1, 0.1, kept)
    assert type(cost) is float
    assert {a.dtype for a in gradients.values()} == {np.dtype(dtype)}


def test_cross_entropy_agrees_with_closed_forms():
    labels = np.array([0, 3])
    _, losses = reference.softmax_cross_entropy_forward(np.zeros((2, 10)), labels, 0.3)
    np.testing.assert_allclose(losses, np.log(10))
    # Logits (a, 0, …, 0): the loss against the smoothed target is log(e^a + 9) − (1 − ε) a.
    logits = np.zeros((1, 10))
    logits[0, 0] = 2.0
    _, losses = reference.softmax_cross_entropy_forward(logits, labels[:1], 0.1)
    np.testing.assert_allclose(losses, np.log(np.exp(2) + 9) - 0.9 * 2)
    # A target given as probabilities, or as an index, is the same target.
    one_hot = np.eye(10)[labels]
    logits = np.arange(20.0).reshape(2, 10)
    for by_index, by_probability in zip(
        reference.softmax_cross_entropy_forward(logits, labels, 0.1),
        reference.softmax_cross_entropy_forward(logits, one_hot, 0.1),
    ):
        assert np.array_equal(by_index, by_probability)


def test_softmax_survives_large_logits():
    logits = np.array([[1e4, 0.0, -1e4]], dtype=np.float32)
    probabilities, losses = reference.softmax_cross_entropy_forward(logits, np.array([2]))
    assert np.array_equal(probabilities, [[1, 0, 0]]) and losses[0] == 2e4


def test_sum_of_squares_is_summed_in_float64():
    assert reference.sum_of_squares(np.full(10**6, 1e-2, dtype=np.float32)) == pytest.approx(100, rel=1e-7)


def test_shuffled_order_is_uniform_and_depends_on_seed_and_epoch():
    assert reference.shuffled_order(0, 0, 0).shape == (0,)
    order = reference.shuffled_order(1000, seed=5, epoch=2)
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, reference.shuffled_order(1000, seed=5, epoch=2))
    assert not np.array_equal(order, reference.shuffled_order(1000, seed=5, epoch=3))
    assert not np.array_equal(order, reference.shuffled_order(1000, seed=6, epoch=2))
    # All 24 orders of four images come about equally often: χ² with 23 degrees of freedom, p ≈ 1e-4 at 54.
    orders, counts = np.unique([reference.shuffled_order(4, 0, e) for e in range(2400)], axis=0, return_counts=True)
    assert len(orders) == 24 and np.sum((counts - 100) ** 2 / 100) < 54


@pytest.mark.parametrize("flip, shift, cutout", [(True, 0, 0), (False, 3, 0), (False, 0, 5), (True, 2, 4)])
def test_augmentation_follows_its_definition(rng, flip, shift, cutout):
    images = rng.integers(0, 256, (40, 2, 8, 12), dtype=np.uint8)
    scale, offset = rng.uniform(0.5, 1.5, (2, 8, 12)), rng.standard_normal((2, 8, 12))
    augmentation = SimpleNamespace(flip=flip, shift=shift, cutout=cutout)
    order = rng.permutation(40)
    patches = reference.gather_batch(images, order, 4, scale, offset, augmentation, seed=3, epoch=9)
    batch = reference.col2im(patches, (2, 8, 12), 4)

    for image, index in zip(batch, order):
        bits = int(randomness.random_bits(3, randomness.AUGMENTATION, 9, index))
        dy = (((bits >> 1) & 0xFFFF) * (2 * shift + 1) >> 16) - shift
        dx = (((bits >> 17) & 0xFFFF) * (2 * shift + 1) >> 16) - shift
        y0 = (((bits >> 33) & 0x7FFF) * 8 >> 15) - cutout // 2
        x0 = (((bits >> 48) & 0x7FFF) * 12 >> 15) - cutout // 2
        for c, y, x in np.ndindex(2, 8, 12):
            source_y, source_x = y + dy, (11 - x if flip and bits & 1 else x) + dx
            inside = 0 <= source_y < 8 and 0 <= source_x < 12
            cut = y0 <= y < y0 + cutout and x0 <= x < x0 + cutout
            at = (c, source_y, source_x)
            expected = images[index][at] * scale[at] + offset[at] if inside and not cut else 0.0
            assert image[c, y, x] == pytest.approx(expected, rel=1e-14)


def test_augmentation_varies_and_does_nothing_when_off(rng):
    images = rng.integers(1, 256, (200, 1, 8, 8), dtype=np.uint8)
    one, zero, order = np.ones((1, 8, 8)), np.zeros((1, 8, 8)), np.arange(200)
    plain = reference.gather_batch(images, order, 8, one, zero)
    off = SimpleNamespace(flip=False, shift=0, cutout=0)
    assert np.array_equal(reference.gather_batch(images, order, 8, one, zero, off), plain)
    mirrored = reference.gather_batch(images, order, 8, one, zero, SimpleNamespace(flip=True, shift=0, cutout=0))
    assert 60 < np.count_nonzero(np.any(mirrored != plain, axis=(1, 2))) < 140
    on = SimpleNamespace(flip=True, shift=2, cutout=3)
    first, second = (reference.gather_batch(images, order, 8, one, zero, on, epoch=e) for e in (0, 1))
    assert not np.array_equal(first, second)


def test_dropout_has_the_given_rate_and_depends_on_seed_and_step(rng):
    parameters = random_parameters(rng, n_hidden=(31, 30))
    factors = reference.dropout_factors(parameters, 1000, 0.2, seed=4, step=10)
    for values in factors.values():
        assert np.array_equal(np.unique(values), [0.0, 1.25])
        assert np.mean(values == 0) == pytest.approx(0.2, abs=0.01)
    assert not np.array_equal(factors["hidden.0"][:, :30], factors["hidden.1"])
    fewer = reference.dropout_factors(parameters, 10, 0.2, seed=4, step=10)
    assert np.array_equal(fewer["hidden.0"], factors["hidden.0"][:10])
    other = reference.dropout_factors(parameters, 1000, 0.2, seed=4, step=11)
    assert not np.array_equal(other["hidden.0"], factors["hidden.0"])


@pytest.mark.optional
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_agrees_with_pytorchs_sgd(rng, assert_close, momentum):
    torch = pytest.importorskip("torch")
    parameters = random_parameters(rng)
    images, labels = rng.standard_normal((30, 3, 8, 8)), rng.integers(0, 10, 30)
    order, rates, l2 = rng.integers(0, 30, 70), np.linspace(0.01, 0.1, 10), 0.003
    tensors = {name: torch.tensor(values, requires_grad=True) for name, values in parameters.items()}
    groups = [
        {"params": [tensors[n] for n in tensors if n.endswith("weight")], "weight_decay": 2 * l2},
        {"params": [tensors[n] for n in tensors if n.endswith("bias")], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=0.0, momentum=momentum)
    F = torch.nn.functional
    for i, rate in enumerate(rates):
        batch = order[i * 7 : (i + 1) * 7]
        x = F.conv2d(torch.tensor(images[batch]), tensors["conv.weight"], tensors["conv.bias"], stride=4)
        x = F.linear(torch.flatten(F.relu(x), 1), tensors["hidden.weight"], tensors["hidden.bias"])
        logits = F.linear(F.relu(x), tensors["output.weight"], tensors["output.bias"])
        optimiser.zero_grad()
        F.cross_entropy(logits, torch.tensor(labels[batch])).backward()
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    reference.train_steps(parameters, images, labels, order, rates, 7, l2, momentum=momentum)
    assert_close(parameters, {name: t.detach().numpy() for name, t in tensors.items()}, 1e-13)


def test_training_may_be_split_over_two_calls(rng):
    settings = dict(batch_size=4, l2=0.01, momentum=0.9, dropout=0.3, seed=2, label_smoothing=0.1)
    settings["augmentation"] = SimpleNamespace(flip=True, shift=1, cutout=2)
    images, labels = rng.integers(0, 256, (12, 3, 8, 8), dtype=np.uint8), rng.integers(0, 10, 12)
    settings["scale"], settings["offset"] = np.full((3, 8, 8), 1 / 128), np.full((3, 8, 8), -1.0)
    order, rates = rng.integers(0, 12, 32), np.full(8, 0.1)
    once = random_parameters(rng)
    twice = {name: values.copy() for name, values in once.items()}
    costs = reference.train_steps(once, images, labels, order, rates, **settings)
    settings["state"] = {}
    first = reference.train_steps(twice, images, labels, order[:20], rates[:5], **settings)
    second = reference.train_steps(twice, images, labels, order[20:], rates[5:], first_step=5, **settings)
    assert np.array_equal(np.concatenate([first, second]), costs)
    assert all(np.array_equal(once[name], twice[name]) for name in once)
