"""Every public function with hostile arguments: it refuses them in one sentence or computes the right result.

Hypothesis draws the arguments. What is accepted must give the result of plain NumPy on plain copies of them. A crash
or a hang ends the test run. CYCONV_EXAMPLES sets how many examples each function gets, which are then drawn at random.
"""

import contextlib
import faulthandler
import inspect
import io
import math
import os
import re
import sys
import time
import warnings

import numpy as np
import pytest

import cyconv
from cyconv import _checks, experiments, reference
from cyconv.backend import dispatch, ops
from cyconv.ensemble import Ensemble
from cyconv.experiments import course_layout, search
from cyconv.lr_range import lr_range_test

pytest.importorskip("hypothesis")

from hostile_arguments import bits, hostile, nearby, plain
from hypothesis import HealthCheck, given, settings
from kernel_arguments import NAMES, draw_arguments

EXAMPLES = int(os.environ.get("CYCONV_EXAMPLES", "0"))
REFUSALS = (TypeError, ValueError, MemoryError)
TOLERANCE = 5e-5  # single precision; other tests check how exact the kernels are
SECONDS = 20  # of processor time for one call
IMAGE_SHAPE = (3, 8, 8)


def hostile_settings(name):
    """More examples for functions whose arguments reach the kernels."""
    examples = EXAMPLES or (150 if name.startswith(("ops", "Network.")) else 60)
    return settings(
        max_examples=examples,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope="module")
def small_memory_and_own_folder(tmp_path_factory):
    """The same memory limit on every machine, one thread, and a working folder for what is written."""
    n_threads = cyconv.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:  # more gain nothing on calls so small, and wait on a busy machine
        cyconv.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        patch.setattr(_checks, "available_memory", lambda: 2**27)
        yield
    cyconv.set_num_threads(n_threads)


# Entry points ------------------------------------------------------------------

ENTRY_POINTS = {}


class EntryPoint:
    """A public function, what draws valid arguments for it, and the result that plain copies of them must give.

    A sentence that refuses arguments names one of them, or one of ``words``. ``changes`` is the argument that the
    function changes in place. ``rounded`` is the size of rounded values of which results are differences.
    """

    def __init__(self, name, function, valid, expected=None, words=(), refusals=(), changes=None, rounded=1e-30):
        self.name, self.function, self.valid, self.expected = name, function, valid, expected
        self.words, self.refusals, self.changes, self.rounded = words, refusals, changes, rounded
        ENTRY_POINTS[name] = self

    def check(self, arguments):
        """Call the function; whether it accepted the arguments."""
        before = bits({name: value for name, value in arguments.items() if name != self.changes})
        changed = arguments.get(self.changes)
        changed = {self.changes: changed.copy()} if isinstance(changed, np.ndarray) and changed.nbytes < 10**7 else {}
        started = time.process_time()
        faulthandler.dump_traceback_later(30 * SECONDS, exit=True, file=sys.__stderr__)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                actual = self.function(**arguments)
        except (*REFUSALS, *self.refusals) as error:
            self.check_sentence(error, arguments)
            actual = error
        finally:
            faulthandler.cancel_dump_traceback_later()
        assert time.process_time() - started < SECONDS
        assert bits({name: arguments[name] for name in before}) == before, "an argument was changed"
        if isinstance(actual, BaseException):
            return False
        assert not any(isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value) for value in arguments.values())
        if self.expected:
            with np.errstate(all="ignore"):
                valid = {name: plain(value) for name, value in {**arguments, **changed}.items()}
                assert_same(actual, self.expected(**valid), self.rounded)
        return True

    def check_sentence(self, error, arguments):
        """The error is one line that names one of the arguments."""
        sentence = str(error)
        for value in arguments.values():
            if isinstance(value, str) and len(value) > 100:
                sentence = sentence.replace(value, "PATH")
        names = "|".join(map(re.escape, (*arguments, *self.words)))
        assert re.search(rf"(^|\W)({names})(\W|$)", sentence), f"{type(error).__name__}: {sentence}"
        assert "\n" not in sentence and 10 < len(sentence) < 700, sentence


