"""What operators run on an installation, on the embedded stack: the doctor and the dead letters."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from prefect_aws import AwsClientParameters, AwsCredentials
from pydantic import SecretStr

from blocks.dead_letters import DeadLetters
from blocks.submission_queue import SubmissionQueue
from deployments.stack_state import EMBEDDED_CREDENTIALS
from embedded.stack import PROJECT
from evaluation.submission.model import SubmissionStatus
from tests.e2e.conftest import Harness, Sent
from tests.waiting import eventually


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def leaderboard(harness: Harness) -> Run:
    """The command line, as in a second terminal of the stack's folder."""
    environment = os.environ | {"LEADERBOARD_STATE_DIR": str(harness.stack.state.folder), "COLUMNS": "160"}

    def run(*words: str) -> Ended:
        command = [sys.executable, "-m", "cli.main", *words]
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def test_the_doctor_finds_nothing_wrong_with_the_stack(leaderboard: Run, harness: Harness) -> None:
    ended = leaderboard("doctor", "--json")

    findings = json.loads(ended.out)
    statuses = {finding["subject"]: finding["status"] for finding in findings}
    # Other tests of this session may have sent messages that nobody can evaluate.
    problems = [finding for finding in findings if finding["status"] == "PROBLEM"]
    assert [finding for finding in problems if finding["subject"] != "Queue: dead letters"] == []
    assert ended.code == (1 if problems else 0)
    for subject in (
        "Intake: bridge",
        "Prefect: worker",
        "Prefect: late runs",
        "Prefect: automation submission-received",
        "AWS: secrets",
        "EvalAI: phases",
    ):
        assert statuses[subject] == "OK"
    not_checked = {subject for subject, status in statuses.items() if status == "NOT CHECKED"}
    assert all(" image of " in subject for subject in not_checked)
    secrets = [harness.stack.state.host_token, *harness.stack.state.participant_tokens.values()]
    assert [secret for secret in secrets if secret in ended.out + ended.err] == []


@pytest.fixture
def queue(harness: Harness) -> SubmissionQueue:
    """The stack's queue, for looking without the seconds that a command takes to start."""
    state = harness.stack.state
    credentials = AwsCredentials(
        aws_access_key_id=EMBEDDED_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SecretStr(EMBEDDED_CREDENTIALS["AWS_SECRET_ACCESS_KEY"]),
        region_name=state.region,
        aws_client_parameters=AwsClientParameters(endpoint_url=state.aws_url),
    )
    return SubmissionQueue(queue_url=state.queue_url, dead_letter_url=state.dead_letter_url, credentials=credentials)


def dead_about(queue: SubmissionQueue, text: str) -> set[str]:
    """The message ids of the dead letters whose body has the text."""
    with DeadLetters(queue, wait_seconds=0) as letters:
        return {letter.message_id for letter in letters if text in letter.received.body}


def test_a_dead_letter_is_shown_sent_back_and_comes_to_its_end_again(
    leaderboard: Run, sent: Sent, queue: SubmissionQueue
) -> None:
    """Submission 4242 is unknown to EvalAI: only a flow run finds that out, the first time and the second time."""
    eventually(lambda: bool(dead_about(queue, "4242") and dead_about(queue, "not json")))

    shown = leaderboard("queue", "dead", "--json")
    redriven = leaderboard("queue", "redrive", "4242")

    found = {letter["submission"]: letter for letter in json.loads(shown.out)["dead_letters"]}
    first = found[4242]
    eventually(lambda: bool(dead_about(queue, "4242") - {first["message_id"]}))
    assert first["phase"] == "leaderboard-20-SENSORS"
    assert "does not know the submission" in first["reason"]
    assert found[None]["reason"].startswith("The message is not")
    assert (redriven.code, redriven.out.splitlines()[-1]) == (0, "1 sent back")


def test_a_forged_score_is_held_until_an_operator_decides(leaderboard: Run, harness: Harness) -> None:
    submission = harness.submit("leaderboard-20-SENSORS", "demo/agent:forged-score")
    held = harness.end_of(submission)
    assert (held.evalai, held.row["status"]) == (SubmissionStatus.RUNNING, "held")

    shown = leaderboard("verify", str(submission))
    explained = leaderboard("explain", str(submission))
    released = leaderboard("verify", str(submission), "--release", "--because", "the host has driven it again")
    seen = harness.wait(submission, lambda seen: seen.evalai is SubmissionStatus.FINISHED)

    assert shown.code == 3
    assert "score_composed is 100.0, but " in shown.out
    assert "Provenance: signed by the key " in shown.out
    assert "an operator's decision" in explained.out
    assert (released.code, "the host has driven it again" in released.out) == (0, True)
    assert harness.observer.result(submission, seen.phase)["Driving score"] > 90


def test_the_commands_about_submissions_agree_with_each_other_and_with_evalai(
    leaderboard: Run, harness: Harness, sent: Sent
) -> None:
    submission = min(sent.steady)
    score = harness.observer.result(submission, harness.end_of(submission).phase)["Driving score"]

    listed = {line["submission"]: line for line in json.loads(leaderboard("status", "--all", "--json").out)}
    result = leaderboard("result", str(submission), "--json")
    logs = leaderboard("logs", str(submission), "--process", "agent", "--shard", "0")
    cancelled = leaderboard("cancel", str(submission))
    ranked = leaderboard("standings", harness.observer.snapshot(submission).phase, "--json", "--compare")
    used = json.loads(leaderboard("cost", "--by", "submission", "--json").out)

    assert (listed[submission]["status"], listed[submission]["score"]) == ("finished", score)
    assert (result.code, json.loads(result.out)["metrics"]["Driving score"]) == (0, score)
    assert "shard 0 agent | all routes driven" in logs.out
    assert (cancelled.code, "it is finished already" in cancelled.err) == (1, True)
    assert (ranked.code, ranked.err) == (0, "EvalAI shows the same.\n")
    assert submission in [row["submission"] for rows in json.loads(ranked.out).values() for row in rows]
    [own] = [group for group in used if group["name"] == str(submission)]
    assert own["gpu_seconds"] > own["driving_seconds"] > 4 * 5 * 0.3
