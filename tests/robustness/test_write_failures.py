"""Every function that writes a file: a full disk or a missing permission is one sentence, and the old file stays.

Only a regular file is replaced, and it keeps its links, mode and owner; writers of the same file, killed ones as
well, do not get in each other's way.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from builds import subprocess_environment
from concurrency import in_threads
from full_disk import disk_full, file_size_limit
from tiny_run import fit, make_network, make_trainer

import cyconv
from cyconv import _files
from cyconv.experiments import Result, Run, course_layout, plots, run_experiment

pytest.importorskip("resource")


@pytest.fixture(scope="module")
def writers():
    """name -> writer(path) of every file that the package writes."""
    history = fit(make_trainer())
    data = cyconv.make_shapes(60, 20, 20)
    result = run_experiment(
        Run("tiny", filter_size=8, n_filters=2, n_hidden=4, step_size=2, n_cycles=1, batch_size=10), data
    )
    schedule = cyconv.CyclicSchedule(0, 1, 5, 2)
    return {
        "network": make_network().save,
        "history": history.save,
        "csv": history.to_csv,
        "result": result.save,
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
    """A file that exists already."""
    path = tmp_path / "file.png"
    path.write_bytes(b"what stood there")
    return path


def assert_nothing_changed(path, error):
    assert path.read_bytes() == b"what stood there" and os.listdir(path.parent) == [path.name]
    assert isinstance(error, OSError) and str(path) in str(error) and "\n" not in str(error)


def test_an_existing_file_is_replaced(write, path):
    write(path)
    assert path.stat().st_size > 16 and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("limit", [0, 100, 300])
def test_a_disk_that_fills_up(write, path, limit):
    with file_size_limit(limit), pytest.raises(OSError, match="cannot write") as caught:
        write(path)
    assert_nothing_changed(path, caught.value)


@pytest.mark.parametrize("function", ["fsync", "replace", "chmod"])
def test_a_failure_at_the_last_moment(write, path, function, monkeypatch):
    monkeypatch.setattr(os, function, disk_full)
    with pytest.raises(OSError, match="cannot write .*: No space left on device") as caught:
        write(path)
    assert_nothing_changed(path, caught.value)


@pytest.fixture
def closed_folder():
    """A folder that may be read but not written; root becomes another user meanwhile."""
    folder = Path(tempfile.mkdtemp())
    (folder / "file.png").write_bytes(b"what stood there")
    (folder / "file.png").chmod(0o666)
    (folder / "closed.npz").touch(mode=0)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_without_permission(write, closed_folder):
    with pytest.raises(PermissionError) as caught:
        write(closed_folder / "file.png")
    assert (closed_folder / "file.png").read_bytes() == b"what stood there" and len(os.listdir(closed_folder)) == 2
    assert "cannot" in str(caught.value) and str(closed_folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_permission(write, closed_folder):
    """Even in a writable folder, where it could be replaced, a protected file is respected."""
    user = os.geteuid()
    os.seteuid(os.getuid())
    closed_folder.chmod(0o777)
    os.seteuid(user)
    with pytest.raises(PermissionError, match="must be a file that can be written, but .*closed.npz cannot"):
        write(closed_folder / "closed.npz")
    assert (closed_folder / "closed.npz").stat().st_size == 0 and len(os.listdir(closed_folder)) == 2


def test_a_missing_folder_and_a_folder_in_place_of_a_file(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        write(tmp_path / "nowhere" / "file.png")
    with pytest.raises(IsADirectoryError, match="must be a file"):
        write(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "load",
    [cyconv.Network.load, cyconv.History.load, cyconv.CyclicTrainer.resume, Result.load, course_layout.read_debug_file],
)
def test_a_file_without_read_permission(load, closed_folder):
    with pytest.raises(PermissionError, match="closed.npz"):
        load(closed_folder / "closed.npz")


def test_file_name_and_folder_are_synced_in_this_order(write, path, monkeypatch):
    """So that a power failure leaves the old file or the new one."""
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


# What is no regular file, links, modes, owners ------------------------------------------


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def make_device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices cannot be made here")


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device])
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
def test_special_files_are_refused_and_stay(write, tmp_path, make, linked):
    path = tmp_path / "special"
    make(path)
    before = os.lstat(path)
    named = path
    if linked:
        named = tmp_path / "link"
        named.symlink_to("special")
    entries = sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError, match="must be a regular file or a new one, but") as caught:
        write(named)
    assert str(named) in str(caught.value) and "\n" not in str(caught.value)
    after = os.lstat(path)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert sorted(os.listdir(tmp_path)) == entries and named.is_symlink() == linked


@pytest.mark.parametrize("target", ["there already", "not there yet"])
def test_links_are_followed(write, tmp_path, target):
    (tmp_path / "disk").mkdir()
    real, middle, link = tmp_path / "disk" / "real", tmp_path / "middle", tmp_path / "link"
    if target == "there already":
        real.write_bytes(b"what stood there")
    middle.symlink_to("disk/real")
    link.symlink_to(middle)
    write(link)
    assert link.is_symlink() and middle.is_symlink() and not real.is_symlink() and real.stat().st_size > 16
    assert os.listdir(tmp_path / "disk") == ["real"] and sorted(os.listdir(tmp_path)) == ["disk", "link", "middle"]


def test_links_that_lead_nowhere(write, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="must be a file that can be written, but .*a cannot"):
        write(tmp_path / "a")
    (tmp_path / "c").symlink_to("nowhere/c")
    with pytest.raises(FileNotFoundError, match="must lie in an existing folder"):
        write(tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_the_mode_is_preserved(write, path, mode):
    path.chmod(mode)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.stat().st_size > 16


def test_a_new_file_has_the_mode_that_the_umask_leaves(write, tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owner_and_group_are_preserved(write, path):
    os.chown(path, 1234, 4321)
    path.chmod(0o600)
    write(path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o600) and found.st_size > 16


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_writing_succeeds_where_the_owner_cannot_be_preserved(write, path, monkeypatch):
    def forbidden(*args):
        raise PermissionError(1, "Operation not permitted")

    os.chown(path, 1234, 4321)
    monkeypatch.setattr(os, "chown", forbidden)
    write(path)
    assert path.stat().st_size > 16 and path.stat().st_uid == 0 and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "-", "[a-z]*"])
def test_any_name_that_the_file_system_accepts(write, tmp_path, name):
    for _ in range(2):
        write(tmp_path / name)
        assert os.listdir(tmp_path) == [name] and (tmp_path / name).stat().st_size > 16


# Several writers ----------------------------------------------------------------------


def kill_while_writing(path):
    """Run a process that is killed while it writes ``path``."""
    code = (
        "import os, sys; from cyconv._files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file: file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, path], env=subprocess_environment())
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_the_next_writer_removes_what_a_killed_one_left(write, path):
    other = path.with_name("other")
    for killed in (path, path, other):
        kill_while_writing(killed)
    assert path.read_bytes() == b"what stood there" and not other.exists()
    left = set(os.listdir(path.parent)) - {path.name}
    assert 2 <= len(left) <= 3 and all(name.startswith(".") and len(name) < 50 for name in left)
    write(path)
    assert path.stat().st_size > 16 and len(os.listdir(path.parent)) == 2  # what belongs to the other file stays
    _files.write_text(other, "")
    assert sorted(os.listdir(path.parent)) == [path.name, "other"]


def test_a_writer_does_not_disturb_another_one(write, path):
    with _files.atomic_write(path) as file:
        file.write(b"the slower one's")
        file.flush()
        write(path)
        _files.check_writable("path", path)
        assert path.stat().st_size > 16
    assert path.read_bytes() == b"the slower one's" and os.listdir(path.parent) == [path.name]


def test_many_writers_of_one_file(path):
    def write_and_read(number):
        for _ in range(40):
            _files.write_text(path, str(number) * 5000)
            text = path.read_text()
            assert len(text) == 5000 and len(set(text)) == 1

    in_threads(write_and_read, range(6))
    assert os.listdir(path.parent) == [path.name]