def assert_same(actual, expected, rounded, place="result"):
    """Compare nested results, numbers up to rounding; what is not expected to be finite must not be."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected), place
        for name in expected:
            assert_same(actual[name], expected[name], rounded, f"{place}[{name!r}]")
    elif isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected), place
        for i, (a, e) in enumerate(zip(actual, expected)):
            assert_same(a, e, rounded, f"{place}[{i}]")
    elif isinstance(expected, (np.ndarray, float)):
        assert np.shape(actual) == np.shape(expected), f"{place} has shape {np.shape(actual)}, not {np.shape(expected)}"
        assert_close(np.asarray(actual), np.asarray(expected), rounded, place)
    else:
        assert actual == expected, f"{place} is {actual!r}, not {expected!r}"


def assert_close(actual, expected, rounded, place):
    if actual.dtype.kind != "f":
        assert np.array_equal(actual, expected), place
        return
    ordinary = np.isfinite(expected) & (np.abs(expected) < 1e30)
    assert not np.isfinite(actual[np.isnan(expected)]).any(), f"{place} is finite where it cannot be"
    scale = np.abs(expected[ordinary]).max(initial=rounded)
    wrong = np.abs(actual[ordinary] - expected[ordinary]) > TOLERANCE * scale
    if not ordinary.all():  # sums of enormous numbers may cancel to anything
        wrong &= np.isfinite(actual[ordinary]) & (scale < 1e3)
    assert not wrong.any(), f"{place} differs: {actual[ordinary][wrong][:3]}, not {expected[ordinary][wrong][:3]}"


# cyconv.backend.ops --------------------------------------------------------------------


def kernel_arguments(name):
    names = list(inspect.signature(getattr(ops, name)).parameters)

    def valid(rng):
        dtype = str(rng.choice(["float32", "float64"]))
        return dict(zip(names, draw_arguments(name, rng, dtype)))

    return valid


def in_double(function):
    """The reference function in double precision, whatever its arguments are."""

    def call(**arguments):
        floats = {
            name: each.astype(np.float64)  # which np.float64 makes a scalar of in NumPy 1.26, if there is one element
            for name, each in arguments.items()
            if isinstance(each, np.ndarray) and each.dtype.kind == "f"
        }
        return function(**arguments | floats)

    return call


def updated(function):
    def sgd_update(weight, gradient, learning_rate, l2):
        function(weight, gradient, learning_rate, l2)
        return np.array(weight)

    return sgd_update


def selecting(function, gradient, activations):
    """Where a unit is inactive, no gradient passes, not even NaN or infinity."""

    def call(**arguments):
        if arguments[activations] is not None:
            arguments[gradient] = np.where(arguments[activations] > 0, arguments[gradient], 0)
        return function(**arguments)

    return call


def classes_in_order(labels, n):
    """Class indices as a vector, also where they are given as a column, a row or one-hot rows."""
    if np.ndim(labels) == 2 and labels.dtype.kind != "f":
        return labels.reshape(-1) if labels.shape in ((n, 1), (1, n)) else labels.argmax(axis=1)
    return labels


def with_vectors(function):
    def call(targets, **arguments):
        return function(targets=classes_in_order(targets, len(next(iter(arguments.values())))), **arguments)

    return call


def gathered(order, **arguments):
    """The reference function needs at least one image."""
    return reference.gather_batch(order=np.append(order.astype(int), 0), **arguments)[:-1]


def twin_of(name):
    if name == "gather_batch":
        return gathered
    if name == "patch_matmul_backward":
        return selecting(reference.patch_matmul_backward, "d_activations", "activations")
    if name == "dense_backward":
        return selecting(reference.dense_backward, "d_outputs", "outputs")
    if name == "sgd_update":
        return updated(reference.sgd_update)
    if name.startswith("softmax_cross_entropy"):
        return with_vectors(getattr(reference, name))
    if name == "col2im":
        return lambda patches, image_shape, filter_size: reference.col2im(patches, map(int, image_shape), filter_size)
    return getattr(reference, name)


for name in NAMES:
    EntryPoint(
        f"ops.{name}",
        updated(ops.sgd_update) if name == "sgd_update" else getattr(ops, name),
        kernel_arguments(name),
        in_double(twin_of(name)),
        changes="weight" if name == "sgd_update" else None,
        rounded=0.01 if name == "softmax_cross_entropy_backward" else 1e-30,
    )


def measured(dtype, seconds):
    long = type(seconds) in (int, float) and 0.01 < seconds <= 60
    return type(dispatch.measure_peak_flops(dtype, 0.01 if long else seconds))


EntryPoint(
    "dispatch.measure_peak_flops",
    measured,
    lambda rng: {"dtype": "float32", "seconds": 0.001},
    lambda dtype, seconds: float,
)


# Network -----------------------------------------------------------------------


def architecture(rng):
    several = rng.random() < 0.3
    return {
        "filter_size": (2, 8) if several else int(rng.choice([1, 2, 4, 8])),
        "n_filters": (3, 2) if several else 3,
        "n_hidden": (5, 4) if rng.random() < 0.3 else 5,
        "seed": int(rng.integers(2**63)),
        "dtype": str(rng.choice(["float32", "float64"])),
        "image_shape": IMAGE_SHAPE,
        "n_classes": 4,
    }


def network_of(rng, **changes):
    return cyconv.Network(**{**architecture(rng), **changes})


def images_of(rng, n=7):
    return rng.standard_normal((n, *IMAGE_SHAPE)).astype(rng.choice(["float32", "float64"]))


def pixels_of(rng, n=9):
    return rng.integers(0, 256, (n, *IMAGE_SHAPE), dtype=np.uint8)


def double_parameters(network):
    return {name: values.astype(np.float64) for name, values in network.parameters.items()}


def unchanged(network, call):
    """The result of the call, which must not change the network's parameters."""
    before = bits(network.parameters)
    try:
        return call()
    finally:
        assert bits(network.parameters) == before, "parameters were changed"


