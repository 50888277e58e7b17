"""The package's types as a user's type checker sees them, and the kernels' stubs."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import cyconv

CONTRACT = """
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import cyconv
from cyconv.experiments import report

version: str = cyconv.__version__
threads: int = cyconv.show_config()["threads"]
cyconv.set_num_threads(2)
threads = cyconv.get_num_threads()

folder = Path("folder")
data = cyconv.load_cifar10("folder", train_batches=(1, 2, 3, 4, 5), validation_size=1000)
data = cyconv.load_cifar10(folder, train_batches=(1,), validation_batches=[2])
data = cyconv.make_shapes(n_train=10000, n_validation=1000, n_test=2000, seed=0)
found: Path | None = cyconv.find_cifar10()
archive: Path = cyconv.download_cifar10(folder, progress=False)
data = cyconv.load_cifar100(folder, labels="coarse", validation_size=1000)
data = cyconv.load_npz("my.npz")
data = cyconv.load_npy(folder, validation_size=1000)
shape: tuple[int, int, int] = data.image_shape
images: NDArray[np.uint8] = data.train.images
labels: NDArray[np.int64] = data.train.labels
splits: tuple[cyconv.Split, ...] = (data.train, data.validation, data.test)
names: tuple[str, ...] = data.class_names
name: str = data.name
own = cyconv.Split([[[[1, 2], [3, 4]]]], [0])
data = cyconv.Dataset(own, own, own, class_names=["one"], name="own")
norm = cyconv.Normalizer.fit(images)
X: NDArray[np.float32] = norm(images)

net = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50, seed=0, dtype="float32")
deep = cyconv.Network((2, 4), [3, 10], np.array([50, 20]), dtype=np.float64, image_shape=(3, 32, 32), n_classes=10)
weight = 0.5 * net.parameters["conv.weight"]
net.set_parameters({name: array.astype(np.float64) for name, array in net.parameters.items()})
net.set_parameters(deep.parameters)
net.load_state_dict(deep.state_dict())
probabilities: NDArray[np.floating] = net.predict_proba(X)
classes: NDArray[np.int64] = net.predict(data.test)
cost, gradients = net.loss_and_gradients(X, labels, l2=0.0, label_smoothing=0.0)
step = {name: cost * gradient for name, gradient in gradients.items()}
evaluation: cyconv.Evaluation = net.evaluate(X, labels, l2=0.0)
total: float = evaluation.loss + evaluation.cost + evaluation.accuracy
source = net.prepare(images, labels, normalizer=None)
net.normalizer = norm
costs: NDArray[np.float64] = net.train_steps(
    source, np.arange(len(source)), [0.1, 0.2], batch_size=100, l2=0.0, label_smoothing=0.0)
net.evaluate(source, l2=0.0)
net.save("network.npz")
net = cyconv.Network.load(folder / "network.npz")

schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=800, n_cycles=3, growth=2.0, eta_max_decay=1.0)
rate: float = schedule(0)
rates: NDArray[np.float64] = schedule(np.arange(schedule.total_steps))
trainer = cyconv.CyclicTrainer(net, schedule, batch_size=100, l2=0.003, label_smoothing=0.0, seed=0)
history = trainer.fit(data.train, data.validation, log_every=50)
trainer.fit(data.train, data.validation, checkpoint="checkpoint.npz", checkpoint_every=500, progress=False)
trainer = cyconv.CyclicTrainer.resume(folder / "checkpoint.npz")
net = trainer.network
try:
    history = trainer.fit(data.train, data.validation, log_every=50)
except cyconv.Interrupted as stop:
    print(stop.signum)
except cyconv.DivergenceError as error:
    print(error.step, error.learning_rate)
cost_train: NDArray[np.float64] = history["cost_train"]
steps: NDArray[np.int64] = history["update_steps"]
seconds: float = history["training_time"] + history.update_time
curves = {key: history[key] for key in history}
history.save("history.npz")
history = cyconv.History.load("history.npz")
history.to_csv(folder / "history.csv")

augmented = cyconv.CyclicTrainer(net, schedule, augmentation=cyconv.Augmentation(flip=True, shift=2), snapshots=True)
ensemble = cyconv.Ensemble.from_snapshots(net, augmented.snapshots)
accuracy: float = ensemble.evaluate(data.test).accuracy
ranges: cyconv.LrRangeResult = cyconv.lr_range_test(net, data.train, n_steps=200)
figure = cyconv.experiments.plots.plot_comparison({"narrow": [history]}, "title", schedule.boundaries)
figure.savefig("figure.png")
result = cyconv.experiments.run_experiment(cyconv.experiments.Run("narrow", n_filters=3), data)
table: str = report.summary_table(report.summarise([result])).text()
"""

GIVEN = """
import cyconv

