"""Run directories: one a shard Job, named after it, with a pod in it (local_jobs.pod_process) while the Job runs."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from evaluation.errors import ServiceUnavailable
from evaluation.pair.protocol import PairExitCode

PODS = 3  # a Job's pod that is lost is replaced twice
START_SECONDS = 10.0
# What the pair may know of the environment that we run in. No credentials, no proxies, no home directory.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
_PACKAGES = Path(__file__).resolve().parents[1]
_EXIT_CODES = frozenset(str(int(exit_code)) for exit_code in PairExitCode)


def plain_environment() -> dict[str, str]:
    """The environment of every process of a pod: a short list of harmless variables, and where our packages are."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed, "PYTHONPATH": str(_PACKAGES), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one Job; everything that is known of it is there, so that any process can take over."""

    path: Path

    @property
    def pair_dir(self) -> Path:
        return self.path / "pair"

    @property
    def exit(self) -> str | None:
        """How the pod ended, or None while it has not."""
        return _text(self.path / "exit")

    @property
    def launches(self) -> int:
        return int(_text(self.path / "launches") or 0)

    @property
    def pid(self) -> int | None:
        content = _text(self.path / "pod.json")
        return int(json.loads(content)["pid"]) if content else None

    @property
    def lost(self) -> bool:
        """Whether its pod is dead without a word."""
        return self.launches > 0 and not self.alive and self.exit is None

    @property
    def alive(self) -> bool:
        """Whether a pod lives in it: the system takes a dead process's lock away, whatever killed it."""
        return _is_locked(self.path / "pod.lock")

    @property
    def needs_pod(self) -> bool:
        """Whether it has no pod and may have one: its first, or one in the place of a pod that was lost."""
        if (self.path / "removing").exists() or not (self.path / "job.json").exists() or self.alive:
            return False
        return self.launches < PODS and (self.exit is None or self.broken)

    @property
    def launching(self) -> bool:
        """Whether some process starts a pod here just now."""
        return _is_locked(self.path / "launch.lock")

    def accept(self, job: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
        """Create the Job and its pod, or adopt what is there; a pod that was lost is replaced within its budget."""
        self.create(job)
        with self.alone():
            if self.needs_pod:
                self.launch(secrets)

    def create(self, job: Mapping[str, Any]) -> None:
        """Create the Job without a pod, or adopt what is there."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.alone():
            if not (self.path / "job.json").exists():
                write_whole(self.path / "job.json", json.dumps(job))

    def forbid(self) -> None:
        """Let no pod start here any more, so that a watcher does not start one in what is being removed."""
        with suppress(FileNotFoundError), self.alone():
            write_whole(self.path / "removing", "")

    def launch(self, secrets: Mapping[str, str]) -> None:
        """Start a pod, under `alone`; returns when it lives or has ended. Raises ServiceUnavailable."""
        for orphan in processes_of(str(self.pair_dir)):
            _kill(orphan)
        (self.path / "exit").unlink(missing_ok=True)
        write_whole(self.path / "launches", str(self.launches + 1))
        _start_pod(self.path, {**plain_environment(), **secrets, "PAIR_DIR": str(self.pair_dir)})
        deadline = time.monotonic() + START_SECONDS
        while not self.alive and self.exit is None:
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"The pod of {self.path.name} does not start", _text(self.path / "pod.log") or ""
                )
            time.sleep(0.02)

    @property
    def broken(self) -> bool:
        """Whether the pod ended with a code that is none of the pair's: another pod may succeed."""
        return self.exit is not None and self.exit not in ("deadline", *_EXIT_CODES)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The only one to change this directory; pods and readers do not ask."""
        with (self.path / "launch.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _start_pod(directory: Path, environment: Mapping[str, str]) -> None:
    """Start a pod as an orphan, so that it outlives this process and leaves no zombie to it."""
    pod = [sys.executable, "-S", "-m", "local_jobs.pod_process", str(directory)]
    with (directory / "pod.log").open("ab") as log:
        subprocess.run(  # noqa: S603 - our own command
            ["/bin/sh", "-c", '"$@" & exit 0', "sh", *pod],
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=True,
        )


def processes_of(pair_dir_prefix: str) -> list[psutil.Process]:
    """Every living process whose PAIR_DIR begins so: a pod's, its parties', their children's, orphans included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PAIR_DIR", "").startswith(pair_dir_prefix):
                found.append(process)
        except (psutil.Error, OSError):  # gone, a zombie, or not ours
            continue
    return found


def describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({' '.join(process.cmdline())[:120]})"
    except psutil.Error:
        return f"process {process.pid}"


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def end_processes(
    pair_dir_prefix: str, pods: Collection[int | None], grace: float, deadline: float
) -> list[psutil.Process]:
    """TERM to the pods, KILL to everything after `grace` seconds; what is left after `deadline` seconds."""
    began = time.monotonic()
    for process in processes_of(pair_dir_prefix):
        if process.pid in pods:
            process.terminate()
    while left := processes_of(pair_dir_prefix):
        elapsed = time.monotonic() - began
        if elapsed > deadline:
            return left
        if elapsed > grace or not any(process.pid in pods for process in left):
            for process in left:
                _kill(process)
        time.sleep(0.05)
    return []


def tail(path: Path, lines: int) -> str:
    """The file's last lines, at most 64 KiB of them; empty where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - (1 << 16)))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_whole(path: Path, content: str) -> None:
    """Write the file so that no reader sees a part of it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(content)
    fresh.replace(path)