NETWORKS = [network_of(np.random.default_rng(seed)) for seed in range(6)]
NORMALIZER = cyconv.Normalizer.fit(pixels_of(np.random.default_rng(0)))


def any_network(rng):
    """A network that is not itself an argument, so that Hypothesis does not replace it."""
    return NETWORKS[int(rng.integers(len(NETWORKS)))]


def on_network(name, call, valid, expected=None, **options):
    """An entry point for a method: a network is drawn together with the arguments."""
    chosen = []

    def draw(rng):
        chosen[:] = [any_network(rng)]
        return valid(rng, chosen[0])

    EntryPoint(
        f"Network.{name}",
        lambda **arguments: unchanged(chosen[0], lambda: call(chosen[0], **arguments)),
        draw,
        expected and (lambda **arguments: expected(chosen[0], **arguments)),
        **options,
    )


def built(**arguments):
    network = cyconv.Network(**arguments)
    X = np.zeros((1, *network.image_shape), network.dtype)
    assert np.isfinite(network.predict_proba(X)).all()
    return sum(values.size for values in network.parameters.values()) == network.n_parameters


EntryPoint("Network", built, architecture, lambda **arguments: True, words=["a network"])


def reference_probabilities(network, X):
    return reference.forward(double_parameters(network), X.astype(np.float64))["probabilities"]


def reference_cost(network, X, labels, l2=0.0, label_smoothing=0.0):
    targets = classes_in_order(labels, len(X))
    return reference.loss_and_gradients(
        double_parameters(network), X.astype(np.float64), targets, float(l2), float(label_smoothing)
    )


def targets_of(rng, n, n_classes):
    if rng.random() < 0.5:
        return {"labels": rng.integers(0, n_classes, n), "label_smoothing": 0.1}
    return {"labels": rng.dirichlet(np.ones(n_classes), n), "label_smoothing": 0.0}


def predicted(network, X):
    probabilities = network.predict_proba(X)
    assert np.array_equal(network.predict(X), probabilities.argmax(axis=1))
    return probabilities


def probabilities_of_forward(network, X):
    return network.forward(X)["probabilities"]


def evaluated(network, X, labels, l2):
    return tuple(network.evaluate(X, labels, l2)[:2])


def expected_evaluation(network, X, labels, l2):
    return (reference_cost(network, X, labels)[0], reference_cost(network, X, labels, l2)[0])


on_network("predict_proba", predicted, lambda rng, network: {"X": images_of(rng)}, reference_probabilities)
on_network("forward", probabilities_of_forward, lambda rng, network: {"X": images_of(rng)}, reference_probabilities)
on_network(
    "evaluate",
    evaluated,
    lambda rng, network: {"X": images_of(rng), "labels": rng.integers(0, 4, 7), "l2": 0.01},
    expected_evaluation,
)
on_network(
    "loss_and_gradients",
    cyconv.Network.loss_and_gradients,
    lambda rng, network: {"X": images_of(rng), "l2": 0.01, **targets_of(rng, 7, 4)},
    reference_cost,
)


def round_trip(method, attribute):
    def call(network, mapping):
        twin = network.copy()
        getattr(twin, method)(mapping)
        return dict(getattr(twin, attribute) or {})

    return call


def random_parameters(rng, network):
    dtype = str(rng.choice(["float32", "float64"]))
    parameters = network.parameters.items()
    return {"mapping": {name: rng.standard_normal(values.shape).astype(dtype) for name, values in parameters}}


def in_dtype(network, mapping):
    return {name: np.asarray(mapping[name]).astype(network.dtype) for name in network.parameters} if mapping else {}


