"""The embedded stack: everything that production has, on this machine, each part behind its real interface."""

import contextlib
import importlib.util
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployments.settings import Settings
from deployments.stack_state import StackState, write_state
from embedded import challenge
from embedded.aws import EmbeddedAws
from embedded.external_evalai import ExternalEvalAI
from embedded.processes import Processes
from embedded.service_supervisor import Supervisor
from embedded.stack_lock import folder_errors, stack_lock
from embedded.stack_plan import child_environment, plan_stack, taken_ports
from embedded.stack_start import Say, StackStart
from evaluation.errors import InvalidConfiguration

PROJECT = Path(__file__).resolve().parents[1]  # the children's working directory: from here they import everything
INSTALL = "Run: pip install 'leaderboard-flows[embedded]'"


@dataclass
class Stack:
    """A running stack."""

    state: StackState
    processes: Processes
    supervisor: Supervisor
    stages: dict[str, float]  # stage -> seconds since the start when it was done

    @property
    def aws(self) -> EmbeddedAws:
        return EmbeddedAws(self.state.aws_url, self.state.region)


@contextlib.contextmanager
def running_stack(settings: Settings, say: Say, evalai: ExternalEvalAI | None = None) -> Iterator[Stack]:
    """Start the stack, hand it over, and stop all of it on the way out, whatever the reason.

    With `evalai` that server is used in the place of the stand-in, and neither started nor stopped.
    The caller calls its supervisor's `tend` often.
    Raises NeedsOperator where one runs already, ServiceUnavailable where a part does not start (with its log's tail).
    """
    _require_moto()
    with stack_lock(settings), contextlib.ExitStack() as started:
        folder = settings.state_dir.absolute()
        started.enter_context(folder_errors(folder))
        _clear(folder)
        tokens = evalai.tokens if evalai else challenge.make_tokens()
        state = plan_stack(settings, folder, tokens, evalai)
        for line in taken_ports(settings, state, external_evalai=evalai is not None):
            say(line)
        write_state(settings, state)
        processes = Processes(child_environment(settings, state), folder / "logs", PROJECT, state.shards)
        start = StackStart(settings, state, processes, tokens, say)
        try:
            start.run(external_evalai=evalai is not None)
            write_state(settings, state.model_copy(update={"ready": True}))
            started.close()
            yield Stack(state, processes, Supervisor(processes, say), start.stages)
        finally:
            with _undisturbed():
                processes.stop()


def _require_moto() -> None:
    """A checkout without its extras has this package, and no moto."""
    if importlib.util.find_spec("moto") is None:
        raise InvalidConfiguration("The embedded stack needs moto", "it is not installed", INSTALL)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not keep the stack from being stopped, which takes some seconds at most."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _clear(folder: Path) -> None:
    """Nothing of an earlier stack is kept but its cache: submissions start again at 1."""
    for name in ("logs", "prefect", "shards", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("logs", "tmp"):
        (folder / name).mkdir(parents=True)
