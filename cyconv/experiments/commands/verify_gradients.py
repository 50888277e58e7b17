"""DD2424, Assignment 3, Exercises 1 and 2: the convolution and the gradients.

Compares, on the first training images of CIFAR-10 or else of a synthetic data
set of shapes:

- the convolution by loops, by matrix products, by an Einstein sum and by the
  Cython kernels with that by loops in float64, and times all of them;
- the analytic gradients with finite differences (in float64), with the NumPy
  reference and, if PyTorch is installed, with its autograd.

Prints tables, writes them and results.json to the output folder, and exits with
code 1 if any comparison is out of tolerance.

With ``--debug-file``, it checks files with a student's own results instead, in
the form of the course's ``debug_info.npz``, and says on one line for each what
is wrong and why that is likely. Code 1 means that something is wrong, code 2
that a file could not be checked.

    cyconv verify-gradients
    cyconv verify-gradients --debug-file debug_info.npz
    cyconv verify-gradients --debug-file students/*.npz --l2 0.003
"""

import glob
import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ... import reference
from ..._checks import check_array, check_real, smoothed
from ..._typing import AnyArray, FloatArray, IntArray, JsonDict, Parameters
from ...backend import ops
from ...backend.threads import get_num_threads
from ...datasets import Normalizer
from ...network import Network
from .. import cli, course_layout as course, report
from ..output_folder import OutputFolder
from ..runs import ARCHITECTURES, Run
from ..usage import UsageError, program, usage

OUTPUT = "results/verify-gradients"
N_IMAGES, N_ROUNDS, N_COORDINATES = 100, 5, 40
QUICK = {"N_IMAGES": 10, "N_ROUNDS": 1, "N_COORDINATES": 8}
N_DIFFERENCED = 5  # images for finite differences, as in the course's debug file
STEP = 1e-5
L2, LABEL_SMOOTHING = 0.003, 0.1
TOLERANCE = {"float64": 1e-11, "float32": 5e-5}
DIFFERENCE_TOLERANCE = 1e-6
DEBUG_TOLERANCE = 1e-5  # also of results in single precision
GRADIENTS = ("grad_Fs_flat", "grad_Fs", "grad_Fs_b", "grad_W1", "grad_b1", "grad_W2", "grad_b2")

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
    parser.add_argument(
        "--debug-file",
        metavar="PATH",
        nargs="+",
        help="check only these files: results in the form of the course's debug_info.npz or debug_conv_info.npz",
    )
    parser.add_argument("--l2", metavar="L", type=float, help="λ of the gradients in the files (default: 0)")
    parser.add_argument(
        "--label-smoothing", metavar="E", type=float, help="ε of the gradients in the files (default: 0)"
    )
    arguments = parser.parse_args(argv)
    sizes = QUICK if arguments.quick else {name: globals()[name] for name in QUICK}
    if arguments.debug_file:
        with usage(l2="--l2", label_smoothing="--label-smoothing"):
            l2 = check_real("l2", arguments.l2 or 0.0, 0)
            label_smoothing = check_real("label_smoothing", arguments.label_smoothing or 0.0, 0, 1, "[)")
        return check_debug_files(arguments.debug_file, l2, label_smoothing)
    for option in ("l2", "label_smoothing"):
        if getattr(arguments, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} must be given with --debug-file, but it is without")
    _, data = cli.load_data(arguments)
    runs = [Run("compared", label, batch_size=1, **network) for label, network in NETWORKS.items()]
    cli.check_runs(runs, data, arguments)
    configuration = cli.configuration("verify_gradients", arguments, [], data)
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        folder.report()
        return 0 if folder.results["all_agree"] else 1

    X = Normalizer.fit(data.train.images)(data.train.images[: sizes["N_IMAGES"]]).astype(np.float64)
    labels = data.train.labels[: sizes["N_IMAGES"]]
    comparisons, times = compare_convolutions(X, sizes["N_ROUNDS"])
    comparisons += compare_gradients(X, labels, sizes["N_COORDINATES"], data.n_classes)
    all_agree = all(comparison.agrees for comparison in comparisons)

    threads = report.count(get_num_threads(), "thread")
    sections = [
        (f"Milliseconds to convolve {len(X)} images and apply ReLU, {threads}, {data.name}", times_table(times)),
        (f"Relative errors of convolutions and gradients, {data.name}", errors_table(comparisons)),
    ]
    sentences = [conclusion(comparisons)]
    if not torch_version():
        sentences.append("PyTorch is not installed: its gradients were not compared.")
    document = {
        **report.results_header(configuration, complete=True),
        "versions": report.describe_versions() | torch_version(),
        "all_agree": all_agree,
        "convolution_milliseconds": times,
        "comparisons": [{**asdict(c), "error": finite(c.error), "agrees": c.agrees} for c in comparisons],
    }
    title, parts = "Exercises 1 and 2, convolution and gradients", [(heading, [table]) for heading, table in sections]
    folder.finish(document, report.report_document(title, document, [], " ".join(sentences), *parts))
    cli.print_paragraphs(*(block for section in sections for block in section))
    cli.print_paragraphs("\n".join([*sentences, f"Results on {data.name} are in {folder}"]))
    return 0 if all_agree else 1


