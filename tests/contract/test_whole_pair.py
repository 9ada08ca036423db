"""The supervisor and both scripts together, with simulators and evaluators that misbehave."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from evaluation.errors import Fault
from evaluation.pair.protocol import PairExitCode, failure_of
from evaluation.shards import ShardState
from tests.contract.whole_pair import WholePair
from tests.waiting import eventually, runs


@pytest.fixture
def pair(tmp_path: Path, aws: dict[str, Any]) -> Iterator[WholePair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    made = WholePair(tmp_path, aws, port)
    yield made
    made.close()


REFUSED = """
try:
    socket.create_connection(("127.0.0.1", int(os.environ["CARLA_PORT"])), 1)
except OSError:
    raise RuntimeError("the simulator did not answer in time")
"""


@pytest.mark.parametrize("evaluator", [REFUSED, "time.sleep(600)"], ids=["refused", "stuck"])
def test_a_simulator_that_never_listens_is_not_the_teams_fault(pair: WholePair, evaluator: str) -> None:
    pair.settings = {"SIMULATOR_WAIT_SECONDS": "1", "HANG_SECONDS": "2"}
    pair.start("exec sleep 600", evaluator)

    end = pair.ended()

    assert end.exit_code is PairExitCode.SIMULATOR_NOT_READY
    assert (end.counters.agent_restarts, end.counters.infrastructure_restarts) == (0, 2)
    assert failure_of(end.exit_code, end.detail).fault is Fault.INFRASTRUCTURE


SERVER = (
    "import os, socket, time; s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['{port}']))); s.listen(); "
    "open(os.environ['WORK'] + '/pids', 'a').write(str(os.getpid()) + chr(10)); time.sleep(600)"
)
AGENT_WITH_A_BRIDGE = f"""
server = {SERVER.format(port="TRAFFIC_MANAGER_PORT")!r}
bridge = subprocess.Popen([sys.executable, "-c", server], start_new_session=True)
deadline = time.monotonic() + 30
while True:
    try:
        socket.create_connection(("127.0.0.1", int(os.environ["TRAFFIC_MANAGER_PORT"])), 1).close()
        break
    except OSError:
        if time.monotonic() > deadline or bridge.poll() is not None:
            sys.exit("the bridge does not start")
        time.sleep(0.05)
if add() < 3:
    os.kill(os.getpid(), signal.SIGSEGV)
"""
CRASHING_AGENT = """
if add() < 3:
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def left(folder: Path) -> list[int]:
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    return [pid for pid in pids if psutil.pid_exists(pid) and runs(psutil.Process(pid))]


def test_a_restarted_agent_finds_the_ports_of_its_helpers_free(pair: WholePair) -> None:
    pair.start(pair.good_simulator, AGENT_WITH_A_BRIDGE)

    end = pair.ended()

    assert (end.state, end.routes_done) == (ShardState.FINISHED, 3)
    assert len((pair.folder / "pids").read_text().split()) == 3
    assert left(pair.folder) == []


def test_a_restarted_simulator_finds_its_port_free_although_a_launcher_put_it_in_another_session(
    pair: WholePair,
) -> None:
    launcher = f'setsid {sys.executable} {pair.folder}/simulator.py & echo $! >> "$WORK/pids"; exec sleep 600'
    pair.start(launcher, CRASHING_AGENT)

    end = pair.ended()

    assert (end.state, end.routes_done, end.counters.starts) == (ShardState.FINISHED, 3, 3)
    assert left(pair.folder) == []


CHATTY = """
def chat():
    while True:
        print("[node] heartbeat", flush=True)
        time.sleep(0.2)
threading.Thread(target=chat, daemon=True).start()
add()
time.sleep(600)
"""


def test_a_thread_that_keeps_printing_hides_no_hang(pair: WholePair) -> None:
    pair.settings = {"HANG_SECONDS": "1", "AGENT_RESTARTS": "0"}
    pair.start(pair.good_simulator, CHATTY)

    end = pair.ended()

    assert end.exit_code is PairExitCode.AGENT_HANGS
    assert end.routes_done == 1


def test_a_simulator_that_freezes_while_driving_is_killed_and_charged_to_infrastructure(pair: WholePair) -> None:
    pair.settings = {"HANG_SECONDS": "10", "AGENT_RESTARTS": "0", "SIMULATOR_ANSWER_SECONDS": "1"}
    frozen = pair.folder / "frozen"
    freeze = f"if [ ! -e {frozen} ]; then touch {frozen}; (sleep 2; kill -STOP $$) & fi; {pair.good_simulator}"
    drive = """
if add() < 3:
    while True:
        connection = socket.create_connection(("127.0.0.1", int(os.environ["CARLA_PORT"])))
        connection.sendall(b"tick")
        connection.recv(1)
        print("=== [Agent] -- Wallclock = 0 -- System time = 0 -- Game time = %.3f -- " % time.monotonic(), flush=True)
        time.sleep(0.1)
"""
    pair.start(freeze, drive)

    eventually(lambda: (pair.pair_dir / "supervisor" / "stop1").exists())

    assert (pair.pair_dir / "supervisor" / "stop1").read_text().strip() == "silent"
    eventually(lambda: (pair.pair_dir / "supervisor" / "start2").exists())
    progress = pair.progress()
    assert progress
    assert (progress.counters.agent_restarts, progress.counters.infrastructure_restarts) == (0, 1)


def test_exit_files_that_an_evaluator_ruins_are_its_own_loss(pair: WholePair) -> None:
    ruin = """
own = os.path.dirname(PATH)
for name in ("exit1", ".exit1.new", "exit2", "exit3"):
    os.makedirs(os.path.join(own, name, "deep"), exist_ok=True)
time.sleep(0.5)
sys.exit(1)
"""
    pair.settings = {"AGENT_RESTARTS": "1"}
    pair.start(pair.good_simulator, ruin)

    end = pair.ended()

    assert end.exit_code is PairExitCode.AGENT_CRASHED
    assert end.counters.infrastructure_restarts == 0