on_network("set_parameters", round_trip("set_parameters", "parameters"), random_parameters, in_dtype)
on_network("set_velocity", round_trip("set_velocity", "velocity"), random_parameters, in_dtype)


def prepared(network, images, labels, normalizer):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "images must be normalised")  # pixels as floats, without a normaliser
        source = network.prepare(images, labels, normalizer)
    return network.predict_proba(source), np.array(source.labels) if source.labels is not None else None


def expected_source(network, images, labels, normalizer):
    X = images if normalizer is None else (images - normalizer.centre) * normalizer.scale + normalizer.offset
    return reference_probabilities(network, X), classes_in_order(labels, len(X))


def to_prepare(rng, network):
    if rng.random() < 0.5:
        return {"images": pixels_of(rng), "labels": rng.integers(0, 4, 9), "normalizer": NORMALIZER}
    return {"images": images_of(rng, 9), "labels": rng.integers(0, 4, 9), "normalizer": None}


on_network("prepare", prepared, to_prepare, expected_source)


def to_train(rng, network):
    batch_size, n_steps, n = int(rng.integers(1, 8)), int(rng.integers(0, 4)), 9
    if rng.random() < 0.5:
        source = network.prepare(pixels_of(rng, n), rng.integers(0, 4, n), NORMALIZER)
    else:
        source = network.prepare(images_of(rng, n), rng.integers(0, 4, n))
    return {
        "source": source,
        "order": rng.integers(0, n, n_steps * batch_size + int(rng.integers(3))),
        "learning_rates": rng.uniform(0, 0.1, n_steps),
        "batch_size": batch_size,
        "l2": 0.01,
        "label_smoothing": 0.1,
        "momentum": float(rng.choice([0.0, 0.9])),
        "dropout": float(rng.choice([0.0, 0.3])),
        "augmentation": cyconv.Augmentation(True, 1, 2) if rng.random() < 0.5 else None,
        "seed": int(rng.integers(2**63)),
        "first_step": int(rng.integers(100)),
        "class_weight": rng.uniform(0.1, 2, network.n_classes) if rng.random() < 0.5 else None,
    }


def trained(network, source, **arguments):
    twin = network.copy()
    try:
        costs = twin.train_steps(source, **arguments)
    except REFUSALS:
        assert bits(twin.parameters) == bits(network.parameters), "parameters were changed"
        raise
    assert np.isfinite(costs).all() or not len(costs) or max(arguments["learning_rates"]) > 0.1 or arguments["l2"] > 1
    return costs[:1]


def expected_training(network, source, learning_rates, class_weight, **arguments):
    pixels, values, *normalization = source.kernel_arguments()
    normalization = dict(
        zip(
            ("scale", "offset", "centre"),
            (None if array is None else array.astype(np.float64) for array in normalization),
        )
    )
    return reference.train_steps(
        double_parameters(network),
        pixels if values is None else values.astype(np.float64),
        source.labels,
        learning_rates=learning_rates[:1],
        class_weight=None if class_weight is None else np.asarray(class_weight, np.float64),
        **normalization,
        **arguments,
    )


on_network("train_steps", trained, to_train, expected_training)


def assigned(network, value):
    twin = network.copy()
    twin.normalizer = value
    return twin.normalizer is value


on_network(
    "normalizer",
    assigned,
    lambda rng, network: {"value": NORMALIZER},
    lambda network, value: True,
    words=["normalizer"],
)


# Ensemble, the range test, the schedule, the trainer ---------------------------

ALIKE = [
    network_of(np.random.default_rng(seed), filter_size=2, n_filters=3, n_hidden=5, dtype="float64")
    for seed in range(3)
]


def voted(networks, X, labels):
    ensemble = Ensemble(networks)
    return ensemble.predict_proba(X), ensemble.evaluate(X, labels).loss


def expected_vote(networks, X, labels):
    mean = sum(reference_probabilities(network, X) for network in networks) / len(networks)
    return mean, float(-np.log(mean[np.arange(len(X)), classes_in_order(labels, len(X))]).mean())


EntryPoint(
    "Ensemble",
    voted,
    lambda rng: {"networks": ALIKE[: int(rng.integers(1, 4))], "X": images_of(rng), "labels": rng.integers(0, 4, 7)},
    expected_vote,
)
EntryPoint(
    "Ensemble.from_snapshots",
    lambda network, snapshots: len(Ensemble.from_snapshots(network, snapshots)),
    lambda rng: {"network": ALIKE[0], "snapshots": [network.parameters for network in ALIKE]},
    lambda network, snapshots: len(snapshots),
    words=["mapping"],
)
EntryPoint(
    "lr_range_test",
    lambda **arguments: len(lr_range_test(**arguments).costs) > 0,
    lambda rng: {
        "network": ALIKE[0],
        "source": cyconv.Split(pixels_of(rng, 20), rng.integers(0, 4, 20)),
        "eta_low": 1e-4,
        "eta_high": 0.1,
        "n_steps": 20,
        "batch_size": 4,
        "l2": 0.01,
        "seed": 3,
    },
    lambda **arguments: True,
    words=["labels", "X", "images"],
)


