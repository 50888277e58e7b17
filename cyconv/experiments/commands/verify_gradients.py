"""DD2424, Assignment 3, Exercises 1 and 2: check the convolution and the gradients.

Compares, on the first training images of CIFAR-10 or else of a synthetic data
set of shapes:

- the convolution by loops, by matrix products, by an Einstein sum and by the
  Cython kernels with that by loops in float64, and times all of them;
- the analytic gradients with finite differences (in float64), with the NumPy
  reference and, if PyTorch is installed, with its autograd;
- with ``--debug-file``, every step with the course's own results.

    cyconv verify-gradients
    cyconv verify-gradients --debug-file debug_info.npz

Prints tables, writes them and results.json to the output folder, and exits with
code 1 if any comparison is out of tolerance.
"""

import hashlib
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ... import reference
from ..._typing import AnyArray, FloatArray, IntArray, JsonDict, Parameters
from ...backend import ops
from ...backend.threads import get_num_threads
from ...datasets import Normalizer
from ...network import Network
from .. import cli, course_layout as course, report
from ..output_folder import OutputFolder
from ..runs import ARCHITECTURES, Run
from ..usage import usage

OUTPUT = "results/verify-gradients"
N_IMAGES, N_ROUNDS, N_COORDINATES = 100, 5, 40
QUICK = {"N_IMAGES": 10, "N_ROUNDS": 1, "N_COORDINATES": 8}
N_DIFFERENCED = 5  # images for finite differences, as in the course's debug file
STEP = 1e-5
L2, LABEL_SMOOTHING = 0.003, 0.1
TOLERANCE = {"float64": 1e-11, "float32": 5e-5}
DIFFERENCE_TOLERANCE = 1e-6
DEBUG_TOLERANCE = 1e-8

Convolution: TypeAlias = Callable[..., FloatArray]  # of images, weight and bias

# Those of Exercise 3, one with parallel filters of several sizes, and one with several hidden layers.
NETWORKS: dict[str, dict[str, Any]] = {
    **{
        run.label: {"filter_size": run.filter_size, "n_filters": run.n_filters, "n_hidden": run.n_hidden}
        for run in ARCHITECTURES
    },
    "branches f=2, 4, 8": {"filter_size": (2, 4, 8), "n_filters": (3, 10, 20), "n_hidden": 50},
    "hidden 30, 17": {"filter_size": 4, "n_filters": 11, "n_hidden": (30, 17)},
}


@dataclass(frozen=True)
class Comparison:
    """Two results that should agree: ``error`` is the 2-norm of their difference over that of the second.

    ``passed_over`` counts the coordinates that were skipped, since the cost has no derivative there.
    """

    what: str
    network: str
    dtype: str
    error: float
    tolerance: float
    passed_over: int = 0

    @property
    def agrees(self) -> bool:
        """bool: whether the error is within the tolerance; False if it is not a number."""
        return self.error <= self.tolerance


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = cli.data_parser(__doc__, OUTPUT)
    parser.add_argument("--debug-file", metavar="PATH", help="the course's debug_info.npz or debug_conv_info.npz")
    arguments = parser.parse_args(argv)
    sizes = QUICK if arguments.quick else {name: globals()[name] for name in QUICK}
    with usage(path="--debug-file"):
        debug = None if arguments.debug_file is None else course.read_debug_file(arguments.debug_file)
        from_file = [] if debug is None else compare_debug_file(debug)
    _, data = cli.load_data(arguments)
    runs = [Run("compared", label, batch_size=1, **network) for label, network in NETWORKS.items()]
    cli.check_runs(runs, data, arguments)
    configuration = {
        **cli.configuration("verify_gradients", arguments, [], data),
        "debug_file": None if debug is None else fingerprint(debug),
    }
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        folder.report()
        return 0 if folder.results["all_agree"] else 1

    X = Normalizer.fit(data.train.images)(data.train.images[: sizes["N_IMAGES"]]).astype(np.float64)
    labels = data.train.labels[: sizes["N_IMAGES"]]
    comparisons, times = compare_convolutions(X, sizes["N_ROUNDS"])
    comparisons += compare_gradients(X, labels, sizes["N_COORDINATES"], data.n_classes)
    all_comparisons = comparisons + from_file
    all_agree = all(comparison.agrees for comparison in all_comparisons)

    threads = report.count(get_num_threads(), "thread")
    sections = [
        (f"Milliseconds to convolve {len(X)} images and apply ReLU, {threads}, {data.name}", times_table(times)),
        (f"Relative errors of convolutions and gradients, {data.name}", errors_table(comparisons)),
    ]
    if from_file:
        sections.append(("Relative errors compared with the course's debug file", errors_table(from_file)))
    sentences = [conclusion(all_comparisons)]
    if not torch_version():
        sentences.append("PyTorch is not installed: its gradients were not compared.")
    folder.finish(
        {
            **report.results_header(configuration, complete=True),
            "versions": report.describe_versions() | torch_version(),
            "all_agree": all_agree,
            "convolution_milliseconds": times,
            "comparisons": [{**asdict(c), "error": finite(c.error), "agrees": c.agrees} for c in all_comparisons],
        },
        report.markdown_document(
            "Exercises 1 and 2, convolution and gradients",
            data,
            [],
            *sentences,
            *(f"## {heading}\n\n{table(True)}" for heading, table in sections),
        ),
    )
    cli.print_paragraphs(*(f"{heading}\n\n{table(False)}" for heading, table in sections))
    cli.print_paragraphs("\n".join([*sentences, f"Results on {data.name} are in {folder}"]))
    return 0 if all_agree else 1


