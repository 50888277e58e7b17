"""Data sets from outside the package, and those that --data recognises, through runs, searches and scripts."""

import pickle

import numpy as np
import pytest
from strict import strict_json

import cyconv
from cyconv.datasets import files
from cyconv.datasets.split import cut
from cyconv.experiments import DataSource, Run, plots, report, run_experiment
from cyconv.experiments.search import Journal, Search, describe_splits, run_search

TINY = Run("tiny", n_filters=2, n_hidden=4, step_size=10, n_cycles=1, log_every=10, batch_size=20)
SIZES = {"train": 300, "test": 60}


def grey(n, size=32):
    """Grey images whose brightness tells their class, one of seven."""
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 7, n)
    return (rng.integers(0, 40, (n, size, size)) + 30 * labels[:, None, None]).astype(np.uint8), labels


@pytest.fixture
def write_npz(tmp_path):
    """write_npz(name, image width, training images) -> str: seven classes of grey images."""

    def write(name="grey.npz", size=32, n=SIZES["train"]):
        arrays = {}
        for which, count in {**SIZES, "train": n}.items():
            arrays[f"{which}_images"], arrays[f"{which}_labels"] = grey(count, size)
        np.savez(tmp_path / name, **arrays)
        return name

    return write


@pytest.fixture
def cifar100_folder(tmp_path):
    """Small files in the format of CIFAR-100's binary version."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, n in (("train", 1200), ("test", 60)):
        fine = np.arange(n) % 100
        pixels = np.random.default_rng(n).integers(0, 256, (n, 3072))
        records = np.concatenate([fine[:, None] // 5, fine[:, None], pixels], axis=1).astype(np.uint8)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def own_dataset():
    """A data set made of arrays, as in a notebook."""
    images, labels = grey(200, 12)
    splits = [cyconv.Split(images[part, None], labels[part]) for part in (slice(100), slice(100, 150), slice(150, 200))]
    return cyconv.Dataset(*splits, [f"level {k}" for k in range(7)], "levels")


@pytest.mark.usefixtures("on_one_thread")
def test_a_data_set_of_arrays_is_trained_on(tmp_path):
    result = run_experiment(TINY, own_dataset(), tmp_path, progress=False)
    assert result.complete and result.confusion.shape == (7, 7) and result.data["name"] == "levels"
    assert result.filters[0].shape == (2, 1, 4, 4)


@pytest.mark.usefixtures("on_one_thread")
def test_float_images_and_probabilities_are_trained_on():
    images, labels = grey(100, 12)
    split = cyconv.Split((images[:, None] / 128 - 1).astype(np.float32), np.eye(7)[labels] * 0.93 + 0.01)
    result = run_experiment(TINY, cyconv.Dataset(split, split, split, list("abcdefg"), "soft"), progress=False)
    assert result.complete and result.confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=7).tolist()


@pytest.mark.usefixtures("on_one_thread")
def test_a_data_set_of_arrays_is_searched_on(tmp_path):
    search, data = Search(TINY, 1e-4, 1e-2, n_rounds=1, n_samples=2, n_seeds=1), own_dataset()
    journal = Journal(tmp_path / "search.json", search, describe_splits(data))
    assert len(list(run_search(search, data, journal))) == 2
    with pytest.raises(TypeError, match="source must be a Dataset or a DataSource"):
        describe_splits(data.train)


def test_a_source_of_an_npz_is_loaded_again_when_it_was_written_anew(tmp_path, write_npz, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = DataSource(write_npz())
    first = pickle.loads(pickle.dumps(source)).load()
    assert first is source.load() and len(first.train) == 270
    write_npz(n=100)
    assert len(source.load().train) == 90


def test_a_source_recognises_cifar100(cifar100_folder):
    with pytest.warns(UserWarning, match="original files"):
        fine, coarse = (DataSource(cifar100_folder, labels=labels).load() for labels in ("fine", "coarse"))
    assert (fine.n_classes, coarse.n_classes) == (100, 20)
    assert coarse.name == "CIFAR-100, coarse labels (not the original files)"
    with pytest.raises(ValueError, match="protocol must be 'full' for CIFAR-100, but got 'batch1'"):
        DataSource(cifar100_folder, protocol="batch1").load()
    with pytest.raises(ValueError, match="labels must be 'fine' for the synthetic shapes, but got 'coarse'"):
        DataSource(labels="coarse").load()


@pytest.fixture
def exercise3(load_script, run_script):
    module = load_script("exercise3", QUICK={"step_size": 5, "log_every": 10})
    return lambda *arguments: run_script(module, *arguments)


@pytest.mark.parametrize("variable", [False, True])
def test_exercise3_trains_on_an_npz(exercise3, write_npz, tmp_path, capsys, monkeypatch, variable):
    name = write_npz("my$set_1$.npz")
    if variable:
        monkeypatch.setenv("CYCONV_DATA", name)
    assert exercise3("--quick", "--output", "out", *([] if variable else ["--data", name])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Data set: {name}, 270 training, 30 validation and 60 test images."
    assert lines[-1] == f"Results on {name} are in out" and "CIFAR" not in "".join(lines)
    document = strict_json(tmp_path / "out" / "results.json")
    assert document["data_set"] == name and len(document["runs"]) == 7
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert {f"part{part}-{what}.png" for part in (1, 2) for what in ("curves", "filters", "confusion")} <= pictures


def test_the_name_of_a_file_is_no_formula_in_the_title_of_a_figure():
    data = own_dataset()
    data = cyconv.Dataset(data.train, data.validation, data.test, data.class_names, "my$set_1$.npz")
    figure = plots.plot_bars({"a": [0.5]}, f"Test accuracy\n{report.describe_origin(data)}", "accuracy")
    shown, is_math = figure._suptitle._preprocess_math(figure._suptitle.get_text())
    assert not is_math and "my$set_1$.npz" in shown


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_exercise3_trains_on_cifar100(exercise3, cifar100_folder, tmp_path, capsys, labels):
    arguments = ("--quick", "--part", "2", "--data", str(cifar100_folder), "--labels", labels, "--output", labels)
    assert exercise3(*arguments) == 0
    name = {"fine": "CIFAR-100", "coarse": "CIFAR-100, coarse labels"}[labels]
    captured = capsys.readouterr()
    assert captured.out.startswith(f"Data set: {name} (not the original files), 200 training, 1,000 validation")
    assert captured.err.startswith("note: ")
    n = {"fine": 100, "coarse": 20}[labels]
    assert np.shape(strict_json(tmp_path / labels / "results.json")["runs"][0]["confusion"]) == (n, n)


def test_a_data_set_with_files_of_its_own_is_one_entry_away(exercise3, tmp_path, capsys, monkeypatch):
    """As CONTRIBUTING describes it, with a loader that lies outside the package."""

    def load_levels(path):
        images, labels = grey(400, 16)
        return cut(images[:, None], labels, 300, 350, [f"level {k}" for k in range(7)], path.stem)

    levels = files.FileFormat("levels", "a .levels file", lambda path: path.suffix == ".levels", load_levels)
    monkeypatch.setattr(files, "FORMATS", (*files.FORMATS, levels))
    assert exercise3("--quick", "--part", "2", "--data", "seven.levels", "--output", "out") == 0
    assert capsys.readouterr().out.startswith("Data set: seven, 300 training, 50 validation and 50 test images.")
    assert exercise3("--data", "seven.other") == 2
    assert ", or a .levels file, but there is none at seven.other" in capsys.readouterr().err


SCRIPTS = {
    "exercise3": {"QUICK": {"step_size": 2, "log_every": 10}},
    "exercise4": {"QUICK": {"n_filters": 2, "n_hidden": 4, "step_size": 2}},
    "course_tables": {"QUICK": {"n_filters": 2, "n_hidden": 4, "step_size": 2}},
    "push_accuracy": {},
    "compare_schedules": {"QUICK": {"step_size": 2, "log_every": 10}},
    "lr_range": {"N_STEPS": 20},
    "search_l2": {"QUICK": {"rounds": 1, "samples": 2}},
    "verify_gradients": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", *(name for name in SCRIPTS if name != "exercise3")])
def test_every_script_takes_an_npz(load_script, run_script, write_npz, capsys, name):
    script = load_script(name, **SCRIPTS.get(name, {}))
    options = ["--executor", "serial"] if name == "search_l2" else []
    assert run_script(script, "--quick", "--data", write_npz(), "--output", "out", *options) == 0
    assert "Results on grey.npz are in out" in capsys.readouterr().out


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_does_not_go_with_the_data_is_refused_before_any_training(
    load_script, run_script, write_npz, tmp_path, capsys, name
):
    script = load_script(name)
    data = write_npz("narrow.npz", size=30)
    cases = {
        (
            "--data",
            data,
        ): f"cannot train on {data}: filter_size must divide the image's height 30 and width 30, but got",
        ("--data", data, "--protocol", "batch1"): "--protocol must be 'full' for data from an .npz, but got 'batch1'",
        ("--data", data, "--labels", "coarse"): "--labels must be 'fine' for data from an .npz, but got 'coarse'",
        ("--labels", "coarse"): "--labels must be 'fine' for the synthetic shapes, but got 'coarse'",
        ("--data", "none.npz"): "--data must be a folder of CIFAR-10's batch files",
    }
    for arguments, sentence in cases.items():
        assert run_script(script, "--quick", *arguments) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert ": error: " in last and sentence in last
    assert [path.name for path in tmp_path.iterdir()] == [data]


@pytest.mark.parametrize("name", ["ladder", "compare_pytorch", "exercise3_pytorch"])
def test_scripts_with_networks_for_cifar10_refuse_other_images(load_script, run_script, write_npz, capsys, name):
    if name != "ladder":
        pytest.importorskip("torch")
    assert run_script(load_script(name), "--quick", "--data", write_npz()) == 2
    sentence = (
        "--data must hold images of shape (3, 32, 32) in 10 classes for this script, but grey.npz has (1, 32, 32) in 7"
    )
    assert capsys.readouterr().err.strip().endswith(sentence)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"size": 28}, "'3: f=8, nf=40' cannot train on some.npz: filter_size must divide the image's height 28 and"),
        (
            {"n": 50},
            "'1: f=2, nf=3' cannot train on some.npz: its batches have 100 images, but there are 45 to train on",
        ),
    ],
)
def test_a_refusal_names_option_run_and_reason(exercise3, write_npz, capsys, arguments, sentence):
    assert exercise3("--data", write_npz("some.npz", **arguments)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"--data must hold images that every run can train on, but {sentence}" in last


def test_data_with_one_class_or_damage_are_refused(exercise3, tmp_path, capsys):
    images = np.zeros((200, 32, 32), np.uint8)
    np.savez(tmp_path / "one.npz", images=images, labels=np.zeros(200, int))
    np.savez(tmp_path / "empty.npz", validation_images=images[:0], validation_labels=[], test_images=images)
    np.savez(tmp_path / "wrong.npz", images=images, labels=np.zeros(200))
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:9000])
    for name, sentence in (
        ("one.npz", "n_classes must be an integer in [2, 1048576], but got 1"),
        ("empty.npz", "--data must hold train_images"),
        ("wrong.npz", "--data must hold valid images and labels, but in wrong.npz labels must be integers, but got"),
        ("damaged.npz", "--data must be an .npz file, but damaged.npz is not one or is damaged"),
    ):
        assert exercise3("--data", name) == 2
        assert sentence in capsys.readouterr().err.splitlines()[-1]