data = cyconv.make_shapes()
net = cyconv.Network(filter_size=4, n_filters=10, n_hidden=50)
norm = cyconv.Normalizer.fit(data.train.images)
schedule = cyconv.CyclicSchedule(1e-5, 1e-1, step_size=800, n_cycles=3)
trainer = cyconv.CyclicTrainer(net, schedule)
source = net.prepare(data.train.images, data.train.labels)
history = trainer.fit(data.train, data.validation)
"""

MISTAKES = {
    'cyconv.Network(filter_size="4", n_filters=10, n_hidden=50)': "filter_size",
    "cyconv.Netwrk(4, 10, 50)": "Netwrk",
    "net.normaliser = norm": "normaliser",
    "print(net.normaliser)": "normaliser",
    "net.normalizer = 3": "Normalizer",
    "net.save(3)": "save",
    "trainer.batchsize = 3": "batchsize",
    "print(trainer.batchsize)": "batchsize",
    "trainer.batch_size = 3": "batch_size",
    "cyconv.CyclicTrainer(net, schedule, batchsize=3)": "batchsize",
    "trainer.fit(data.train.images, data.validation)": "Split",
    "schedule.eta_max = 0.2": "eta_max",
    "norm.maen = norm.mean": "maen",
    "print(source.lables)": "lables",
    "print(history.accuracy)": "accuracy",
    'history["acc_train"] = 3': "History",
    "print(data.training)": "training",
    "cyconv.experiments.plots.plot_histories(history)": "plot_histories",
}


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """mypy(module, *arguments) -> output, exit code: run a module of mypy."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "mypy.ini").write_text(f"[mypy]\ncache_dir = {folder / 'cache'}\nignore_missing_imports = true\n")
    home = Path(cyconv.__file__).resolve().parents[1]
    installed = str(home) in map(sysconfig.get_path, ("purelib", "platlib"))
    environment = {**os.environ, "MYPYPATH": "" if installed else str(home)}

    def call(module, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return done.stdout + done.stderr, done.returncode

    return call


def checked(mypy, folder, script):
    (folder / "script.py").write_text(script)
    return mypy("mypy", "--strict", "--follow-imports=silent", "--config-file=mypy.ini", folder / "script.py")


@pytest.fixture(scope="module")
def found(mypy, tmp_path_factory):
    """mypy's message for each line of a script with all the mistakes."""
    said, code = checked(mypy, tmp_path_factory.mktemp("mistakes"), GIVEN + "\n".join(MISTAKES))
    assert code == 1, said
    lines = (GIVEN + "\n".join(MISTAKES)).splitlines()
    matches = re.findall(r"script\.py:(\d+): error: (.*)", said)
    return {lines[int(number) - 1]: message for number, message in matches}


@pytest.mark.optional
def test_mypy_accepts_a_script_that_uses_the_public_names(mypy, tmp_path):
    said, code = checked(mypy, tmp_path, CONTRACT)
    assert code == 0, said


@pytest.mark.optional
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mypy_finds_the_mistake(found, mistake):
    assert MISTAKES[mistake] in found[mistake]


@pytest.mark.optional
def test_mypy_reports_nothing_else(found):
    assert set(found) == set(MISTAKES)


def test_lazy_modules_are_not_imported_with_the_package():
    program = "import sys, cyconv; print([name for name in sys.argv[1:] if name in sys.modules])"
    names = [
        "matplotlib",
        "tqdm",
        "cyconv.experiments.executors",
        "cyconv.experiments",
        "cyconv.experiments.plots",
        "cyconv.reference",
        "cyconv.sklearn",
        "cyconv.experiments.report",
        "cyconv.experiments.search",
    ]
    done = subprocess.run([sys.executable, "-P", "-c", program, *names], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.optional
def test_the_kernels_stubs_match_the_compiled_modules(mypy, tmp_path):
    (tmp_path / "allowed").write_text(r".*\.__test__")  # which Cython adds
    said, code = mypy(
        "mypy.stubtest",
        "--mypy-config-file=mypy.ini",
        f"--allowlist={tmp_path / 'allowed'}",
        "cyconv._kernels.baseline",
        "cyconv._kernels.processor",
    )
    assert code == 0, said