def torch_version() -> dict[str, str]:
    """PyTorch's version for the results file; nothing if it is not installed."""
    return {} if importlib.util.find_spec("torch") is None else {"torch": importlib.metadata.version("torch")}


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


def check_debug_files(paths: Sequence[str], l2: float, label_smoothing: float) -> int:
    """Print one line for each file; return 0 if all is right, 1 if something is wrong, 2 if a file cannot be read."""
    code = 0
    for path in matching(paths):
        try:
            with usage(path="--debug-file"):
                is_right, line = check_debug_file(course.read_debug_file(path), l2, label_smoothing)
        except UsageError as error:
            place = "" if path in str(error) else f" ({path})"
            print(f"{' '.join(program())}: error: {error}{place}", file=sys.stderr)
            code = 2
        else:
            print(f"{path}: {line}", flush=True)
            code = max(code, 0 if is_right else 1)
    return code


def matching(paths: Sequence[str]) -> list[str]:
    """The paths, and in the place of a pattern such as ``*.npz`` what it matches: Windows' shells leave that to us."""
    return [name for path in paths for name in (not os.path.exists(path) and sorted(glob.glob(path))) or [path]]


def check_debug_file(
    arrays: Mapping[str, NDArray[np.float64]], l2: float = 0.0, label_smoothing: float = 0.0
) -> tuple[bool, str]:
    """Whether all results in a debug file are right, and a line on what is wrong and why that is likely."""
    comparisons = compare_debug_file(arrays, l2, label_smoothing)
    agrees = {c.what.removeprefix("debug file: "): c.agrees for c in comparisons}
    reason = ""
    if any(name.startswith("grad_") for name in agrees):
        check = compare_students_gradients(arrays, l2, label_smoothing)
        agrees |= {name: name not in check.wrong for name in check.errors}  # a missing one as well
        reason = check.reason
    right, wrong = (", ".join(name for name in agrees if agrees[name] is kind) for kind in (True, False))
    if not wrong:
        return True, f"right: {right}"
    return False, " ".join([f"wrong: {wrong}.", *filter(None, [reason]), f"Right: {right or 'nothing'}."])


def compare_students_gradients(
    arrays: Mapping[str, NDArray[np.float64]], l2: float, label_smoothing: float
) -> course.GradientComparison:
    """Compare the gradients in a debug file that has all parameters."""
    given = {name: array for name, array in arrays.items() if name in GRADIENTS}
    parameters = {name: arrays[name] for name in (*course.NAMES.values(), "Fs_flat") if name in arrays}
    targets = classes(arrays)
    assert targets is not None
    return course.compare_gradients(
        given, arrays["X"], targets, parameters, l2, label_smoothing, tolerance=DEBUG_TOLERANCE
    )


