"""scripts/benchmark.py in miniature, the check that every peer must pass, and the whole run in PyTorch."""

import dataclasses
import functools
import importlib
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import cyconv

SCRIPTS = Path(__file__).parents[2] / "scripts"
MACHINE = {"processor": "P", "architecture": "a", "instruction_set": "i"}


@pytest.fixture(autouse=True)
def scripts_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("PYTHONPATH", str(Path(cyconv.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def call(call_script):
    """call(*arguments): the script in a process of its own."""
    return functools.partial(call_script, "benchmark")


@pytest.fixture
def small_case():
    from peers.case import Case

    return Case(filter_size=8, n_filters=3, n_hidden=(7,), batch_size=20)


@pytest.mark.slow
def test_miniature(call, tmp_path):
    arguments = (
        "--sections steps extras memory imports --peers cyconv numpy --architectures 8,3,7 --threads 1 --rounds 2 "
        "--seconds 0.004 --images 300 --output out"
    )
    done = call(*arguments.split())
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert lines == ["[1/4] steps", "[2/4] extras", "[3/4] memory", "[4/4] imports"]
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    network = results["steps"]["networks"]["8,3,7"]
    runs = [(run["peer"], run["threads"], run["dtype"]) for run in network["runs"]]
    assert runs == [("cyconv", 1, "float32"), ("cyconv", 1, "float64"), ("numpy", 1, "float32")]
    for run in network["runs"]:
        assert run["error"] < 1e-4
        assert len(run["step"]) == len(run["evaluation"]) == 2 and min(*run["step"], *run["evaluation"]) > 0
    assert [probe["dtype"] for probe in network["peak"]] == ["float32", "float64"]
    assert list(results["extras"]) == ["8,3,7"] and min(results["extras"]["8,3,7"]["all three"]) > 0
    assert set(results["memory"]["peers"]) == {"cyconv", "numpy"} and list(results["imports"]) == ["cyconv"]
    assert (tmp_path / "out" / "benchmark.png").stat().st_size > 10_000
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert "speedup over the best" in text and "dropout 0.3" in text and "float64 / float32" in text
    assert text in done.stdout


def test_measured_times_are_overwritten_only_on_request(monkeypatch, tmp_path, capsys):
    script = importlib.import_module("benchmark")
    from peers import sections, tables

    measured = []
    monkeypatch.setattr(tables, "describe", lambda results: "a table")
    monkeypatch.setattr(sections, "measure_imports", lambda options: measured.append(options) or len(measured))
    arguments = ["--sections", "imports", "--peers", "cyconv", "--threads", "1", "--output", str(tmp_path / "out")]
    assert script.main(arguments) == script.main(arguments) == 0
    assert "nothing was run" in capsys.readouterr().out and len(measured) == 1
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert script.main([*arguments, "--rounds", "3"]) == 2 and "another configuration" in capsys.readouterr().err

    with monkeypatch.context() as patch:
        patch.setattr(sections, "measure_imports", lambda options: os.kill(os.getpid(), signal.SIGINT))
        assert script.main([*arguments, "--overwrite"]) == 128 + signal.SIGINT
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
    assert script.main([*arguments, "--overwrite"]) == 0 and len(measured) == 2
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["imports"] == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "benchmark.json",
        "benchmark.md",
        "configuration.json",
    ]


def test_other_shapes_are_measured_beside_the_tuned_one(monkeypatch):
    from peers import sections

    monkeypatch.setattr(sections, "SHAPES", {"A3": [{"batch_size": 7}, {"n_hidden": (5, 4)}]})
    options = SimpleNamespace(threads=[1], seconds=0.004, rounds=2, images=100)
    found = sections.measure_shapes(options)
    assert [shape["case"]["batch_size"] for shape in found] == [100, 7, 100]
    assert found[0]["share"] == [1.0, 1.0] and all(min(shape["gflops"]) > 0 for shape in found)


def test_updates_beside_busy_processes(monkeypatch):
    from peers import sections, tables

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    options = SimpleNamespace(
        threads=[1, 2],
        seconds=0.01,
        rounds=2,
        images=100,
        batch_size=20,
        architectures=[("tiny", (8, 3, (7,)))],
        peers=["cyconv", "numpy"],
    )
    found = sections.measure_busy(options)
    columns = ("cyconv", 1), ("cyconv", 2), ("numpy", 2)
    assert [(row["busy"], row["peer"], row["threads"]) for row in found] == [
        (n, *each) for n in range(3) for each in columns
    ]
    assert all(len(row["updates"]) == 2 and min(row["updates"]) > 0 for row in found)
    text = tables.describe({"machine": MACHINE, "busy": found})
    assert "busy" in text and text.count("tiny") == 3 and "2 / 1" in text and "speedup over the best" in text
    for row in found:
        row["updates"] = [{"cyconv": 60.0, "numpy": 20.0}[row["peer"]] * row["threads"]] * 2
    text = tables.describe({"machine": MACHINE, "busy": found})
    assert text.count(" 2.00 |") == text.count(" 3.00× |") == 3, text
    alone = [row for row in found if row["peer"] == "cyconv"]
    assert "speedup" not in tables.describe({"machine": MACHINE, "busy": alone})
    peers = [row for row in found if row["peer"] == "numpy"]
    text = tables.describe({"machine": MACHINE, "busy": peers})
    assert text.count("40.0 (") == 3 and "speedup" not in text and "cyconv," not in text


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--architectures", "7,3,50"], "f in 1, 2, 4, 8, 16, 32"),
        (["--threads", "100000"], "--threads must be at most the"),
        (["--images", "99"], "--images must be at least the batch size 100"),
        (["--rounds", "0"], "must be a positive int"),
    ],
)
def test_mistakes_are_reported_before_any_work(call, tmp_path, arguments, sentence):
    done = call("--output", "out", *arguments)
    assert done.returncode == 2 and sentence in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, mflop", [("A1", 27.0), ("A2", 31.8), ("A3", 68.7), ("A4", 216), ("A2W", 126), ("A5", 512)]
)
def test_operations_of_a_step(name, mflop):
    from peers.case import ARCHITECTURES, Case

    assert Case(*ARCHITECTURES[name]).step_flops / 1e6 == pytest.approx(mflop, rel=4e-3)