def torch_version() -> dict[str, str]:
    """PyTorch's version for the results file; nothing if it is not installed."""
    return {} if importlib.util.find_spec("torch") is None else {"torch": importlib.metadata.version("torch")}


def fingerprint(arrays: Mapping[str, AnyArray]) -> str:
    """The SHA-256 of the names, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def convolve_cython(images: FloatArray, weight: FloatArray, bias: FloatArray) -> FloatArray:
    """Convolution and ReLU by the kernels, with the same shape of the result as by the reference."""
    f = weight.shape[-1]
    n, _, height, width = images.shape
    maps = ops.patch_matmul_forward(ops.im2col(images, f), weight.reshape(len(weight), -1), bias)
    return maps.reshape(n, len(weight), height // f, width // f)


def with_relu(convolve: Convolution) -> Convolution:
    """One of the reference's convolutions, followed by ReLU, which the kernels apply as well."""
    return lambda *arguments: np.maximum(convolve(*arguments), 0)


CONVOLUTIONS: dict[str, Convolution] = {
    "loops": with_relu(reference.convolve_loops),
    "matmul": with_relu(reference.convolve_matmul),
    "einsum": with_relu(reference.convolve_einsum),
    "Cython": convolve_cython,
}


def compare_convolutions(X: FloatArray, n_rounds: int) -> tuple[list[Comparison], list[JsonDict]]:
    """Exercise 1: compare and time four implementations of the convolution in both precisions.

    They take turns, and are compared with the loops in float64.
    """
    comparisons: list[Comparison] = []
    times: list[JsonDict] = []
    for run in ARCHITECTURES:
        generator = np.random.default_rng(run.filter_size)
        untrained = run.network(X.shape[1:]).parameters
        weight = generator.standard_normal(untrained["conv.weight"].shape)
        bias = generator.standard_normal(untrained["conv.bias"].shape)
        expected = CONVOLUTIONS["loops"](X, weight, bias)
        for dtype in ("float64", "float32"):
            arguments = [array.astype(dtype) for array in (X, weight, bias)]
            for name, convolve in CONVOLUTIONS.items():
                if (name, dtype) != ("loops", "float64"):
                    error = relative_error(convolve(*arguments), expected)
                    comparisons.append(Comparison(f"convolution: {name}", run.label, dtype, error, TOLERANCE[dtype]))
            milliseconds: dict[str, list[float]] = {name: [] for name in CONVOLUTIONS}
            for _ in range(n_rounds):
                for name, convolve in CONVOLUTIONS.items():
                    milliseconds[name].append(mean_milliseconds(convolve, arguments))
            medians = {name: float(np.median(values)) for name, values in milliseconds.items()}
            times.append({"network": run.label, "dtype": dtype, **medians})
    return comparisons, times


def mean_milliseconds(convolve: Convolution, arguments: Sequence[FloatArray], seconds: float = 0.03) -> float:
    """Mean time of as many calls as fit into ``seconds``, at least one, after a warm-up of 0.15 seconds.

    NumPy's own threads may keep the processors busy for that long after their work.
    """

    def repeat(seconds: float) -> float:
        start, count, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < seconds:
            convolve(*arguments)
            count += 1
            elapsed = time.perf_counter() - start
        return 1e3 * elapsed / count

    if convolve is not CONVOLUTIONS["loops"]:
        repeat(0.15)
    return repeat(seconds)