def schedule_arguments(rng):
    return {
        "eta_min": 1e-3,
        "eta_max": 0.1,
        "step_size": int(rng.integers(1, 9)),
        "n_cycles": int(rng.integers(1, 5)),
        "growth": float(rng.choice([0.5, 1, 2])),
        "eta_max_decay": float(rng.choice([1.0, 0.7])),
        "step": rng.integers(0, 2, 5),
    }


def rates(step, **arguments):
    return cyconv.CyclicSchedule(**arguments)(step)


def expected_rates(eta_min, eta_max, step_size, n_cycles, growth, eta_max_decay, step):
    def rate(t):
        start = 0
        for cycle in range(n_cycles):
            half = max(1, round(step_size * float(growth) ** cycle))
            if t <= start + 2 * half:
                top = eta_max * eta_max_decay**cycle
                return eta_min + (top - eta_min) * min(t - start, start + 2 * half - t) / half
            start += 2 * half
        raise AssertionError(f"step {t} was accepted")

    values = np.array([rate(int(t)) for t in np.ravel(step)], np.float64).reshape(np.shape(step))
    return values if np.ndim(step) else float(values)


EntryPoint("CyclicSchedule", rates, schedule_arguments, expected_rates)

SCHEDULE = cyconv.CyclicSchedule(1e-3, 0.05, 2, 1)


def trainer_arguments(rng):
    return {
        "network": None,
        "schedule": SCHEDULE,
        "batch_size": 4,
        "l2": 0.01,
        "label_smoothing": 0.1,
        "seed": int(rng.integers(2**63)),
        "momentum": 0.5,
        "dropout": 0.1,
        "augmentation": cyconv.Augmentation(flip=True),
        "snapshots": bool(rng.integers(2)),
        "train": cyconv.Split(pixels_of(rng, 12), rng.integers(0, 4, 12)),
        "validation": cyconv.Split(pixels_of(rng, 5), rng.integers(0, 4, 5)),
        "log_every": 3,
        "checkpoint": None,
        "checkpoint_every": None,
        "progress": False,
        "n_train_evaluated": None,
    }


def fitted(
    network, train, validation, log_every, checkpoint, checkpoint_every, progress, n_train_evaluated, **arguments
):
    network = ALIKE[1].copy() if network is None else network
    trainer = cyconv.CyclicTrainer(network, **arguments)
    with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
        history = trainer.fit(train, validation, log_every, checkpoint, checkpoint_every, progress, n_train_evaluated)
    return bool(history.complete and np.isfinite(history["cost_val"]).all())


EntryPoint(
    "CyclicTrainer",
    fitted,
    trainer_arguments,
    lambda **arguments: True,
    words=["labels", "name too long", "training diverged"],
    refusals=[cyconv.DivergenceError, OSError],
)


# Data --------------------------------------------------------------------------

EntryPoint(
    "Normalizer",
    lambda mean, std, images: cyconv.Normalizer(mean, std)(images),
    lambda rng: {
        "mean": rng.uniform(0, 255, IMAGE_SHAPE),
        "std": rng.uniform(1, 90, IMAGE_SHAPE),
        "images": pixels_of(rng),
    },
    lambda mean, std, images: (images - mean.astype(float)) / std,
)
EntryPoint(
    "Normalizer.fit",
    lambda images: (cyconv.Normalizer.fit(images).mean, cyconv.Normalizer.fit(images).std),
    lambda rng: {"images": pixels_of(rng)},
    lambda images: (images.mean(axis=0), np.where(images.std(axis=0) > 0, images.std(axis=0), 1.0)),
)


def splits(images, labels):
    split = cyconv.Split(images, labels)
    assert re.fullmatch("[0-9a-f]{64}", split.fingerprint()) and len(split) == len(split.images) == len(split.labels)
    return split.images, split.labels


EntryPoint(
    "Split",
    splits,
    lambda rng: {"images": pixels_of(rng), "labels": rng.integers(0, 4, 9)},
    lambda images, labels: (images, classes_in_order(labels, len(images))),
)


