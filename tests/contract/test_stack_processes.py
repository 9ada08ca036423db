"""The stack's children are real processes here; what is left of them is counted, not assumed."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deployments.settings import Settings
from deployments.stack_state import read_state, write_state
from embedded.processes import MARKER, Processes, family_of
from embedded.service_supervisor import Restarts, Supervisor
from embedded.stack_lock import stack_lock
from embedded.stack_plan import free_ports
from evaluation.errors import DeadlineExceeded, InvalidConfiguration, NeedsOperator, ServiceUnavailable
from tests.stack_states import stack_state
from tests.waiting import PATIENCE_SECONDS, eventually, runs

# Starts a grandchild in a session of its own, as the shards' processes are, then ignores TERM.
STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print('up', flush=True)\ntime.sleep(600)"
)


@pytest.fixture
def stack_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def processes(tmp_path: Path, stack_id: str):
    family = Processes({**os.environ, MARKER: stack_id}, tmp_path, tmp_path, tmp_path / "shards")
    yield family
    family.stop(0.2)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_stop_leaves_nothing_not_even_a_stubborn_family(processes: Processes, stack_id: str, tmp_path: Path) -> None:
    child = processes.start("stubborn", python(STUBBORN))
    processes.wait_until(child, lambda: "up" in child.log.read_text(), PATIENCE_SECONDS)
    family = [psutil.Process(child.process.pid), *psutil.Process(child.process.pid).children(recursive=True)]
    assert len(family) == 2

    processes.stop(0.2)

    assert [process.pid for process in family if runs(process)] == []
    assert family_of(stack_id, tmp_path / "shards") == []


def test_a_child_can_be_started_again_as_it_was(processes: Processes) -> None:
    code = "import os, time; print(os.environ['WORD'], flush=True); time.sleep(600)"
    first = processes.start("part", python(code), {"WORD": "hello"})
    processes.wait_until(first, lambda: "hello" in first.log.read_text(), PATIENCE_SECONDS)

    second = processes.restart("part")
    processes.wait_until(second, lambda: first.log.read_text().count("hello") == 2, PATIENCE_SECONDS)

    assert first.process.returncode == -signal.SIGKILL
    assert processes.child("part") is second
    assert second.process.pid != first.process.pid
    with pytest.raises(NeedsOperator, match="The stack has no process other: it has part"):
        processes.restart("other")


def test_nothing_starts_after_the_stop(processes: Processes) -> None:
    processes.stop()
    with pytest.raises(ServiceUnavailable, match="late was not started: the stack is stopping"):
        processes.start("late", python("pass"))


def test_a_child_that_dies_is_named_with_its_last_words(processes: Processes) -> None:
    child = processes.start("doomed", python("print('no such port'); raise SystemExit(3)"))
    with pytest.raises(ServiceUnavailable, match=r"(?s)doomed ended with code 3.*no such port"):
        processes.wait_until(child, lambda: False, PATIENCE_SECONDS)


def test_a_child_that_never_gets_ready_is_not_waited_for_for_ever(processes: Processes) -> None:
    child = processes.start("slow", python("import time; time.sleep(600)"))
    with pytest.raises(DeadlineExceeded, match="slow was not ready after 0 s"):
        processes.wait_until(child, lambda: False, 0.1)


def test_a_step_that_fails_shows_its_log(processes: Processes) -> None:
    with pytest.raises(ServiceUnavailable, match=r"(?s)deploy ended with code 1.*wrong file"):
        processes.run("deploy", python("raise SystemExit('wrong file')"), 10)


SLEEP = python("import time; time.sleep(600)")


def tend(supervisor: Supervisor, until: Callable[[], bool]) -> None:
    def tended() -> bool:
        supervisor.tend()
        return until()

    eventually(tended)


def test_a_service_that_is_killed_is_started_again(processes: Processes) -> None:
    said: list[str] = []
    supervisor = Supervisor(processes, said.append, Restarts(first_pause=0.1))
    killed = processes.start("worker", SLEEP).process
    supervisor.tend()
    assert said == []

    killed.kill()
    killed.wait()
    tend(supervisor, until=lambda: processes.child("worker").process.poll() is None)

    assert said == ["worker has died (signal 9); it is started again in 0.1 s", "worker is started again"]
    assert processes.child("worker").process.pid != killed.pid
    assert supervisor.crashes == ["worker"]


def test_a_service_that_dies_again_and_again_is_given_up_with_its_last_words(processes: Processes) -> None:
    said: list[str] = []
    supervisor = Supervisor(processes, said.append, Restarts(first_pause=0.01, longest_pause=0.02, most=3))
    processes.start("bridge", python("raise SystemExit('no such queue')"))

    with pytest.raises(ServiceUnavailable, match=r"(?s)bridge ended with code 1.*no such queue"):
        tend(supervisor, until=lambda: False)

    assert said.count("bridge is started again") == 3


def test_what_has_all_it_knows_in_memory_is_not_started_again(processes: Processes) -> None:
    processes.start("aws", python("raise SystemExit('out of memory')")).process.wait()

    with pytest.raises(ServiceUnavailable, match=r"(?s)aws ended with code 1.*out of memory"):
        Supervisor(processes, print).tend()


def test_a_taken_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        first, second = free_ports((wanted, wanted))
    assert len({wanted, first, second}) == 3


def test_a_running_stack_is_found_and_keeps_others_out(tmp_path: Path, stack_id: str) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    with stack_lock(settings):
        write_state(settings, stack_state(tmp_path, stack_id))
        assert read_state(settings).id == stack_id
        assert settings.state_file.stat().st_mode & 0o777 == 0o600
        with (
            pytest.raises(NeedsOperator, match=f"A stack is running already: process {os.getpid()}"),
            stack_lock(settings),
        ):
            pass
    with pytest.raises(InvalidConfiguration, match="No stack is running here"):
        read_state(settings)


def test_a_starting_stack_is_not_used_yet(tmp_path: Path, stack_id: str) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    with stack_lock(settings):
        write_state(settings, stack_state(tmp_path, stack_id, ready=False))
        with pytest.raises(ServiceUnavailable, match="still starting"):
            read_state(settings)


def test_what_a_killed_stack_left_behind_is_ended_first(tmp_path: Path, stack_id: str) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    settings.state_dir.mkdir()
    write_state(settings, stack_state(tmp_path, stack_id))  # nobody holds the lock: its process is gone
    orphan = subprocess.Popen(python("import time; time.sleep(600)"), env={**os.environ, MARKER: stack_id})
    eventually(lambda: family_of(stack_id, tmp_path / "shards"))  # a new process needs a moment to have its environment

    with stack_lock(settings):
        assert orphan.wait(PATIENCE_SECONDS) != 0
        assert not settings.state_file.exists()
