"""What a newcomer runs, as a newcomer runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployments.stack_state import StackState
from embedded.processes import MARKER, family_of
from embedded.stack import PROJECT

pytestmark = pytest.mark.timeout(280)  # the first test also starts the other tests' stack
LAST_LINE = (
    r"FINISHED submission=\d+ phase=leaderboard-20-SENSORS routes=20/20 shards=4 "
    r"driving_score=\d+\.\d+ evalai=finished seconds=\d+"
)


def leaderboard(folder: Path, command: str) -> "subprocess.Popen[str]":
    environment = {
        **{name: value for name, value in os.environ.items() if name != MARKER},
        "PYTHONPATH": str(PROJECT),
        "LEADERBOARD_STATE_DIR": str(folder),
        "LEADERBOARD_CACHE_DIR": str(PROJECT / ".leaderboard" / "cache"),
        "LEADERBOARD_ROUTE_SECONDS": "0.4",
        "LEADERBOARD_START_SECONDS": "110",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", command],
        cwd=folder.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def state_of(folder: Path) -> StackState:
    """As soon as the stack has begun to start."""
    for _ in range(100):
        if (folder / "stack.json").exists():
            return StackState.model_validate_json((folder / "stack.json").read_bytes())
        time.sleep(0.1)
    raise AssertionError("the stack does not start")


@pytest.mark.usefixtures("sent")  # the other stack's submissions run meanwhile
def test_the_demo_ends_with_its_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    demo = leaderboard(folder, "demo")
    state = state_of(folder)

    output, _ = demo.communicate(timeout=160)

    assert demo.returncode == 0, output
    lines = output.splitlines()
    assert re.fullmatch(LAST_LINE, lines[-1])
    assert [line for line in lines[:-1] if re.match("FINISHED|FAILED|CANCELLED", line)] == []
    assert family_of(state.id, state.shards) == []
    assert not (folder / "stack.json").exists()


def test_a_signal_in_the_middle_of_the_start_stops_everything(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    up = leaderboard(folder, "up")
    state = state_of(folder)
    while len(family_of(state.id, state.shards)) < 3:  # three servers are on their way
        assert up.poll() is None
        time.sleep(0.05)

    up.send_signal(signal.SIGTERM)

    output, _ = up.communicate(timeout=20)
    assert output.splitlines()[-1] == "Stopped."
    assert family_of(state.id, state.shards) == []
