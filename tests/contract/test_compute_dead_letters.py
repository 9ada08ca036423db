"""`leaderboard compute dead` and `redrive` on real queues of moto's."""

from contextlib import nullcontext
from typing import Any

import pytest

from cli import compute_dead_letters
from cli.compute_dead_letters import dead, redrive
from compute_client.job import JobError, read_message
from services.compute_backlog import Jobs
from tests.contract.compute_harness import ComputeAws


@pytest.fixture(params=["standard", "fifo"])
def harness(aws: dict[str, Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ComputeAws:
    harness = ComputeAws(aws, fifo=request.param == "fifo")
    monkeypatch.setattr(compute_dead_letters, "installation", lambda _settings: nullcontext())
    monkeypatch.setattr(compute_dead_letters, "load_jobs", lambda _name: Jobs(harness.queue, harness.block()))
    return harness


def bury(harness: ComputeAws, job_id: str, reason: str) -> None:
    """Post a job and move its message to the dead-letter queue."""
    harness.producer().post_non_blocking(1, job_id=job_id)
    [message] = harness.received()
    harness.queue.reject(message.delivery, message.body, reason, message.group)


def test_dead_letters_are_shown_with_job_status_and_reason(
    harness: ComputeAws, capsys: pytest.CaptureFixture[str]
) -> None:
    bury(harness, "mine", "A table that was missing.")

    dead()

    assert "job mine is SUBMITTED: A table that was missing." in capsys.readouterr().out


def test_a_job_that_is_open_is_sent_back(harness: ComputeAws, capsys: pytest.CaptureFixture[str]) -> None:
    bury(harness, "mine", "A table that was missing.")

    assert redrive("mine", dry_run=True) == 0
    assert harness.received() == []
    assert redrive("mine") == 0

    assert [read_message(message.body) for message in harness.received()] == ["mine"]
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["would be sent", "sent"]


def test_a_job_that_has_its_end_is_refused(harness: ComputeAws, capsys: pytest.CaptureFixture[str]) -> None:
    bury(harness, "mine", "It was received too often.")
    jobs = harness.jobs()
    jobs.fail(jobs.claim("mine", "run").lease, JobError("ValueError", "no"))

    assert redrive() == 1

    assert "refused" in capsys.readouterr().out
    assert harness.received() == []