@pytest.mark.optional
@pytest.mark.parametrize("name", ["cyconv", "numpy", "torch", "torch-manual", "jax", "gpu", "gpu-graph"])
def test_every_way_of_a_peer_agrees_with_the_reference(name, small_case):
    import peers
    from peers.case import check_peer

    pytest.importorskip(peers.PEERS[name].requires)
    if peers.PEERS[name].gpu and not peers.finds_gpu():
        pytest.skip("no GPU")
    peer_class = peers.load(name)
    for variant in peer_class.VARIANTS:
        assert check_peer(peer_class, small_case, variant) < 1e-4
    # JAX's precision is a switch of the whole process; the graph's rates are float32.
    if name not in ("jax", "gpu-graph"):
        in_double = dataclasses.replace(small_case, dtype="float64")
        assert check_peer(peer_class, in_double, peer_class.VARIANTS[0]) < 1e-10


@pytest.mark.optional
def test_the_gpu_peer_does_the_same_on_a_cpu(monkeypatch, small_case):
    torch = pytest.importorskip("torch")
    from peers.case import check_peer
    from peers.gpu_peer import EagerGpuPeer

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(EagerGpuPeer, "device", "cpu")
    for variant in EagerGpuPeer.VARIANTS:
        assert check_peer(EagerGpuPeer, small_case, variant) < 1e-4


def test_gpu_times_are_kept_apart_from_cpu_times():
    from peers import tables

    def run(peer, step, evaluation):
        return {"peer": peer, "threads": 2, "dtype": "float32", "step": step, "evaluation": evaluation}

    runs = [
        run("cyconv", [100.0, 100.0], [50.0, 50.0]),
        run("numpy", [300.0, 320.0], [25.0, 25.0]),
        run("gpu", [900.0, 800.0], [900.0, 900.0]),
        run("gpu-graph", [50.0, 60.0], [800.0, 800.0]),
        {**run("cyconv", [200.0, 200.0], [20.0, 20.0]), "dtype": "float64"},
    ]
    peak = [{"threads": 2, "dtype": "float32", "gflops": [400.0, 400.0]}]
    network = {"case": {}, "step_flops": 1e7, "image_flops": 1e5, "runs": runs, "peak": peak}
    section = {"threads": [2], "gpu": "Some GPU", "networks": {"A1": network}}
    text = tables.describe({"machine": MACHINE, "steps": section})
    on_cpu, beside_gpu = text.split("## Comparison with a GPU (Some GPU)")
    assert "3.10×" in on_cpu and "GPU" not in on_cpu
    assert "0.55×" in beside_gpu and "CUDA graph" in beside_gpu


