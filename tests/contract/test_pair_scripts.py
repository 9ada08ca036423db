"""simulator.sh and agent.sh with real processes; the test plays the supervisor."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

import shard_pod
from tests.waiting import PATIENCE_SECONDS, eventually, runs

SCRIPTS = Path(shard_pod.__file__).parent
BASH = shutil.which("bash") or "bash"
COREUTILS = ("mkdir", "mv", "rm", "tee")  # what the scripts call
RUNS_ON = "while :; do read -t 5 <> <(:); done"
STUBBORN = f"trap '' TERM; {RUNS_ON}"


class Party:
    """One of the scripts, running."""

    def __init__(self, name: str, process: subprocess.Popen[str], pair: Path) -> None:
        self.name = name
        self.process = process
        self.own = pair / name
        self.supervisor = pair / "supervisor"

    def says(self, file: str) -> str:
        eventually((self.own / file).exists)
        return (self.own / file).read_text().strip()

    def ends(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def child(self) -> psutil.Process:
        """The process that the script runs: its log names it."""
        log = self.own / f"{self.name}.log"
        line = re.compile(r"start \d+: process (\d+)")
        return psutil.Process(int(eventually(lambda: line.search(log.read_text()) if log.exists() else None)[1]))


Start = Callable[..., Party]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    for party in ("supervisor", "simulator", "agent"):
        (tmp_path / "pair" / party).mkdir(parents=True)
    return tmp_path / "pair"


@pytest.fixture
def only_coreutils(tmp_path: Path) -> str:
    """A PATH that holds bash and the few programs that every image has."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("bash", *COREUTILS):
        (programs / program).symlink_to(shutil.which(program) or program)
    return str(programs)


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which something listens, as a simulator would."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def start(pair: Path, only_coreutils: str, port: int) -> Iterator[Start]:
    parties: list[subprocess.Popen[str]] = []

    def run(name: str, **changes: str | None) -> Party:
        environment = {**contract(pair), "CARLA_PORT": str(port), "PATH": only_coreutils, **changes}
        process = subprocess.Popen(
            [BASH, str(SCRIPTS / f"{name}.sh")],
            env={key: value for key, value in environment.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        parties.append(process)
        return Party(name, process, pair)

    yield run
    for process in parties:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)


def contract(pair: Path) -> Mapping[str, str]:
    return {
        "PAIR_DIR": str(pair),
        "SIMULATOR_COMMAND": RUNS_ON,
        "EVALUATOR_COMMAND": RUNS_ON,
        "SIMULATOR_WARMUP_SECONDS": "0.1",
        "SIMULATOR_WAIT_SECONDS": "60",
        "POLL_SECONDS": "0.05",
        "CHECKPOINT_ENDPOINT": str(pair / "agent" / "checkpoint.json"),
        "ROUTES": "routes.xml",
        "ROUTES_SUBSET": "0-4",
        "REPETITIONS": "1",
        "CHALLENGE_TRACK_CODENAME": "SENSORS",
    }


@pytest.mark.parametrize(
    ("party", "variable"),
    [("simulator", "SIMULATOR_COMMAND"), ("simulator", "CARLA_PORT"), ("agent", "ROUTES"), ("agent", "POLL_SECONDS")],
)
def test_a_missing_variable_ends_with_40_and_a_sentence(start: Start, party: str, variable: str) -> None:
    running = start(party, **{variable: None})

    assert running.ends() == 40
    assert f"the environment variable {variable} is missing" in (running.process.stdout or "").read()


def test_a_time_that_is_no_number_ends_with_40(start: Start) -> None:
    assert start("simulator", SIMULATOR_WARMUP_SECONDS="soon").ends() == 40


def test_the_simulator_starts_when_told_and_gets_ready(start: Start, pair: Path, port: int) -> None:
    simulator = start("simulator", SIMULATOR_COMMAND=f"echo the world; {RUNS_ON}")
    time.sleep(0.2)
    assert list(simulator.own.glob("ready*")) == []

    (pair / "supervisor" / "start1").touch()

    assert simulator.says("ready1") == str(port)
    assert "the world" in simulator.says("simulator.log")


def test_a_simulator_whose_port_is_closed_is_not_ready_however_long_it_runs(start: Start, pair: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    simulator = start("simulator", CARLA_PORT=str(closed))
    agent = start("agent", SIMULATOR_WAIT_SECONDS="0.5")
    (pair / "supervisor" / "start1").touch()

    assert agent.says("exit1") == "unready"
    assert simulator.child().is_running()
    assert not (simulator.own / "ready1").exists()


HELPER = "setsid bash -c 'echo $$ >> {pids}; exec sleep 1000' < /dev/null > /dev/null 2>&1 &"


@pytest.mark.parametrize("party", ["simulator", "agent"])
@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$", RUNS_ON])
def test_what_a_child_starts_in_a_session_of_its_own_ends_before_its_exit_is_reported(
    start: Start, pair: Path, tmp_path: Path, party: str, end: str
) -> None:
    pids = tmp_path / "pids"
    command = f"{HELPER.format(pids=pids)} ( {HELPER.format(pids=pids)} ); {end}"
    (pair / "simulator" / "ready1").touch()
    running = start(party, SIMULATOR_COMMAND=command, EVALUATOR_COMMAND=command, PATH=os.environ["PATH"])
    (pair / "supervisor" / "start1").touch()
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    (pair / "supervisor" / "stop1").touch()

    assert running.says("exit1") in ("died 3", "died 137", "stopped")
    left = [int(pid) for pid in pids.read_text().split() if psutil.pid_exists(int(pid))]
    assert not [pid for pid in left if runs(psutil.Process(pid))]


@pytest.mark.parametrize(
    "plant",
    [
        "mkdir -p {own}/exit1/deep {own}/.exit1.new",
        "ln -s /etc/hostname {own}/exit1",
        "mkfifo {own}/exit1 {own}/.exit1.new",
    ],
)
def test_what_the_child_puts_in_the_place_of_an_exit_file_is_replaced(start: Start, pair: Path, plant: str) -> None:
    (pair / "simulator" / "ready1").touch()
    command = plant.format(own=pair / "agent") + "; exit 5"
    agent = start("agent", EVALUATOR_COMMAND=command, PATH=os.environ["PATH"])
    (pair / "supervisor" / "start1").touch()

    exit_file = agent.own / "exit1"
    eventually(lambda: exit_file.is_file() and not exit_file.is_symlink() and exit_file.read_text() == "died 5\n")
    exit_file.unlink()
    eventually(exit_file.is_file)
    (pair / "simulator" / "ready2").touch()
    (pair / "supervisor" / "start2").touch()
    assert agent.says("exit2") == "died 5"


def test_a_simulator_that_dies_while_warming_up_never_gets_ready(start: Start, pair: Path) -> None:
    simulator = start("simulator", SIMULATOR_COMMAND="exit 7", SIMULATOR_WARMUP_SECONDS="0.3")

    (pair / "supervisor" / "start1").touch()

    assert simulator.says("exit1") == "died 7"
    assert not (simulator.own / "ready1").exists()


def test_kill_9_is_an_end_by_itself_and_leaves_no_process_of_the_simulator(start: Start, pair: Path) -> None:
    simulator = start("simulator", SIMULATOR_COMMAND=f"( {STUBBORN} ) & {STUBBORN}")
    (pair / "supervisor" / "start1").touch()
    simulator.says("ready1")
    child = simulator.child()
    family = [child, *child.children()]

    child.kill()

    assert simulator.says("exit1") == "died 137"
    eventually(lambda: not any(map(runs, family)))


def test_a_start_is_stopped_and_followed_by_the_next(start: Start, pair: Path) -> None:
    simulator = start("simulator")
    (pair / "supervisor" / "start1").touch()
    simulator.says("ready1")

    (pair / "supervisor" / "stop1").write_text("partner\n")
    assert simulator.says("exit1") == "stopped"

    (pair / "supervisor" / "start2").touch()
    assert simulator.says("ready2")


def test_the_evaluator_resumes_only_where_there_is_a_checkpoint(start: Start, pair: Path) -> None:
    agent = start("agent", EVALUATOR_COMMAND='echo "RESUME=<$RESUME>"; echo {} > "$CHECKPOINT_ENDPOINT"; exit 3')
    for n in (1, 2):
        (pair / "simulator" / f"ready{n}").touch()
        (pair / "supervisor" / f"start{n}").touch()
        assert agent.says(f"exit{n}") == "died 3"

    eventually(lambda: "RESUME=<1>" in agent.says("agent.log"))
    assert "RESUME=<>" in agent.says("agent.log")


def test_the_evaluator_waits_for_its_simulator_no_longer_than_told(start: Start, pair: Path) -> None:
    agent = start("agent", SIMULATOR_WAIT_SECONDS="0.2")
    (pair / "supervisor" / "start1").touch()

    assert agent.says("exit1") == "unready"
    assert "not ready after 0.2 seconds" in agent.says("agent.log")


def test_an_agent_that_still_waits_can_be_stopped(start: Start, pair: Path) -> None:
    agent = start("agent")
    (pair / "supervisor" / "start1").touch()
    (pair / "supervisor" / "stop1").touch()

    assert agent.says("exit1") == "stopped"


@pytest.mark.parametrize("party", ["simulator", "agent"])
def test_the_exit_code_ends_a_party_with_its_number(start: Start, pair: Path, party: str) -> None:
    (pair / "simulator" / "ready1").touch()
    running = start(party)
    (pair / "supervisor" / "start1").touch()
    child = running.child()

    (pair / "supervisor" / "exit_code").write_text("13\n")

    assert running.ends() == 13
    assert not runs(child)


@pytest.mark.parametrize("party", ["simulator", "agent"])
@pytest.mark.parametrize("poll", ["0.05", "30"])
def test_term_ends_a_party_and_its_stubborn_child_before_its_next_poll(
    start: Start, pair: Path, party: str, poll: str
) -> None:
    (pair / "simulator" / "ready1").touch()
    running = start(party, POLL_SECONDS=poll, SIMULATOR_COMMAND=STUBBORN, EVALUATOR_COMMAND=STUBBORN)
    (pair / "supervisor" / "start1").touch()
    child = running.child() if poll == "0.05" else None
    eventually(lambda: (running.own / f"{party}.log").exists())

    began = time.monotonic()
    running.process.terminate()

    assert running.ends() == 30
    assert time.monotonic() - began < 15  # half a poll; it takes some 0.6 s
    assert child is None or not runs(child)


def test_a_partys_output_goes_to_its_stdout_and_its_log(start: Start, pair: Path) -> None:
    (pair / "simulator" / "ready1").touch()
    (pair / "supervisor" / "start1").touch()
    agent = start("agent", EVALUATOR_COMMAND="echo to stdout; echo to stderr >&2")
    assert agent.says("exit1") == "died 0"
    (pair / "supervisor" / "exit_code").write_text("0\n")
    assert agent.ends() == 0

    output = (agent.process.stdout or "").read()
    assert "to stdout" in output
    assert "to stderr" in output
    assert agent.says("agent.log") == output.strip()
