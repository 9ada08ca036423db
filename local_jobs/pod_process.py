"""A shard's pod on this machine, a small kubelet: one process that runs the supervisor, the simulator and the agent.

`python -S -m local_jobs.pod_process RUN_DIRECTORY` lives in a session of its own, apart from its starter. It
reads job.json there and writes:

    pod.lock    locked as long as this pod lives: there is one pod a run directory, and its death cannot be missed
    pod.json    {"pid": ..., "carla_port": ...}
    deadline    when the Job's time is over, in seconds since the epoch: it counts from the start of its first pod
    exit        the exit code, or `deadline`, written last and whole
    <name>.log  what each of its processes put out
    pair/       the shared directory of the pair

Standard library only: it starts in a few hundredths of a second.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import SystemRandom
from types import FrameType
from typing import Any, TextIO

POLL_SECONDS = 0.1
GRACE_SECONDS = 2.5  # from TERM to KILL
SUPERVISOR_RESTARTS = 3
TRAFFIC_MANAGER_OFFSET = 6000  # CARLA's own habit: 2000 and 8000
MISCONFIGURED, STOPPED, BROKEN = 40, 30, 1


class Pod:
    """The three processes and what became of them."""

    def __init__(self, directory: Path, job: dict[str, Any]) -> None:
        self._directory = directory
        self._job = job
        self._pair = directory / "pair"
        self._exit_code = self._pair / "supervisor" / "exit_code"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._supervisor_starts = 0
        self._stopped = False
        self._deadline = 0.0
        self._port, self._port_lock = free_carla_port()

    def run(self) -> str:
        """Run the pair to its end; the exit file's content."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        shutil.rmtree(self._pair, ignore_errors=True)
        for party in ("supervisor", "simulator", "agent"):
            (self._pair / party).mkdir(parents=True)
        self._deadline = deadline_of(self._directory, float(self._job["deadline_seconds"]))
        write_whole(self._directory / "pod.json", json.dumps({"pid": os.getpid(), "carla_port": self._port}))
        try:
            self._start_supervisor()
            for party in ("simulator", "agent"):
                self._start(party, self._job[party], self._pair_environment())
            return self._wait()
        finally:
            self._end_all()

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopped = True

    def _pair_environment(self) -> dict[str, str]:
        """Exactly what job.json says, so that nothing of the supervisor's reaches the agent."""
        ports = {"CARLA_PORT": str(self._port), "TRAFFIC_MANAGER_PORT": str(self._port + TRAFFIC_MANAGER_OFFSET)}
        environment: dict[str, str] = self._job["environment"]
        return {**environment, **ports}

    def _start_supervisor(self) -> None:
        prepared = (self._pair / "supervisor" / "start1").exists()
        command = self._job["supervisor"] + ([] if prepared else self._job["prepare"])
        self._supervisor_starts += 1
        self._start("supervisor", command, {**os.environ, **self._pair_environment()})

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self._directory / f"{name}.log").open("ab") as output:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - the backend's own commands
                command,
                env=environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def _wait(self) -> str:
        while True:
            if self._stopped:
                return str(STOPPED)
            if time.time() > self._deadline:
                return "deadline"
            ended = self._poll()
            if ended is not None:
                return ended
            time.sleep(POLL_SECONDS)

    def _poll(self) -> str | None:
        """The exit file's content if the pair has ended; starts a supervisor again that broke down."""
        supervisor = self._processes["supervisor"].poll()
        if supervisor is not None:
            if self._exit_code.exists():
                return self._exit_code.read_text().strip()
            if supervisor == MISCONFIGURED or self._supervisor_starts > SUPERVISOR_RESTARTS:
                return str(supervisor)
            self._start_supervisor()
        for party in ("simulator", "agent"):
            code = self._processes[party].poll()
            if code is not None and not self._exit_code.exists():
                return str(MISCONFIGURED if code == MISCONFIGURED else BROKEN)
        return None

    def _end_all(self) -> None:
        """Let them end by the exit_code or TERM; then KILL what is left of their process groups."""
        deadline = time.monotonic() + GRACE_SECONDS
        if not self._exit_code.exists():
            for process in self._processes.values():
                if process.poll() is None:
                    process.terminate()
        while time.monotonic() < deadline and any(process.poll() is None for process in self._processes.values()):
            time.sleep(POLL_SECONDS / 4)
        for process in self._processes.values():
            kill_group(process.pid)
            process.wait()


def deadline_of(directory: Path, seconds: float) -> float:
    """The Job's, which its first pod sets: the Job may have waited for a GPU slot before."""
    file = directory / "deadline"
    if not file.exists():
        write_whole(file, str(time.time() + seconds))
    return float(file.read_text())


def kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # gone; macOS says so with EPERM
        return


def free_carla_port() -> tuple[int, socket.socket]:
    """A port that is free with its traffic manager's, and the lock that keeps other pods of this machine off it.

    The lock is a UDP socket on the same number: CARLA uses TCP, and the system releases it when the pod dies.
    """
    random = SystemRandom()
    for _ in range(1000):
        port = random.randrange(20000, 26000, 10)
        lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            lock.bind(("127.0.0.1", port))
            for needed in (port, port + TRAFFIC_MANAGER_OFFSET):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", needed))
        except OSError:
            lock.close()
            continue
        return port, lock
    raise SystemExit("No CARLA port is free between 20000 and 26000.")


def write_whole(path: Path, content: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(content)
    fresh.replace(path)


def locked(lock: TextIO) -> bool:
    """Lock the run directory, unless a pod lives in it; a backend that checks holds the lock for a moment only."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def main() -> None:
    directory = Path(sys.argv[1])
    with (directory / "pod.lock").open("w") as lock:
        if not locked(lock):
            return
        os.setsid()
        job = json.loads((directory / "job.json").read_text())
        write_whole(directory / "exit", Pod(directory, job).run())


if __name__ == "__main__":
    main()
