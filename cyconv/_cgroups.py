"""The Linux control groups that limit this process."""

from collections.abc import Iterator
from pathlib import Path

ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Folders of the control groups that apply, from this process's own up to the root; cgroup v1 and v2."""
    for line in read(membership).splitlines():
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if number != "0" and controller not in controllers.split(","):
            continue
        folder = (root if number == "0" else root / controller) / group.lstrip("/")
        for ancestor in (folder, *folder.parents):
            yield ancestor
            if ancestor == root:
                break


def read(path: Path) -> str:
    """The text of a file, empty if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
