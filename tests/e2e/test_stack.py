"""The whole way of a message, on the embedded stack: real processes, queue, events, flow runs."""

import json
import subprocess
import sys
import time

import pytest

from deployments.settings import Settings
from deployments.stack import PROJECT, child_environment
from evaluation.shards import ShardState
from evaluation.submission import SubmissionStatus
from tests.e2e.conftest import Site

pytestmark = pytest.mark.timeout(170)  # the first test also starts the stack


def test_two_submissions_of_different_phases_at_once_both_finish(site: Site) -> None:
    phases = {"leaderboard-10-MAP": 12, "leaderboard-20-SENSORS": 15}

    submissions = {site.submit(phase, "demo/agent:steady"): labels for phase, labels in phases.items()}

    for submission, labels in submissions.items():
        seen = site.end_of(submission)
        assert (seen.evalai, seen.row["status"]) == (SubmissionStatus.FINISHED, "finished")
        assert (len(seen.shards), seen.routes_done, seen.routes_total) == (4, 20, 20)
        metrics = site.observer.result(submission, seen.phase)
        assert len(metrics) == labels
        assert 0 < metrics["Driving score"] <= 100
        assert float(seen.row["Driving score"]) == pytest.approx(metrics["Driving score"])
        assert site.shards_of(submission) == []


def test_an_agent_that_keeps_crashing_fails_with_its_reason_and_a_resume_goes_on(site: Site) -> None:
    submission = site.submit("leaderboard-20-MAP", "demo/agent:always-crash")
    failed = site.end_of(submission)

    assert failed.evalai is SubmissionStatus.FAILED
    assert 0 < failed.routes_done < 20
    assert "agent crashed again and again" in site.stderr(submission).lower()
    assert "Traceback" not in site.stderr(submission)

    site.people.resume(submission)
    resumed = site.wait(submission, lambda seen: seen.row.get("attempt") == "2", 30)
    finished = site.end_of(submission)

    assert resumed.row["attempt"] == finished.row["attempt"] == "2"
    assert (finished.evalai, finished.routes_done) == (SubmissionStatus.FINISHED, 20)
    plan = site.stack.aws.s3.get_object(Bucket="leaderboard-20", Key=f"{submission}/shards/0/checkpoint.json")
    records = json.loads(plan["Body"].read())["_checkpoint"]["records"]
    assert [record["index"] for record in records] == list(range(len(records)))


def test_a_cancelled_submission_stops_within_ten_seconds_and_stays_cancelled(site: Site) -> None:
    submission = site.submit("leaderboard-10-SENSORS", "demo/agent:hang")
    site.wait(submission, lambda seen: any(shard.state is ShardState.DRIVING for shard in seen.shards), 40)
    assert len(site.shards_of(submission)) > 4

    site.people.cancel(submission)
    cancelled_at = time.monotonic()
    while site.shards_of(submission):
        assert time.monotonic() - cancelled_at < 10, "shards run for more than 10 s after the cancellation"
        time.sleep(0.1)

    seen = site.end_of(submission, 20)
    assert (seen.evalai, seen.row["status"]) == (SubmissionStatus.CANCELLED, "cancelled")


def test_messages_that_nobody_can_evaluate_go_aside_with_their_reasons_and_the_next_one_runs(site: Site) -> None:
    unknown = '{"challenge_pk": "1", "phase_pk": "2203", "submission_pk": 4242}'
    wrong = '{"challenge_pk": "1", "phase_pk": "2203", "submission_pk": 0}'
    sqs, state = site.stack.aws.sqs, site.stack.state
    for body in ("not json", unknown, wrong):
        sqs.send_message(QueueUrl=state.queue_url, MessageBody=body)
    submission = site.submit("leaderboard-20-SENSORS", "registry.example/agent:1")

    refused = site.end_of(submission)
    reasons = set_aside(site, 3)

    assert refused.evalai is SubmissionStatus.FAILED
    assert "registry.example/agent:1" in site.stderr(submission)
    assert "Traceback" not in site.stderr(submission)
    assert reasons["not json"].startswith("The message is not JSON")
    assert "submission_pk must be a positive whole number" in reasons[wrong]
    assert "4242" in next(reason for body, reason in reasons.items() if "4242" in body)


def set_aside(site: Site, count: int) -> dict[str, str]:
    """Body -> reason of what lies on the dead-letter queue, once so many messages do."""
    found: dict[str, str] = {}
    deadline = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < deadline, f"on the dead-letter queue: {found}"
        answer = site.stack.aws.sqs.receive_message(
            QueueUrl=site.stack.state.dead_letter_url, MessageAttributeNames=["All"], WaitTimeSeconds=1
        )
        for message in answer.get("Messages", []):
            found[message["Body"]] = message["MessageAttributes"]["reason"]["StringValue"]
    return found


def test_setup_can_be_repeated_on_a_server_in_use(site: Site) -> None:
    state = site.stack.state
    environment = child_environment(Settings(), state)
    addresses = ["--queue-url", state.queue_url, "--dead-letter-url", state.dead_letter_url]

    clusters = str(state.folder / "tmp" / "clusters.json")
    setup = [sys.executable, "-m", "deployments.cli", "setup", *addresses, "--clusters", clusters]
    done = subprocess.run(setup, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert "ready: work pool leaderboard (process)" in done.stdout.splitlines()
    assert "ready: blocks of leaderboard-20" in done.stdout.splitlines()
    assert state.host_token not in done.stdout + done.stderr