def test_a_missing_gpu_is_reported_before_any_work(monkeypatch, capsys, tmp_path):
    script = importlib.import_module("benchmark")
    monkeypatch.setattr(script.peers, "finds_gpu", lambda: False)
    with pytest.raises(SystemExit):
        script.main(["--peers", "cyconv", "gpu", "--output", str(tmp_path / "out")])
    assert "PyTorch finds no GPU" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_peer_that_computes_less_is_not_timed(small_case):
    from peers.case import Data
    from peers.numpy_peer import NumpyPeer
    from peers.timing import Timed

    class WithoutDecay(NumpyPeer):
        _update = staticmethod(lambda weight, step, decay: NumpyPeer._update(weight, step, 1.0))

    with pytest.raises(ArithmeticError, match="WithoutDecay must agree with the reference"):
        Timed(WithoutDecay, small_case, Data.random(100), 0.001)


def test_a_worker_reports_its_error():
    from peers.worker import Worker

    with Worker("numpy", 1) as worker, pytest.raises(ChildProcessError, match="numpy on 1 thread.*KeyError"):
        worker.ask("step", key="nothing", seconds=0.001)


def test_whole_runs_are_compared_serially_and_in_parallel(monkeypatch):
    from peers import sections, tables

    from cyconv.experiments.commands import exercise3

    commands = []
    monkeypatch.setattr(sections.subprocess, "run", lambda command, **options: commands.append(command))
    found = sections.measure_exercise(SimpleNamespace(threads=[1, 2], rounds=2, data="folder"))
    assert [Path(command[1]).name for command in commands] == 4 * ["exercise3.py", "exercise3_pytorch.py"]
    asked = [exercise3.parse(command[2:]) for command in commands]
    assert [(a.threads, a.workers or 1) for a in asked] == 2 * [(2, 1), (2, 1), (1, 2), (1, 2)]
    assert {(a.data, a.protocol, a.part, a.seeds, a.log_every) for a in asked} == {("folder", "batch1", "all", 1, 50)}
    assert all(len(seconds) == 2 and min(seconds) >= 0 for times in found.values() for seconds in times.values())

    found = {way: {script: [1.0, 2.0] for script in times} for way, times in found.items()}
    found["2 runs at a time"]["exercise3_pytorch.py"] = [3.0, 4.0]
    text = tables.describe({"machine": MACHINE, "exercise": found})
    assert "1.00×" in text and "2.50×" in text and "| 2 runs at a time" in text


@pytest.mark.optional
def test_pytorch_learns_and_logs_as_the_trainer_does(monkeypatch):
    pytest.importorskip("torch")
    script = importlib.import_module("exercise3_pytorch")
    from cyconv.experiments import Run, run_experiment

    evaluate, evaluated = script.evaluate, []

    def counting(forward, images, labels):
        evaluated.append(len(labels))
        return evaluate(forward, images, labels)

    monkeypatch.setattr(script, "evaluate", counting)

    data = cyconv.make_shapes(n_train=250, n_validation=60, n_test=70, seed=0)
    run = Run(
        "tiny",
        filter_size=8,
        n_filters=4,
        n_hidden=10,
        batch_size=20,
        step_size=15,
        n_cycles=1,
        l2=0.003,
        log_every=7,
        n_train_evaluated=40,
    )
    result, ours = script.train(run, data), run_experiment(run, data, progress=False)
    assert evaluated == [40, 60] * len(ours.history["update_steps"]) + [70]
    for key in ("update_steps", "learning_rates"):
        np.testing.assert_array_equal(result.history[key], ours.history[key])
    assert result.history["loss_train"][-1] < result.history["loss_train"][0]
    assert result.history["cost_train"][-1] > result.history["loss_train"][-1]
    assert result.confusion.sum() == len(data.test)
    assert np.trace(result.confusion) / len(data.test) == pytest.approx(result.test["accuracy"])


def test_imports_are_timed_next_to_unbuilt_sources(tmp_path, monkeypatch):
    from peers.memory import import_seconds

    (tmp_path / "cyconv").mkdir()
    (tmp_path / "cyconv" / "__init__.py").write_text("raise ImportError('not built')")
    monkeypatch.chdir(tmp_path)
    assert import_seconds("cyconv") > 0