def compare_gradients(X: FloatArray, labels: IntArray, n_coordinates: int, n_classes: int = 10) -> list[Comparison]:
    """Exercise 2: compare analytic gradients with finite differences, the reference and PyTorch."""
    comparisons = []
    for label, settings in NETWORKS.items():
        for dtype in ("float64", "float32"):
            network = Network(**settings, seed=0, dtype=dtype, image_shape=X.shape[1:], n_classes=n_classes)
            network.set_parameters(with_biases(network.parameters))
            parameters, images = network.parameters, X.astype(dtype)
            _, gradients = network.loss_and_gradients(images, labels, L2, LABEL_SMOOTHING)
            _, expected = reference.loss_and_gradients(parameters, images, labels, L2, LABEL_SMOOTHING)
            others = {"NumPy reference": expected}
            if torch_version():
                others["PyTorch"] = autograd(parameters, images, labels)
            for source, other in others.items():
                error = max(relative_error(gradients[name], other[name]) for name in gradients)
                comparisons.append(Comparison(f"gradients: {source}", label, dtype, error, TOLERANCE[dtype]))
            if dtype == "float64":
                few = slice(N_DIFFERENCED)
                comparisons.append(compare_differences(network, X[few], labels[few], n_coordinates, label))
    return comparisons


def with_biases(parameters: Mapping[str, FloatArray]) -> Parameters:
    """The parameters with random biases, which are initially zero."""
    generator = np.random.default_rng(0)
    return {
        name: np.asarray(0.1 * generator.standard_normal(array.shape), array.dtype) if array.ndim == 1 else array
        for name, array in parameters.items()
    }


def compare_differences(
    network: Network, X: FloatArray, labels: IntArray, n_coordinates: int, label: str
) -> Comparison:
    """Compare gradients with central differences at some coordinates of every parameter array.

    Where a step switches a ReLU on or off, the cost is not differentiable and
    the difference quotient is not a derivative: such coordinates are skipped.
    """
    _, gradients = network.loss_and_gradients(X, labels, L2, LABEL_SMOOTHING)
    parameters = {name: array.copy() for name, array in network.parameters.items()}
    generator = np.random.default_rng(1)
    probe, worst, n_skipped = network.copy(), 0.0, 0

    def shifted_cost(name: str, index: tuple[Any, ...], step: float) -> tuple[float, list[NDArray[np.bool_]]]:
        """The cost after a step along one coordinate, and which ReLUs are active there."""
        value = parameters[name][index]
        parameters[name][index] = value + step
        probe.set_parameters(parameters)
        layers = reference.forward(parameters, X)
        parameters[name][index] = value
        active = [array > 0 for layer, array in layers.items() if layer not in ("output", "probabilities")]
        return probe.loss_and_gradients(X, labels, L2, LABEL_SMOOTHING)[0], active

    for name, array in parameters.items():
        analytic: list[float] = []
        numeric: list[float] = []
        for place in generator.permutation(array.size):
            if len(numeric) == n_coordinates:
                break
            index = np.unravel_index(place, array.shape)
            above, active_above = shifted_cost(name, index, STEP)
            below, active_below = shifted_cost(name, index, -STEP)
            if any((a != b).any() for a, b in zip(active_above, active_below)):
                n_skipped += 1
                continue
            analytic.append(float(gradients[name][index]))
            numeric.append((above - below) / (2 * STEP))
        worst = max(worst, relative_error(np.array(analytic), np.array(numeric)))
    return Comparison("gradients: finite differences", label, "float64", worst, DIFFERENCE_TOLERANCE, n_skipped)


def autograd(parameters: Mapping[str, FloatArray], X: FloatArray, labels: IntArray) -> Parameters:
    """PyTorch's gradients of the same cost."""
    import torch
    from torch.nn import functional as F

    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in parameters.items()}
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    x, branches = torch.tensor(X), []
    for layer in layers:
        weight, bias = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
        if layer.startswith("conv"):
            branches.append(F.relu(F.conv2d(x, weight, bias, stride=weight.shape[-1])).flatten(1))
            continue
        if layer.startswith("hidden") and branches:
            x, branches = torch.cat(branches, 1), []
        x = F.linear(x, weight, bias)
        x = x if layer == "output" else F.relu(x)
    # PyTorch distributes ε over all K classes, the assignment over the K - 1 wrong ones.
    n_classes = x.shape[1]
    smoothing = LABEL_SMOOTHING * n_classes / (n_classes - 1)
    loss = F.cross_entropy(x, torch.tensor(labels), label_smoothing=smoothing)
    weights = [tensor for name, tensor in tensors.items() if name.endswith("weight")]
    (loss + L2 * sum(weight.square().sum() for weight in weights)).backward()
    return {name: tensor.grad.numpy() for name, tensor in tensors.items()}


