"""Downloads from a server on this machine: complete, resumed, broken and wrong ones."""

import contextlib
import hashlib
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from full_disk import file_size_limit
from pages import README

import cyconv
from cyconv.datasets import download as download_module, download_cifar10, find_cifar10
from cyconv.experiments.cli import run_script
from cyconv.experiments.commands import download as download_command

ARCHIVE = np.random.default_rng(0).bytes(700_000)
NAME = "cifar-10-binary.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content``, in the way that ``server.mode`` names."""

    def do_GET(self):
        content, mode = self.server.content, self.server.mode
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if mode == "missing":
            self.send_error(404)
            return
        start = 0
        if asked and mode != "ignores ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if mode == "refuses ranges":
                self.send_error(416)
                return
        if asked and mode == "another range":
            start = 0
        self.send_response(206 if asked and mode != "ignores ranges" else 200)
        if asked and mode != "ignores ranges":
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) // 2 if mode == "breaks off" else len(content)
        with contextlib.suppress(OSError):  # a client may have seen enough
            self.wfile.write(content[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module, "_MD5", hashlib.md5(ARCHIVE).hexdigest())
    monkeypatch.setattr(download_module, "_N_BYTES", len(ARCHIVE))
    for name in ("CYCONV_CIFAR10_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.mode, server.asked = ARCHIVE, "plain", []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/{NAME}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetches_into_a_new_folder(server, tmp_path):
    path = download_cifar10(tmp_path / "new" / "folder", url=server.url)
    assert path == tmp_path / "new" / "folder" / NAME
    assert path.read_bytes() == ARCHIVE and os.listdir(path.parent) == [NAME]


def test_does_not_fetch_what_is_there(server, tmp_path):
    for _ in range(2):
        download_cifar10(tmp_path, url=server.url)
    assert server.asked == [None]


def test_mirror_from_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CYCONV_CIFAR10_URL", server.url)
    assert download_cifar10(tmp_path).read_bytes() == ARCHIVE


def test_the_readmes_command_works_next_to_unbuilt_sources(server, tmp_path, environment, console_script):
    (command,) = re.findall(r"`\.venv/bin/cyconv (download[^`]*)`", README)
    shutil.copytree(Path(cyconv.__file__).parent, tmp_path / "cyconv", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    server.mode = "missing"  # the archive that the command would take is 170 MB
    done = subprocess.run(
        [sys.executable, console_script, *shlex.split(command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "CYCONV_CIFAR10_URL": server.url},
    )
    assert server.asked == [None] and done.returncode == 1
    sentence = f"CYCONV_CIFAR10_URL must lead to {NAME}, but {server.url} answered 404 Not Found"
    assert done.stderr == f"cyconv download: error: {sentence}\n" and (tmp_path / "cache" / "cyconv").is_dir()


@pytest.fixture
def download(server, tmp_path, monkeypatch, capsys):
    """download(*arguments) -> exit code, stdout, stderr: ``cyconv download`` in this process."""
    monkeypatch.setenv("CYCONV_CIFAR10_URL", server.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("CYCONV_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run_script(download_command.main, arguments)
        return code, *capsys.readouterr()

    return call


def test_the_command_downloads_to_where_data_are_found(download, tmp_path, server):
    code, output, _ = download()
    assert code == 0 and output.endswith("where every command finds it.\n")
    assert find_cifar10() == tmp_path / "cache" / "cyconv"
    assert (find_cifar10() / NAME).read_bytes() == ARCHIVE
    code, output, _ = download()
    assert code == 0 and "nothing was downloaded" in output and server.asked == [None]


@pytest.mark.parametrize("folder", ["data", "elsewhere"])
def test_the_command_says_how_to_use_its_folder(download, folder):
    code, output, _ = download(folder)
    assert code == 0 and (Path(folder) / NAME).read_bytes() == ARCHIVE
    assert ("where every command finds it" in output) == (folder == "data")
    assert (f"--data {folder}" in output) == (folder != "data")


def test_the_command_downloads_to_the_folder_of_cyconv_data(download, monkeypatch, tmp_path):
    monkeypatch.setenv("CYCONV_DATA", str(tmp_path / "mine"))
    code, output, _ = download()
    assert code == 0 and (tmp_path / "mine" / NAME).is_file() and "finds it" in output


def test_the_command_resumes(download, server):
    server.mode = "breaks off"
    code, _, errors = download("data")
    assert code == 1 and "broke off after 350000 of 700000 bytes" in errors and len(errors.splitlines()) == 1
    server.mode = "plain"
    assert download("data")[0] == 0 and server.asked == [None, "bytes=350000-"]


def test_a_mistake_on_the_command_line_is_one_sentence(download, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    code, _, errors = download("file")
    assert code == 2 and "error: FOLDER must be a folder, but got file" in errors and len(errors.splitlines()) == 1
    code, _, errors = download("file/below")
    assert code == 2 and f"error: cannot write {NAME} into file/below" in errors
    monkeypatch.setenv("CYCONV_CIFAR10_URL", "nowhere")
    code, _, errors = download("new")
    assert code == 2 and "error: CYCONV_CIFAR10_URL must be an http or https address" in errors


@pytest.mark.parametrize("mode", ["plain", "ignores ranges", "refuses ranges", "another range"])
def test_resumes_after_an_interruption(server, tmp_path, mode):
    server.mode = "breaks off"
    with pytest.raises(ConnectionError, match="broke off after 350000 of 700000 bytes"):
        download_cifar10(tmp_path, url=server.url)
    assert os.listdir(tmp_path) == [f"{NAME}.part"]
    server.mode = mode
    assert download_cifar10(tmp_path, url=server.url).read_bytes() == ARCHIVE
    assert os.listdir(tmp_path) == [NAME]
    assert server.asked == [None, "bytes=350000-"] + ([None] if mode == "refuses ranges" else [])


def test_a_complete_partial_file_needs_no_server(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(ARCHIVE)
    assert download_cifar10(tmp_path, url=server.url).read_bytes() == ARCHIVE
    assert server.asked == []


@pytest.mark.parametrize(
    "content, error, words",
    [
        (ARCHIVE[:-1] + b"x", ValueError, "url must lead to the published archive with MD5"),
        (ARCHIVE + b"x", ValueError, "sends more"),
        (ARCHIVE[:-1], ConnectionError, "broke off after 699999 of 700000"),
        (b"", ConnectionError, "broke off after 0 of"),
    ],
)
def test_wrong_contents_never_get_the_archives_name(server, tmp_path, content, error, words):
    server.content = content
    with pytest.raises(error, match=words):
        download_cifar10(tmp_path, url=server.url)
    assert not (tmp_path / NAME).exists()
    server.content = ARCHIVE
    if error is ValueError:
        assert download_cifar10(tmp_path, url=server.url).read_bytes() == ARCHIVE


def test_a_wrong_partial_file_is_reported_and_removed(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    with pytest.raises(ValueError, match="MD5"):
        download_cifar10(tmp_path, url=server.url)
    assert os.listdir(tmp_path) == []


def test_another_file_is_not_overwritten(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="move it away first"):
        download_cifar10(tmp_path, url=server.url)
    assert (tmp_path / NAME).read_bytes() == b"precious" and server.asked == []


def test_an_error_of_the_server(server, tmp_path):
    server.mode = "missing"
    with pytest.raises(ConnectionError, match="answered 404"):
        download_cifar10(tmp_path, url=server.url)


def test_an_unreachable_server(server, tmp_path):
    with pytest.raises(ConnectionError, match="cannot be reached"):
        download_cifar10(tmp_path, url="http://127.0.0.1:9/x")


def test_a_silent_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "_TIMEOUT", 0.1)
    monkeypatch.setattr(Handler, "do_GET", lambda self: threading.Event().wait(0.5))
    with pytest.raises(ConnectionError, match="cannot be reached: timed out"):
        download_cifar10(tmp_path, url=server.url)


def test_full_disk(server, tmp_path):
    with file_size_limit(300_000), pytest.raises(OSError, match=f"cannot write {NAME} into .*too large"):
        download_cifar10(tmp_path, url=server.url)
    assert not (tmp_path / NAME).exists()
    assert download_cifar10(tmp_path, url=server.url).read_bytes() == ARCHIVE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes need POSIX")
@pytest.mark.parametrize("name", [NAME, f"{NAME}.part"])
def test_special_files_are_refused_and_stay(server, tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileExistsError, match=f"^{name} must be a regular file or a new one, but .* is a named pipe$"):
        download_cifar10(tmp_path, url=server.url)
    assert (tmp_path / name).is_fifo() and os.listdir(tmp_path) == [name] and server.asked == []


def test_the_archive_may_be_a_symbolic_link(server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "disk").mkdir()
    link = tmp_path / "data" / NAME
    link.symlink_to(tmp_path / "disk" / "archive")
    assert download_cifar10(tmp_path / "data", url=server.url) == link
    assert link.is_symlink() and (tmp_path / "disk" / "archive").read_bytes() == ARCHIVE
    assert os.listdir(tmp_path / "data") == [NAME] and os.listdir(tmp_path / "disk") == ["archive"]


@pytest.mark.skipif(os.name != "posix", reason="file locks need POSIX")
def test_a_second_download_into_the_same_folder_is_refused(server, tmp_path, monkeypatch):
    fetch, refused = download_module._fetch, []

    def fetch_meanwhile(*arguments):
        monkeypatch.setattr(download_module, "_fetch", fetch)
        with pytest.raises(BlockingIOError, match="must be one that no other download fills"):
            download_cifar10(tmp_path, url=server.url)
        refused.append(True)
        fetch(*arguments)

    monkeypatch.setattr(download_module, "_fetch", fetch_meanwhile)
    assert download_cifar10(tmp_path, url=server.url).read_bytes() == ARCHIVE
    assert refused and os.listdir(tmp_path) == [NAME]


def test_folder_that_is_a_file(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError, match="folder must be a folder"):
        download_cifar10(tmp_path / "file", url=server.url)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot write"):
        download_cifar10(tmp_path, url=server.url)


def test_progress_is_shown_when_asked_for(server, tmp_path, capsys):
    download_cifar10(tmp_path / "a", url=server.url)
    assert capsys.readouterr().err == ""
    download_cifar10(tmp_path / "b", url=server.url, progress=True)
    assert "100%" in capsys.readouterr().err


def test_a_download_survives_an_unusable_stderr(server, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    for progress in (True, None):
        assert download_cifar10(tmp_path / str(progress), url=server.url, progress=progress).read_bytes() == ARCHIVE


@pytest.mark.parametrize(
    "url, error",
    [
        ("file:///etc/passwd", ValueError),
        ("ftp://example.org/x", ValueError),
        ("http://", ValueError),
        ("http://exa mple.org/", ValueError),
        ("http://[broken/", ValueError),
        (5, TypeError),
    ],
)
def test_refuses_addresses(tmp_path, monkeypatch, url, error):
    with pytest.raises(error, match="^url must be an"):
        download_cifar10(tmp_path, url=url)
    if isinstance(url, str):
        monkeypatch.setenv("CYCONV_CIFAR10_URL", url)
        with pytest.raises(error, match="^CYCONV_CIFAR10_URL must be an"):
            download_cifar10(tmp_path)
    assert os.listdir(tmp_path) == []
