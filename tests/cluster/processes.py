"""The processes of a control plane: each with its log, none outliving the process that started it."""

import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path


class ControlPlaneError(Exception):
    """A component ended or did not become ready; the text carries the end of its log."""


class Component:
    """One process of the control plane, in its own process group, its output appended to `<folder>/<name>.log`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [*_dies_with_its_parent(), *command]
        self._folder = folder
        self._log = folder / f"{name}.log"

    def start(self) -> None:
        # HOME: none of them shall read or write the developer's own ~/.kube or ~/.kwok.
        environment = {"HOME": str(self._folder), "PATH": os.environ.get("PATH", "")}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def stop(self, *, grace_seconds: float) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        if process.poll() is None and grace_seconds:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def check(self) -> None:
        """Raises ControlPlaneError where the process has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise ControlPlaneError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def free_ports(*names: str) -> dict[str, int]:
    """A port of 127.0.0.1 that nothing listens on for each name. Raises ControlPlaneError where there is none.

    Below the range that Linux gives to outgoing connections: a client that keeps trying a server's port while it
    restarts can otherwise be given that very port as its own, connects to itself, and the server finds it taken.
    """
    found: dict[str, int] = {}
    with ExitStack() as held:
        for port in random.sample(range(20000, 32000), 1000):
            if len(found) == len(names):
                return found
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found[names[len(found)]] = port
    raise ControlPlaneError("no free ports on 127.0.0.1")


def _dies_with_its_parent() -> list[str]:
    setpriv = shutil.which("setpriv")  # of util-linux: on Linux only
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