def compare_debug_file(arrays: Mapping[str, NDArray[np.float64]]) -> list[Comparison]:
    """Compare every step whose results are in the debug file, computed from the inputs in the file.

    Raises
    ------
    ValueError
        If the inputs are missing, or shapes do not match.
    """
    missing = [name for name in ("X", "Fs") if name not in arrays]
    if missing:
        raise ValueError(f"--debug-file must hold at least X and Fs, but it lacks {' and '.join(missing)}")
    images = course.images_from_columns(arrays["X"])
    weight = course.filters_from_course(arrays["Fs"])
    f, n_filters, n = weight.shape[-1], len(weight), len(images)
    bias = np.ravel(arrays.get("Fs_b", np.zeros(n_filters)))
    patches = ops.im2col(images, f)
    found = {
        "MX": course.patches_to_course(patches),
        "conv_flat": course.maps_to_course(convolve_cython(images, weight, bias)).reshape(-1, n),
        "conv_outputs": course.maps_to_course(reference.convolve_matmul(images, weight, bias)),
    }
    found["conv_outputs_mat"] = found["conv_outputs"].reshape(-1, n_filters, n)
    layers = ("W1", "b1", "W2", "b2")
    if all(name in arrays for name in layers):
        given = {name: arrays[name] for name in course.NAMES.values() if name in arrays}
        parameters = course.parameters_from_course(given)
        n_hidden, n_classes = len(arrays["W1"]), len(arrays["W2"])
        network = Network(filter_size=f, n_filters=n_filters, n_hidden=n_hidden, dtype="float64", n_classes=n_classes)
        network.set_parameters(parameters)
        outputs = network.forward(images)
        found |= {"X1": outputs["hidden"].T, "P": outputs["probabilities"].T}
        if "Y" in arrays:
            _, gradients = network.loss_and_gradients(images, np.ascontiguousarray(arrays["Y"].T))
            found |= course.gradients_to_course(gradients)
    compared = [name for name in found if name in arrays]
    if not compared:
        raise ValueError(f"--debug-file must hold results to compare with, but it has only {', '.join(arrays)}")
    comparisons = []
    for name in compared:
        error = squeezed_error(found[name], arrays[name])
        comparisons.append(
            Comparison(f"debug file: {name}", f"f={f}, nf={n_filters}, n={n}", "float64", error, DEBUG_TOLERANCE)
        )
    return comparisons


def squeezed_error(ours: AnyArray, theirs: AnyArray) -> float:
    """Relative error, ignoring axes of length one; infinite if the shapes differ otherwise."""
    ours, theirs = np.squeeze(ours), np.squeeze(theirs)
    return relative_error(ours, theirs) if ours.shape == theirs.shape else float("inf")


def relative_error(ours: AnyArray, theirs: AnyArray) -> float:
    """2-norm of the difference over the 2-norm of ``theirs``, both in float64."""
    ours, theirs = (np.asarray(array, np.float64).ravel() for array in (ours, theirs))
    return float(np.linalg.norm(ours - theirs) / (np.linalg.norm(theirs) or 1.0))


def finite(number: float) -> float | None:
    """The number if it is finite, which JSON requires, or else None."""
    return number if np.isfinite(number) else None


def conclusion(comparisons: Sequence[Comparison]) -> str:
    """How many comparisons agree, and which is the worst."""
    wrong = [c for c in comparisons if not c.agrees]
    if not wrong:
        return f"All {len(comparisons)} comparisons agree within their tolerances."
    worst = max(wrong, key=lambda c: c.error / c.tolerance if np.isfinite(c.error) else np.inf)
    return (
        f"{len(wrong)} of {len(comparisons)} comparisons are out of tolerance, the worst of them "
        f"{worst.what}, {worst.network}, {worst.dtype}: {worst.error:.1e}, more than {worst.tolerance:.0e}."
    )


def times_table(times: Sequence[JsonDict]) -> Callable[[bool], str]:
    """Milliseconds of each implementation, as a function that returns the table as text or Markdown."""
    rows = []
    for row in times:
        best_other = min(row[name] for name in CONVOLUTIONS if name != "Cython")
        cells = [f"{row[name]:,.2f}" for name in CONVOLUTIONS]
        rows.append([row["network"], row["dtype"], *cells, f"{best_other / row['Cython']:.1f}×"])
    header = ["network", "dtype", *CONVOLUTIONS, "best other / Cython"]
    return lambda markdown: report.format_table(header, rows, markdown)


def errors_table(comparisons: Sequence[Comparison]) -> Callable[[bool], str]:
    """One row per comparison and precision, one column per network."""
    networks = list(dict.fromkeys(c.network for c in comparisons))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for c in comparisons:
        row = rows.setdefault((c.what, c.dtype, f"{c.tolerance:.0e}"), dict.fromkeys(networks, ""))
        row[c.network] = f"{c.error:.1e}" if c.agrees else f"WRONG {c.error:.1e}"
    header = ["compared", "dtype", "tolerance", *networks]
    cells = [[*key, *row.values()] for key, row in rows.items()]
    return lambda markdown: report.format_table(header, cells, markdown)
