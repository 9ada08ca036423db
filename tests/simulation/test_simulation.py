"""Simulated worlds, each in a process of its own whose sets have the order of the seed (PYTHONHASHSEED)."""

import re
import subprocess
import sys


def run(*arguments: str) -> str:
    """What `python -m tests.simulation` says; it fails where a rule is broken."""
    command = [sys.executable, "-m", "tests.simulation", "--jobs", "1", "--shrink", "0", "--each", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_faults_every_submission_finishes_or_is_cancelled_by_its_team() -> None:
    said = run("--first", "2", "--seeds", "1", "--calm")

    assert re.search(r"^submissions +2 \(2 finished\)$", said, re.MULTILINE)
    assert re.search(r"^faults +0$", said, re.MULTILINE)


def test_a_seed_has_one_history() -> None:
    first, second = run("--first", "2", "--seeds", "1", "--history"), run("--first", "2", "--seeds", "1", "--history")

    assert "answer lost" in first
    assert _without_wall_time(first) == _without_wall_time(second)


def _without_wall_time(said: str) -> str:
    return re.sub(r"[0-9.]+ s, (?=[0-9a-f]{16})|^(wall|CPU) time.*$", "", said, flags=re.MULTILINE)


def test_what_once_failed_does_not_fail_again() -> None:
    said = run("--corpus")

    assert re.search(r"^seeds that fail +0$", said, re.MULTILINE)