def data_set(**arguments):
    data = cyconv.Dataset(**arguments)
    return len(data.class_names) > max(split.labels.max() for split in (data.train, data.validation, data.test))


EntryPoint(
    "Dataset",
    data_set,
    lambda rng: {
        **{name: cyconv.Split(pixels_of(rng, 3), [0, 1, 2]) for name in ("train", "validation", "test")},
        "class_names": ("a", "b", "c"),
        "name": "three",
    },
    lambda **arguments: True,
)
EntryPoint(
    "make_shapes",
    lambda **arguments: len(cyconv.make_shapes(**arguments).train),
    lambda rng: {"n_train": 2, "n_validation": 1, "n_test": 1, "seed": int(rng.integers(100))},
    lambda n_train, **others: int(n_train),
)
EntryPoint(
    "Augmentation",
    lambda **arguments: vars(cyconv.Augmentation(**arguments)),
    lambda rng: {"flip": True, "shift": 3, "cutout": 4},
    lambda **arguments: {name: value if name == "flip" else int(value) for name, value in arguments.items()},
)


@pytest.fixture(scope="module", autouse=True)
def few_images(tmp_path_factory):
    """A folder with small files in the formats of CIFAR-10 and CIFAR-100, and an ``.npz``."""
    folder, rng = tmp_path_factory.mktemp("few"), np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (3, 3073), dtype=np.uint8)
        records[:, 0] = [0, 5, 9]
        (folder / name).write_bytes(records.tobytes())
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(bytes(3 * 3074))
    np.savez(folder / "few.npz", images=np.zeros((9, 4, 4), np.uint8), labels=np.arange(9) % 2)
    few_images.folder = folder


