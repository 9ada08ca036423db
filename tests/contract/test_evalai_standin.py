"""The stand-in as a program, its faults, and its messages on a real (moto) SQS queue."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from embedded.evalai_standin import Challenge, Config, Fault, Phase, Split, Team, User, create_app, serving, state_of
from tests.waiting import PATIENCE_SECONDS, eventually

PARTICIPANT = {"Authorization": "Bearer participant-token"}


def config(**more: object) -> Config:
    content: dict[str, object] = {
        "users": (User(pk=1, name="host", token="host-token"), User(pk=2, name="p", token="participant-token")),
        "challenges": (Challenge(pk=1, hosts=("host",)),),
        "phases": (Phase(pk=3, challenge=1, codename="leaderboard-10-MAP"),),
        "splits": (Split(pk=30, phase=3, labels=("Driving score",)),),
        "teams": (Team(pk=5, name="Équipe n° 2 / <b>", members=("p",)),),
    }
    return Config.model_validate(content | more)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def hand_in(url: str, image: str) -> int:
    file = {"input_file": ("submission.json", json.dumps({"submitted_image_uri": image}), "application/json")}
    path = "/api/jobs/challenge/1/challenge_phase/3/submission/"
    answer = requests.post(url + path, headers=PARTICIPANT, files=file, data={"status": "submitting"}, timeout=60)
    answer.raise_for_status()
    return int(answer.json()["id"])


@pytest.mark.parametrize("fifo", [False, True])
def test_a_submission_reaches_the_queue(aws: dict[str, Any], fifo: bool) -> None:
    queue = boto3.client("sqs", **aws)
    name, attributes = ("q.fifo", {"FifoQueue": "true"}) if fifo else ("q", {})
    queue_url = queue.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    challenges = (Challenge(pk=1, hosts=("host",), queue_url=queue_url),)

    with serving(create_app(config(challenges=challenges, sqs_endpoint_url=aws["endpoint_url"]))) as url:
        pk = hand_in(url, "registry.test/team:1")

    (message,) = queue.receive_message(QueueUrl=queue_url, AttributeNames=["All"])["Messages"]
    queue.close()
    assert json.loads(message["Body"]) == {
        "challenge_pk": "1",
        "phase_pk": "3",
        "is_static_dataset_code_upload_submission": False,
        "submitted_image_uri": "registry.test/team:1",
        "submission_pk": pk,
    }
    assert message["Attributes"].get("MessageGroupId") == ("3-5" if fifo else None)


def test_a_queue_that_is_away_breaks_the_request_only() -> None:
    away = "http://127.0.0.1:1"
    challenges = (Challenge(pk=1, hosts=("host",), queue_url=f"{away}/1/q"),)

    with serving(create_app(config(challenges=challenges, sqs_endpoint_url=away))) as url:
        with pytest.raises(requests.HTTPError, match="500"):
            hand_in(url, "registry.test/team:1")
        phases = requests.get(f"{url}/api/challenges/challenge/1/challenge_phase/3", timeout=60)

    assert phases.status_code == 200


def test_faults_meet_the_requests_they_are_meant_for() -> None:
    app = create_app(config(), publish=[].append)
    state_of(app).fail(Fault.throttled(retry_after=9), path="/leaderboard/")
    state_of(app).fail(Fault.slow(0.2), path="challenge_phase")

    with serving(app) as url:
        board = f"{url}/api/jobs/challenge_phase_split/30/leaderboard/"
        begin = time.monotonic()
        phase = requests.get(f"{url}/api/challenges/challenge/1/challenge_phase/3", timeout=60)
        waited = time.monotonic() - begin
        answers = [requests.get(board, timeout=60) for _ in range(2)]

    assert (phase.status_code, waited >= 0.2) == (200, True)
    assert [a.status_code for a in answers] == [429, 200]
    assert answers[0].headers["Retry-After"] == "9"


HOST = {"Authorization": "Bearer host-token"}
PHASE = "/api/challenges/challenge/1/challenge_phase/3"


def test_an_outage_meets_everybody_until_it_is_over() -> None:
    app = create_app(config(control=True), publish=[].append)

    with serving(app) as url:
        begun = requests.post(f"{url}/standin/outage", headers=HOST, json={"kind": "broken", "seconds": 3}, timeout=60)
        during = requests.get(url + PHASE, timeout=60)
        eventually(lambda: requests.get(url + PHASE, timeout=60).status_code, until=lambda code: code == 200)

    assert (begun.status_code, during.status_code) == (200, 500)
    assert "<html>" in during.text


def test_every_status_that_was_accepted_is_kept_with_who_wrote_it() -> None:
    with serving(create_app(config(control=True), publish=[].append)) as url:
        pk = hand_in(url, "registry.test/team:1")
        report = {"challenge_phase": 3, "submission": pk, "stdout": "", "stderr": "broken", "environment_log": ""}
        report = report | {"submission_status": "FAILED", "metadata": "", "result": "[]"}
        for stderr in ("broken", "broken", "broken otherwise"):
            path = f"{url}/api/jobs/challenge/1/update_submission/"
            requests.put(path, headers=HOST, json=report | {"stderr": stderr}, timeout=60).raise_for_status()
        meta = f"{url}/api/jobs/challenges/1/submissions/{pk}/update_submission_meta/"
        requests.patch(meta, headers=PARTICIPANT, json={"status": "cancelled"}, timeout=60).raise_for_status()
        history = requests.get(f"{url}/standin/history", headers=HOST, timeout=60).json()

    assert [(write["submission"], write["status"], write["by"]) for write in history] == [
        (pk, "submitted", "p"),
        (pk, "failed", "host"),
        (pk, "failed", "host"),
        (pk, "failed", "host"),
        (pk, "cancelled", "p"),
    ]
    first, same, other = (write["digest"] for write in history[1:4])
    assert first == same != other


@pytest.mark.parametrize(
    ("control", "headers", "body", "status"),
    [
        (False, HOST, {"kind": "broken", "seconds": 1}, 404),
        (True, PARTICIPANT, {"kind": "broken", "seconds": 1}, 403),
        (True, {}, {"kind": "broken", "seconds": 1}, 403),
        (True, HOST, {"kind": "unknown", "seconds": 1}, 400),
        (True, HOST, {"kind": "broken", "seconds": 0}, 400),
    ],
)
def test_outages_are_for_hosts_where_they_are_switched_on(
    control: bool, headers: dict[str, str], body: dict[str, object], status: int
) -> None:
    with serving(create_app(config(control=control), publish=[].append)) as url:
        assert requests.post(f"{url}/standin/outage", headers=headers, json=body, timeout=60).status_code == status
        assert requests.get(url + PHASE, timeout=60).status_code == 200


def test_files_can_be_fetched() -> None:
    app = create_app(config(), publish=[].append)

    with serving(app) as url:
        pk = hand_in(url, "registry.test/team:1")
        shown = requests.get(f"{url}/api/jobs/submission/{pk}", headers=PARTICIPANT, timeout=60).json()
        file = requests.get(shown["input_file"], timeout=60)

    assert file.json() == {"submitted_image_uri": "registry.test/team:1"}


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    file = tmp_path / "evalai.json"
    file.write_text(config().model_dump_json())
    with serving(create_app(config(), publish=[].append)) as url:
        port = url.rpartition(":")[2]  # free again after the block
    command = [sys.executable, "-m", "embedded.evalai_standin", "--port", port, "--config", str(file)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        status = first_status(f"{url}/api/jobs/submission/1")
    finally:
        process.terminate()
        code = process.wait(PATIENCE_SECONDS)

    assert (status, code) == (401, 0) or (status, code) == (401, -15)


def test_a_wrong_configuration_ends_it_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "evalai.json"
    file.write_text('{"users": [], "challenges": [], "phases": [{"pk": "x"}]}')
    command = [sys.executable, "-m", "embedded.evalai_standin", "--port", "1", "--config", str(file)]

    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "phases.0.pk" in done.stderr


def first_status(url: str) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return requests.get(url, timeout=PATIENCE_SECONDS).status_code
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
