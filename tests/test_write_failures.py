"""Whatever writes a file: on a full disk or without permission one sentence, and what stood there stays."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from tiny_run import fit, make_network, make_trainer

import cyconv
from cyconv import _files, course_layout, plots
from cyconv.experiment import Result, Run, run_experiment

resource = pytest.importorskip("resource")


@pytest.fixture(scope="module")
def writers():
    """name -> writer(path) of every file that the package writes."""
    history = fit(make_trainer())
    data = cyconv.make_shapes(60, 20, 20)
    result = run_experiment(Run("tiny", filter_size=8, n_filters=2, n_hidden=4, step_size=2, n_cycles=1,
                                batch_size=10), data)
    schedule = cyconv.CyclicSchedule(0, 1, 5, 2)
    return {
        "network": make_network().save, "history": history.save, "csv": history.to_csv, "result": result.save,
        "checkpoint": lambda path: fit(make_trainer(), checkpoint=path),
        "text": lambda path: _files.write_text(path, "a line\n" * 1000),
        "json": lambda path: _files.write_json(path, list(range(1000))),
        "figure": lambda path: plots.save_figure(plots.plot_learning_rate(schedule, "title"), path),
    }


@pytest.fixture(params=["network", "history", "csv", "result", "checkpoint", "text", "json", "figure"])
def write(request, writers):
    return writers[request.param]


@pytest.fixture
def path(tmp_path):
    """A file of ours that stands there already."""
    path = tmp_path / "file.png"
    path.write_bytes(b"what stood there")
    return path


def assert_nothing_changed(path, error):
    assert path.read_bytes() == b"what stood there" and os.listdir(path.parent) == [path.name]
    assert isinstance(error, OSError) and str(path) in str(error) and "\n" not in str(error)


def test_writes_where_it_can(write, path):
    write(path)
    assert path.stat().st_size > 16 and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("limit", [0, 100, 300])
def test_a_disk_that_fills_up(write, path, limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="cannot write") as caught:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_nothing_changed(path, caught.value)


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod"])
def test_a_failure_at_the_last_moment(write, path, function, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="cannot write .*: No space left on device") as caught:
        write(path)
    assert_nothing_changed(path, caught.value)


@pytest.fixture
def closed_folder():
    """A folder that may be read and not written; who runs the tests as root is somebody else meanwhile."""
    folder = Path(tempfile.mkdtemp())
    (folder / "file.png").write_bytes(b"what stood there")
    (folder / "closed.npz").touch(mode=0)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


def test_a_folder_without_permission(write, closed_folder):
    with pytest.raises(PermissionError) as caught:
        write(closed_folder / "file.png")
    assert (closed_folder / "file.png").read_bytes() == b"what stood there" and len(os.listdir(closed_folder)) == 2
    assert "cannot" in str(caught.value) and str(closed_folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_and_a_file_that_is_one(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        write(tmp_path / "nowhere" / "file.png")
    with pytest.raises(IsADirectoryError, match="must be a file"):
        write(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("load", [cyconv.Network.load, cyconv.History.load, cyconv.CyclicTrainer.resume, Result.load,
                                  course_layout.read_debug_file])
def test_a_file_that_may_not_be_read(load, closed_folder):
    with pytest.raises(PermissionError, match="closed.npz"):
        load(closed_folder / "closed.npz")


def test_order_of_what_reaches_the_disk(write, path, monkeypatch):
    """The file's bytes, then its name, then the folder: a power cut leaves the old file or the new one."""
    done, fsync, replace = [], os.fsync, os.replace

    def note_fsync(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_replace(source, target):
        done.append("name")
        assert os.path.dirname(source) == str(path.parent) and os.path.getsize(source) > 16
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(path)
    assert done[-3:] == ["file", "name", "folder"] and len(done) % 3 == 0
