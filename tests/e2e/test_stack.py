"""The whole way of a message, on the embedded stack: real processes, queue, events, flow runs.

The submissions of different tests run at the same time: fixtures send them before their tests' turns.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from cli.submission_progress import Progress
from deployments.settings import Settings
from embedded.service_supervisor import SERVICES
from embedded.stack import PROJECT
from embedded.stack_plan import child_environment
from evaluation.shards import ShardState
from evaluation.submission.model import SubmissionStatus
from tests.e2e.conftest import WRONG, Harness, Sent
from tests.waiting import PATIENCE_SECONDS, eventually


@dataclass(frozen=True)
class Crashed:
    """A submission that failed, what was to be seen of it then, and that has been resumed since."""

    submission: int
    failed: Progress
    stderr: str


@pytest.fixture(scope="module")
def crashed(harness: Harness, sent: Sent) -> Crashed:
    failed = harness.end_of(sent.crashing)
    stderr = harness.stderr(sent.crashing)
    harness.people.resume(sent.crashing)
    return Crashed(sent.crashing, failed, stderr)


@pytest.fixture(scope="module")
def hanging(harness: Harness) -> int:
    return harness.submit("leaderboard-10-SENSORS", "demo/agent:hang")


@pytest.fixture(scope="module")
def repeated_setup(harness: Harness) -> Iterator["subprocess.Popen[str]"]:
    state = harness.stack.state
    clusters = str(state.folder / "tmp" / "clusters.json")
    addresses = ["--queue-url", state.queue_url, "--dead-letter-url", state.dead_letter_url]
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "setup", *addresses, "--clusters", clusters],
        cwd=PROJECT,
        env=child_environment(Settings(), state),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as setup:
        yield setup


def test_messages_that_nobody_can_evaluate_go_aside_with_their_reasons_and_the_next_one_runs(
    harness: Harness, sent: Sent
) -> None:
    refused = harness.end_of(sent.refused)
    reasons = set_aside(harness, 3)

    assert refused.evalai is SubmissionStatus.FAILED
    assert "registry.example/agent:1" in harness.stderr(sent.refused)
    assert "Traceback" not in harness.stderr(sent.refused)
    assert reasons["not json"].startswith("The message is not JSON")
    assert "submission_pk must be a positive whole number" in reasons[WRONG]
    assert "4242" in next(reason for body, reason in reasons.items() if "4242" in body)


def set_aside(harness: Harness, count: int) -> dict[str, str]:
    """Body -> reason of what is on the dead-letter queue, once so many are there."""
    found: dict[str, str] = {}

    def received() -> dict[str, str]:
        answer = harness.stack.aws.sqs.receive_message(
            QueueUrl=harness.stack.state.dead_letter_url, MessageAttributeNames=["All"], WaitTimeSeconds=1
        )
        for message in answer.get("Messages", []):
            found[message["Body"]] = message["MessageAttributes"]["reason"]["StringValue"]
        return found

    return eventually(received, until=lambda reasons: len(reasons) >= count)


def test_two_submissions_of_different_phases_at_once_both_finish(harness: Harness, sent: Sent) -> None:
    for submission, labels in sent.steady.items():
        seen = harness.end_of(submission)
        assert (seen.evalai, seen.row["status"]) == (SubmissionStatus.FINISHED, "finished")
        assert (len(seen.shards), seen.routes_done, seen.routes_total) == (4, 20, 20)
        metrics = harness.observer.result(submission, seen.phase)
        assert len(metrics) == labels
        assert 0 < metrics["Driving score"] <= 100
        assert float(seen.row["Driving score"]) == pytest.approx(metrics["Driving score"])
        assert harness.shards_of(submission) == []


@pytest.mark.usefixtures("crashed", "hanging", "repeated_setup")  # what the later tests look at runs meanwhile
def test_a_run_whose_worker_is_killed_is_taken_over_with_its_shards_as_soon_as_it_is_back(harness: Harness) -> None:
    submission = harness.submit("leaderboard-10-MAP", "demo/agent:steady")
    pods: set[tuple[str, int]] = set()

    def over(seen: Progress) -> bool:
        pods.update(harness.pods_of(submission))
        return seen.over

    driving = harness.wait(submission, lambda seen: drives(seen) and len(harness.pods_of(submission)) == 4)
    first = driving.row["claim-owner"]
    before = harness.pods_of(submission)
    harness.stack.supervisor.kill("worker", down_seconds=1)
    outlived = [pid for _, pid in before if psutil.pid_exists(pid)]

    finished = harness.wait(submission, over)
    # The run itself ends after its report: it still clears up.
    runs = eventually(lambda: harness.flow_runs_of(submission), until=lambda runs: states(runs)[1:] == ["COMPLETED"])
    assert outlived
    assert pods == before
    assert states(runs) == ["CRASHED", "COMPLETED"]
    assert (runs[0]["id"], runs[1]["parameters"]["takeover"]) == (
        first,
        {"owner": first, "epoch": 2, "crashes": 1, "stopped": False, "after_silence": False},
    )
    assert (finished.evalai, finished.routes_done, finished.routes_total) == (SubmissionStatus.FINISHED, 20, 20)
    shown = [[(f"shard-{index}", state) for index in range(4)] for state in ("CANCELLED", "COMPLETED")]
    eventually(lambda: [harness.shard_states(run["id"]) for run in runs], until=lambda seen: seen == shown)
    assert (finished.row["attempt"], finished.row["claim-owner"]) == ("1", first)
    assert len(harness.people.submission(submission).job_names) == 1
    assert harness.shards_of(submission) == []


def states(runs: list[dict[str, Any]]) -> list[str]:
    return [run["state_type"] for run in runs]


def drives(seen: Progress) -> bool:
    return any(shard.state is ShardState.DRIVING for shard in seen.shards)


def test_setup_can_be_repeated_on_a_server_in_use(harness: Harness, repeated_setup: "subprocess.Popen[str]") -> None:
    stdout, stderr = repeated_setup.communicate(timeout=PATIENCE_SECONDS)

    assert repeated_setup.returncode == 0, stderr
    assert "ready: work pool leaderboard (in-process)" in stdout.splitlines()
    assert "ready: blocks of leaderboard-20" in stdout.splitlines()
    assert harness.stack.state.host_token not in stdout + stderr


def test_an_agent_that_keeps_crashing_fails_with_its_reason_and_a_resume_goes_on(
    harness: Harness, crashed: Crashed
) -> None:
    submission, failed = crashed.submission, crashed.failed
    assert failed.evalai is SubmissionStatus.FAILED
    assert 0 < failed.routes_done < 20
    assert "agent crashed again and again" in crashed.stderr.lower()
    assert "Traceback" not in crashed.stderr

    resumed = harness.wait(submission, lambda seen: seen.row.get("attempt") == "2")
    finished = harness.end_of(submission)

    assert resumed.row["attempt"] == finished.row["attempt"] == "2"
    assert (finished.evalai, finished.routes_done) == (SubmissionStatus.FINISHED, 20)
    plan = harness.stack.aws.s3.get_object(Bucket="leaderboard-20", Key=f"{submission}/shards/0/checkpoint.json")
    records = json.loads(plan["Body"].read())["_checkpoint"]["records"]
    assert [record["index"] for record in records] == list(range(len(records)))


def test_a_cancelled_submission_stops_and_stays_cancelled(harness: Harness, hanging: int) -> None:
    submission = hanging
    harness.wait(submission, drives)
    assert len(harness.shards_of(submission)) > 4

    harness.people.cancel(submission)
    # Ten seconds on a machine that is not busy; well before the agent's silence would end them, after 300 s.
    eventually(lambda: not harness.shards_of(submission))

    seen = harness.end_of(submission)
    assert (seen.evalai, seen.row["status"]) == (SubmissionStatus.CANCELLED, "cancelled")


def test_all_services_are_killed_at_once_and_every_submission_goes_on(harness: Harness) -> None:
    driving = harness.submit("leaderboard-10-MAP", "demo/agent:steady")
    harness.wait(driving, drives)

    for name in SERVICES:
        harness.stack.supervisor.kill(name, down_seconds=1)
    meanwhile = harness.submit("leaderboard-10-MAP", "demo/agent:fast")

    for submission in (driving, meanwhile):
        seen = harness.end_of(submission)
        assert (seen.evalai, seen.routes_done, seen.row["attempt"]) == (SubmissionStatus.FINISHED, 20, "1")