def classes(arrays: Mapping[str, NDArray[np.float64]]) -> AnyArray | None:
    """The labels in a debug file as columns of probabilities; None if it has none."""
    if "Y" in arrays or "y" not in arrays:
        return arrays.get("Y")
    return np.equal.outer(np.arange(len(arrays["W2"])), arrays["y"].ravel()).astype(np.float64)


def compare_debug_file(
    arrays: Mapping[str, NDArray[np.float64]], l2: float = 0.0, label_smoothing: float = 0.0
) -> list[Comparison]:
    """Compare every step whose results are in the debug file, computed from the inputs in the file.

    Raises
    ------
    ValueError
        If the inputs are missing, or shapes do not match.
    """
    filters = next((name for name in ("Fs", "Fs_flat") if name in arrays), "")
    missing = [name for name, there in (("X", "X" in arrays), ("Fs", filters)) if not there]
    if missing:
        raise ValueError(f"--debug-file must hold at least X and Fs, but it lacks {' and '.join(missing)}")
    images = course.images_from_columns(arrays["X"])
    weight = (course.filters_from_course if filters == "Fs" else course.filters_from_flat)(arrays[filters])
    f, n_filters, n = weight.shape[-1], len(weight), len(images)
    bias = np.ravel(arrays.get("Fs_b", np.zeros(n_filters)))
    patches = ops.im2col(images, f)
    activations = convolve_cython(images, weight, bias)
    found = {
        "MX": course.patches_to_course(patches),
        "conv_outputs": course.maps_to_course(reference.convolve_matmul(images, weight, bias)),
        "conv_flat": course.maps_to_course(activations).reshape(-1, n),
    }
    found["conv_outputs_mat"] = found["conv_outputs"].reshape(-1, n_filters, n)
    if filters == "Fs":
        found["Fs_flat"] = course.filters_to_course(weight).reshape(-1, n_filters)
    layers = ("W1", "b1", "W2", "b2")
    if all(name in arrays for name in layers):
        given = {name: arrays[name] for name in (*course.NAMES.values(), filters) if name in arrays}
        check_array("W1", arrays["W1"], ("nh", patches.shape[2] * n_filters))
        parameters = course.parameters_from_course(given)
        n_hidden, n_classes = len(arrays["W1"]), len(arrays["W2"])
        network = Network(filter_size=f, n_filters=n_filters, n_hidden=n_hidden, dtype="float64", n_classes=n_classes)
        network.set_parameters(parameters)
        outputs = network.forward(images)
        found |= {"X1": outputs["hidden"].T, "P": outputs["probabilities"].T}
        targets = classes(arrays)
        if targets is not None:
            on, off = smoothed(label_smoothing, n_classes)
            targets = np.ascontiguousarray(targets.T * on + (1 - targets.T) * off)
            cost, gradients = network.loss_and_gradients(images, targets, l2)
            loss, _ = network.loss_and_gradients(images, targets)
            found |= {"loss": np.array(loss), "cost": np.array(cost), **course.gradients_to_course(gradients)}
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


def times_table(times: Sequence[JsonDict]) -> report.Table:
    """Milliseconds of each implementation."""
    rows = []
    for row in times:
        best_other = min(row[name] for name in CONVOLUTIONS if name != "Cython")
        cells = [f"{row[name]:,.2f}" for name in CONVOLUTIONS]
        rows.append([row["network"], row["dtype"], *cells, f"{best_other / row['Cython']:.1f}×"])
    header = ["network", "dtype", *CONVOLUTIONS, "best other / Cython"]
    return report.Table(header, rows, n_keys=2)


def errors_table(comparisons: Sequence[Comparison]) -> report.Table:
    """One row per comparison and precision, one column per network."""
    networks = list(dict.fromkeys(c.network for c in comparisons))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for c in comparisons:
        row = rows.setdefault((c.what, c.dtype, f"{c.tolerance:.0e}"), dict.fromkeys(networks, ""))
        row[c.network] = f"{c.error:.1e}" if c.agrees else f"WRONG {c.error:.1e}"
    header = ["compared", "dtype", "tolerance", *networks]
    cells = [[*key, *row.values()] for key, row in rows.items()]
    return report.Table(header, cells, n_keys=3)
