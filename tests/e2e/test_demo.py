"""What a newcomer runs, as a newcomer runs it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from deployments.stack_state import StackState
from embedded.processes import MARKER, family_of
from embedded.stack import PROJECT
from tests.waiting import PATIENCE_SECONDS, eventually

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
        "LEADERBOARD_START_SECONDS": "300",
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
    eventually((folder / "stack.json").exists)
    return StackState.model_validate_json((folder / "stack.json").read_bytes())


def test_the_demo_ends_with_its_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    demo = leaderboard(folder, "demo")
    state = state_of(folder)

    output, _ = demo.communicate(timeout=540)

    assert demo.returncode == 0, output
    lines = output.splitlines()
    assert re.fullmatch(LAST_LINE, lines[-1])
    assert [line for line in lines[:-1] if re.match("FINISHED|FAILED|CANCELLED", line)] == []
    assert family_of(state.id, state.shards) == []
    assert not (folder / "stack.json").exists()
    for name in ("report.html", "report-team.html"):
        file = folder / "reports" / f"submission-1-{name}"
        assert str(file) in output
        assert "Submission 1: finished" in file.read_text()


def test_a_signal_in_the_middle_of_the_start_stops_everything(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    up = leaderboard(folder, "up")
    state = state_of(folder)
    eventually(lambda: family_of(state.id, state.shards), until=lambda family: len(family) >= 3)  # three servers start
    assert up.poll() is None

    up.send_signal(signal.SIGTERM)

    output, _ = up.communicate(timeout=PATIENCE_SECONDS)
    assert output.splitlines()[-1] == "Stopped."
    assert family_of(state.id, state.shards) == []