def loaded(folder, load=cyconv.load_cifar10, file=".", **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # these are not the original files
        few = isinstance(folder, str) and folder == "few"
        data = load(few_images.folder / file if few else folder, **arguments)
    return len(data.train) + len(data.validation)


def expected_length(folder, train_batches, validation_size, validation_batches):
    return 3 * (len(train_batches) + (0 if validation_batches is None else len(validation_batches)))


def batches(rng):
    chosen = {"folder": "few", "train_batches": [1, 3], "validation_size": 2, "validation_batches": None}
    return chosen if rng.random() < 0.5 else {**chosen, "validation_size": None, "validation_batches": [4]}


EntryPoint("load_cifar10", loaded, batches, expected_length, refusals=[OSError])
EntryPoint(
    "load_cifar100",
    lambda folder, **arguments: loaded(folder, cyconv.load_cifar100, **arguments),
    lambda rng: {"folder": "few", "labels": str(rng.choice(["fine", "coarse"])), "validation_size": 2},
    lambda **arguments: 3,
    refusals=[OSError],
)
EntryPoint(
    "load_npz",
    lambda path, validation_size: loaded(path, cyconv.load_npz, "few.npz", validation_size=validation_size),
    lambda rng: {"path": "few", "validation_size": 2},
    lambda **arguments: 8,
    refusals=[OSError],
)
EntryPoint(
    "find_cifar100",
    lambda data: cyconv.find_cifar100(data) is not None if data is not None else True,
    lambda rng: {"data": few_images.folder},
    lambda data: True,
    refusals=[OSError],
)
EntryPoint(
    "find_cifar10",
    lambda data: cyconv.find_cifar10(data) is not None if data is not None else True,
    lambda rng: {"data": few_images.folder},
    lambda data: True,
    refusals=[OSError],
)


# History, threads, files -------------------------------------------------------


def logged(**arguments):
    history = cyconv.History()
    history.append(**arguments)
    return history["loss_train"][0], history["acc_val"][0]


EntryPoint(
    "History.append",
    logged,
    lambda rng: {"step": 3, "learning_rate": 0.1, "train": (2.3, 2.4, 0.1), "validation": [2.5, 2.6, 0.2]},
    lambda step, learning_rate, train, validation: (float(train[0]), float(validation[2])),
    words=[f"{what}_{which}" for what in ("loss", "cost", "acc") for which in ("train", "val")],
)


def curves(rng):
    history = cyconv.History()
    for step in range(3):
        history.append(step, 0.1, (2.3, 2.4, 0.1), (2.5, 2.6, 0.2))
    return {"header": history.header(), "curves": {key: history[key] for key in list(history.keys())[:8]}}


EntryPoint(
    "History.from_arrays",
    lambda header, curves: cyconv.History.from_arrays(header, curves).n_points,
    curves,
    lambda header, curves: len(curves["acc_val"]),
    words=["a history", "step", *cyconv.history.CURVES, *cyconv.history.TIMES, "complete", "learning_rate"],
)
EntryPoint("History[]", lambda key: cyconv.History()[key], lambda rng: {"key": "acc_val"}, refusals=[KeyError])


def threads_set(n):
    before = cyconv.get_num_threads()
    try:
        cyconv.set_num_threads(n)
        return cyconv.get_num_threads()
    finally:
        cyconv.set_num_threads(before)


EntryPoint("set_num_threads", threads_set, lambda rng: {"n": int(rng.integers(1, 9))}, lambda n: int(n))

for name, save in {
    "Network.save": ALIKE[0].save,
    "History.save": cyconv.History().save,
    "History.to_csv": cyconv.History().to_csv,
}.items():
    EntryPoint(
        name, save, lambda rng: {"path": "nowhere/at/all"}, words=["folder of", "name too long"], refusals=[OSError]
    )
for name, load in {
    "Network.load": cyconv.Network.load,
    "History.load": cyconv.History.load,
    "CyclicTrainer.resume": cyconv.CyclicTrainer.resume,
    "Result.load": experiments.Result.load,
    "course_layout.read_debug_file": course_layout.read_debug_file,
}.items():
    EntryPoint(name, load, lambda rng: {"path": "nowhere/at/all"}, words=["name too long"], refusals=[OSError])


# Layouts of the course, experiments, searches ----------------------------------


EntryPoint(
    "images_from_columns",
    course_layout.images_from_columns,
    lambda rng: {"columns": rng.standard_normal((192, 4)), "image_shape": IMAGE_SHAPE},
    lambda columns, image_shape: columns.T.reshape(-1, *(int(n) for n in image_shape)),
)
EntryPoint(
    "images_to_columns",
    course_layout.images_to_columns,
    lambda rng: {"images": images_of(rng)},
    lambda images: images.reshape(len(images), math.prod(images.shape[1:])).T,
)
EntryPoint(
    "filters_from_course",
    course_layout.filters_from_course,
    lambda rng: {"filters": rng.standard_normal((4, 4, 3, 5))},
    lambda filters: filters.transpose(3, 2, 0, 1),
)
EntryPoint(
    "filters_from_flat",
    course_layout.filters_from_flat,
    lambda rng: {"filters": rng.standard_normal((48, 5)), "channels": 3},
    lambda filters, channels: filters.reshape(4, 4, 3, -1).transpose(3, 2, 0, 1),
    words=["Fs_flat"],
)
EntryPoint(
    "filters_to_course",
    course_layout.filters_to_course,
    lambda rng: {"weight": rng.standard_normal((5, 3, 4, 4))},
    lambda weight: weight.transpose(2, 3, 1, 0),
)
EntryPoint(
    "maps_to_course",
    course_layout.maps_to_course,
    lambda rng: {"maps": rng.standard_normal((5, 2, 4, 3))},
    lambda maps: maps.transpose(2, 3, 1, 0),
)
EntryPoint(
    "patches_to_course",
    course_layout.patches_to_course,
    lambda rng: {"patches": rng.standard_normal((4, 12, 5)), "channels": int(rng.choice([1, 3]))},
    lambda patches, channels: (
        patches.reshape(len(patches), channels, patches.shape[1] // channels, patches.shape[2])
        .transpose(3, 2, 1, 0)
        .reshape(patches.shape[2], patches.shape[1], len(patches))
    ),
)
EntryPoint(
    "hidden_from_course",
    course_layout.hidden_from_course,
    lambda rng: {"weight": rng.standard_normal((5, 12)), "n_filters": 3},
    lambda weight, n_filters: np.stack([weight[:, i::n_filters] for i in range(n_filters)], 1).reshape(weight.shape),
)
EntryPoint(
    "hidden_to_course",
    course_layout.hidden_to_course,
    lambda rng: {"weight": rng.standard_normal((5, 12)), "n_filters": 3},
    lambda weight, n_filters: (
        weight.reshape(len(weight), n_filters, weight.shape[1] // n_filters).transpose(0, 2, 1).reshape(weight.shape)
    ),
)


def course_arrays(rng):
    shapes = {"Fs": (4, 4, 3, 2), "Fs_b": (2, 1), "W1": (5, 8), "b1": (5, 1), "W2": (4, 5), "b2": (4,)}
    return {"arrays": {name: rng.standard_normal(shape) for name, shape in shapes.items()}}


EntryPoint(
    "parameters_from_course",
    lambda arrays: course_layout.parameters_from_course(arrays)["output.weight"],
    course_arrays,
    lambda arrays: arrays["W2"],
    refusals=[KeyError],
    words=["Fs", "Fs_b", "W1", "W2", "b1", "b2", "weight"],
)


EntryPoint(
    "parameters_to_course",
    lambda parameters: course_layout.parameters_to_course(parameters)["W2"],
    lambda rng: {"parameters": dict(ALIKE[0].parameters)},
    lambda parameters: parameters["output.weight"],
    refusals=[KeyError],
    words=[*ALIKE[0].parameters, "weight", "n_filters"],
)


def a_student(rng):
    """Gradients by the reference, of images 8 pixels wide."""
    arrays = course_arrays(rng)["arrays"]
    X, labels = rng.standard_normal((192, 3)), rng.integers(0, 4, 3)
    parameters = course_layout.parameters_from_course(arrays)
    _, gradients = cyconv.reference.loss_and_gradients(
        parameters, course_layout.images_from_columns(X, (3, 8, 8)), labels, 0.1
    )
    student = course_layout.gradients_to_course(gradients)
    return {"student": student, "X": X, "Y": labels, "parameters": arrays, "l2": 0.1, "image_shape": (3, 8, 8)}


EntryPoint(
    "compare_gradients",
    lambda **arguments: course_layout.compare_gradients(**arguments, tolerance=1e9).wrong is None,
    a_student,
    lambda **arguments: False,
    refusals=[KeyError],
    words=["arrays", "Fs", "Fs_b", "W1", "W2", "b1", "b2", "weight", "filter_size", "n_classes", "student", "grad_"],
)


def some_gradients(rng):
    return {"gradients": ALIKE[0].loss_and_gradients(images_of(rng), np.zeros(7, int))[1]}


EntryPoint(
    "gradients_to_course",
    lambda gradients: course_layout.gradients_to_course(gradients)["grad_W2"],
    some_gradients,
    lambda gradients: gradients["output.weight"],
    refusals=[KeyError],
    words=[
        *(f"{layer}.{what}" for layer in ("conv", "hidden", "output") for what in ("weight", "bias")),
        "weight",
        "n_filters",
    ],
)


def run_settings(rng):
    run = experiments.Run("name").to_dict()
    names = [name for name in run if rng.random() < 0.5] or ["name"]
    return {name: tuple(run[name]) if isinstance(run[name], list) else run[name] for name in {"name", *names}}


EntryPoint(
    "experiments.Run",
    lambda **arguments: experiments.Run.from_dict(experiments.Run(**arguments).check().to_dict()).name,
    run_settings,
    lambda name, **others: str(name),
    words=["a network", "settings", "batch_size"],
)
EntryPoint(
    "experiments.DataSource",
    lambda **arguments: hash(experiments.DataSource(**arguments)) is None,
    lambda rng: {"folder": None, "protocol": "full", "small": True, "labels": "coarse"},
    lambda **arguments: False,
)
EntryPoint(
    "experiments.over_seeds",
    lambda **arguments: len(experiments.over_seeds(**arguments)),
    lambda rng: {"runs": [experiments.Run("a"), experiments.Run("b")], "n_seeds": 2, "first": 3},
    lambda runs, n_seeds, first: len(runs) * int(n_seeds),
)
EntryPoint(
    "search.Search",
    lambda **arguments: len(search.Search(**arguments).values(0, [])) > 0,
    lambda rng: {
        "run": experiments.Run("a"),
        "low": 1e-5,
        "high": 0.1,
        "n_rounds": 2,
        "n_samples": 3,
        "n_seeds": 2,
        "seed": 0,
    },
    lambda **arguments: True,
)


# The tests ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_hostile_arguments_are_refused_or_give_right_results(name):
    entry_point = ENTRY_POINTS[name]

    @hostile_settings(name)
    @given(hostile(entry_point.valid))
    def check(arguments):
        entry_point.check(arguments)

    check()


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_valid_arguments_are_accepted(name):
    """Otherwise the test above would compare nothing."""
    if "nowhere" in str(ENTRY_POINTS[name].valid(np.random.default_rng(0))):
        pytest.skip("reads or writes a file that does not exist here")
    for seed in range(3):
        assert ENTRY_POINTS[name].check(ENTRY_POINTS[name].valid(np.random.default_rng(seed)))


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_each_argument_slightly_wrong(name):
    """One argument at a time, in every way of hostile_arguments.nearby."""
    entry_point = ENTRY_POINTS[name]
    arguments = entry_point.valid(np.random.default_rng(1))
    for argument, value in arguments.items():
        for wrong in nearby(value):
            entry_point.check({**entry_point.valid(np.random.default_rng(1)), argument: wrong})
