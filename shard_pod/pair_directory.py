"""The pair's shared directory as the supervisor sees it: the files of evaluation.pair.protocol's protocol."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from evaluation.pair.decisions import Exit, parse_exit

_STATUS_FILES = (
    "supervisor/start*",
    "supervisor/stop*",
    "supervisor/next*",
    "supervisor/subset*",
    "supervisor/exit_code",
    "*/ready*",
    "*/exit*",
)


def write_whole(path: Path, content: bytes) -> None:
    """Write so that readers see the old content or all of the new; follows no link that an agent may have planted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    remove(fresh)
    with fresh.open("xb") as file:
        file.write(content)
    if path.is_dir() and not path.is_symlink():
        remove(path)
    fresh.replace(path)


def remove(path: Path) -> None:
    """Take away what is there; a folder, which only an agent puts in a file's place, is renamed with all it holds."""
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):  # Linux, macOS
        path.rename(path.with_name(f".{path.name}.{uuid4().hex}"))


def read_whole(path: Path, limit: int = 1 << 26) -> bytes | None:
    """The file's last `limit` bytes, or None where there is no regular file."""
    return _read(path, lambda size: max(0, size - limit), limit)


def read_part(path: Path, start: int, limit: int) -> bytes:
    """At most `limit` bytes from `start` on; none where there is no regular file."""
    return _read(path, lambda _: start, limit) or b""


def _read(path: Path, start_of: Callable[[int], int], limit: int) -> bytes | None:
    # The agent writes in a directory that is read here: a link could lead to credentials, a pipe blocks.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as file:
            file.seek(start_of(status.st_size))
            return file.read(limit)
    finally:
        os.close(descriptor)


def size(path: Path) -> int:
    """In bytes; 0 where there is no regular file."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def changed(path: Path) -> tuple[int, int] | None:
    """Time and size of what is there, to be compared with later ones; None where there is nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


class PairDirectory:
    """Reads what the other parties publish, and publishes what the supervisor decides."""

    def __init__(self, pair_dir: Path) -> None:
        self.supervisor = pair_dir / "supervisor"
        self.simulator = pair_dir / "simulator"
        self.agent = pair_dir / "agent"
        self.exit_code = self.supervisor / "exit_code"
        self.good_checkpoint = self.supervisor / "checkpoint.json"
        self.progress = self.supervisor / "progress.json"
        self.observations = self.supervisor / "observations.json"
        self.all_routes = self.supervisor / "routes.xml"  # where they are pulled; the evaluator has those of its shard
        self.claims = self.supervisor / "claims.json"  # the shard's routes, where they are pulled
        self.shipped = self.supervisor / "shipped.json"
        self.logs = {
            "simulator": self.simulator / "simulator.log",
            "agent": self.agent / "agent.log",
            "supervisor": self.supervisor / "supervisor.log",
            "init": self.supervisor / "init.log",
            "evaluator": self.supervisor / "evaluator.log",  # of the container that copies it
        }

    def publish(self, name: str, content: str) -> None:
        write_whole(self.supervisor / name, f"{content}\n".encode())

    def published(self, name: str) -> str | None:
        content = read_whole(self.supervisor / name)
        return None if content is None else content.decode().strip()

    def latest_start(self) -> int:
        """The number of the pair's latest start in this pod, 0 before the first."""
        return max(
            (int(path.name[5:]) for path in self.supervisor.glob("start*") if path.name[5:].isdigit()), default=0
        )

    def ready_port(self, start: int) -> int | None:
        """The port of the start's simulator; None before it is ready."""
        content = (read_whole(self.simulator / f"ready{start}", 100) or b"").strip()
        return int(content) if content.isdigit() else None

    def simulator_exit(self, start: int) -> Exit | None:
        content = read_whole(self.simulator / f"exit{start}", 100)
        return None if content is None else parse_exit(content.decode(errors="replace"))

    def agent_exit(self, start: int) -> Exit | None:
        """None where nothing is there. What is not a file was put there by the agent: an end by itself with code 1."""
        path = self.agent / f"exit{start}"
        content = read_whole(path, 100)
        if content is not None:
            return parse_exit(content.decode(errors="replace"))
        return Exit(1, note="its exit file is not a file that can be read") if os.path.lexists(path) else None

    @property
    def agent_was_there(self) -> bool:
        """Whether the agent's script has begun: it writes its log first."""
        return os.path.lexists(self.logs["agent"])

    def clear(self) -> None:
        """Remove the status files of an earlier pod."""
        for pattern in _STATUS_FILES:
            for path in self.supervisor.parent.glob(pattern):
                path.unlink(missing_ok=True)
