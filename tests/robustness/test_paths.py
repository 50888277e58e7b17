"""Paths as people type them: ~ and environment variables, wherever a path is accepted."""

import os
from pathlib import Path

import numpy as np
import pytest
from tiny_run import fit, make_network, make_trainer

import cyconv
from cyconv import _files
from cyconv.datasets import cifar, find_cifar10
from cyconv.experiments import DataSource, Result, Run, RunFiles, course_layout, plots, run_experiment
from cyconv.experiments.search import Journal, Search

NOBODY = "~nobody-of-this-name/x"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The home folder, next to the working folder; $PLACE names a third."""
    for name in ("home", "here", "place"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("~/x", "home/x"),
        (Path("~/x"), "home/x"),
        ("~", "home"),
        ("$PLACE/x", "place/x"),
        ("${PLACE}/x", "place/x"),
        ("~/$NAME", "home/name"),
        ("$UNKNOWN/x", "here/$UNKNOWN/x"),
        ("a$", "here/a$"),
        ("x~", "here/x~"),
        ("x/~", "here/x/~"),
        ("./~", "here/~"),
        ("./~/x", "here/~/x"),
        (Path("$PLACE/x"), "here/$PLACE/x"),
        (Path("./x"), "here/x"),
    ],
)
def test_paths_are_expanded(typed, meant, tmp_path, monkeypatch):
    monkeypatch.setenv("NAME", "name")
    monkeypatch.delenv("UNKNOWN", raising=False)
    found = _files.check_path("path", typed)
    assert found.absolute() == tmp_path / meant
    assert _files.check_path("path", found) == found  # it may be passed on


def test_a_folder_named_tilde_can_be_written_as_a_relative_path(home):
    os.mkdir("~")
    data = cyconv.make_shapes(60, 20, 20)
    run = Run("tiny", filter_size=8, n_filters=2, n_hidden=4, step_size=2, n_cycles=1, batch_size=10)
    run_experiment(run, data, folder="./~", progress=False)
    assert RunFiles("./~", run).result.is_file() and Path(os.getcwd(), "~", "network-tiny-seed0.npz").is_file()
    assert os.listdir(home) == []


@pytest.mark.parametrize("typed", [NOBODY, Path(NOBODY)])
def test_an_unknown_home_folder_is_one_sentence(typed):
    for call in (
        make_network().save,
        cyconv.Network.load,
        cyconv.load_cifar10,
        cyconv.load_cifar100,
        cyconv.load_npz,
        cyconv.download_cifar10,
        find_cifar10,
        lambda path: fit(make_trainer(), checkpoint=path),
        lambda path: DataSource(folder=path),
    ):
        with pytest.raises(ValueError, match="^(path|folder|data|checkpoint) must be a path whose home folder is k"):
            call(typed)
    assert os.listdir() == []


def test_without_a_home_folder_it_is_not_searched(monkeypatch, tmp_path):
    monkeypatch.delenv("CYCONV_DATA", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where HOME is unset and the user has no entry
    for cache in ("", "~/cache", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        assert cifar.cache_folder() is None and find_cifar10() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cifar.cache_folder() == tmp_path / "cyconv"
    with pytest.raises(ValueError, match="home folder is known"):
        make_network().save("~/x")


@pytest.mark.parametrize("typed", ["~/data", "$PLACE/../home/data"])
def test_where_cifar10_is(typed, home, monkeypatch):
    folder = home / "data"
    folder.mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(bytes([3]) + bytes(range(256)) * 12)
    monkeypatch.setenv("CYCONV_DATA", typed)
    assert find_cifar10().resolve() == find_cifar10(typed).resolve() == folder
    with pytest.warns(UserWarning, match="not hold the original files"):
        assert len(cyconv.load_cifar10(typed, validation_size=1).train) == 4
    assert Path(DataSource(folder=typed).folder).resolve() == folder
    monkeypatch.delenv("CYCONV_DATA")
    folder.rename(home / "cyconv")
    monkeypatch.setenv("XDG_CACHE_HOME", "~")
    assert find_cifar10() == home / "cyconv"


def test_every_writer_and_reader(home, tmp_path):
    (home / "files").mkdir()
    trainer = make_trainer()
    for folder in ("~/files", "$PLACE"):
        history = fit(make_trainer(), checkpoint=f"{folder}/checkpoint")
        assert fit(cyconv.CyclicTrainer.resume(f"{folder}/checkpoint")).complete
        history.save(f"{folder}/history")
        history.to_csv(f"{folder}/csv")
        assert len(cyconv.History.load(f"{folder}/history")) == len(history)
        trainer.network.save(f"{folder}/network")
        cyconv.Network.load(f"{folder}/network")
        figure = plots.plot_learning_rate(trainer.schedule, "title")
        plots.save_figure(figure, f"{folder}/figure")
        plots.save_figures({"a": figure}, folder)
        np.savez(_files.check_path("path", f"{folder}/debug.npz"), X=np.zeros(3))
        assert list(course_layout.read_debug_file(f"{folder}/debug.npz")) == ["X"]
        run = Run("tiny", filter_size=8, n_filters=2, n_hidden=4, step_size=2, n_cycles=1, batch_size=10)
        run_experiment(run, cyconv.make_shapes(60, 20, 20), folder=folder, progress=False)
        assert Result.load(f"{folder}/run-tiny-seed0.npz").complete and RunFiles(folder, run).network.is_file()
        assert Journal(f"{folder}/search", Search(run), {}).path.parent in (home / "files", tmp_path / "place")
    written = sorted(os.listdir(home / "files"))
    assert written == sorted(os.listdir(tmp_path / "place")) and len(written) == 10
    assert os.listdir() == []
