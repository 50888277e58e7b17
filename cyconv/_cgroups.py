"""The control groups that Linux holds this process to."""

from collections.abc import Iterator
from pathlib import Path

ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Folders of the groups whose limits count, from this process's own up to the root, in either version."""
    for line in read(membership).splitlines():
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if number != "0" and controller not in controllers.split(","):
            continue
        folder = (root if number == "0" else root / controller) / group.lstrip("/")
        for place in (folder, *folder.parents):
            yield place
            if place == root:
                break


def read(path: Path) -> str:
    """A file's text; empty where there is none."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
