"""A whole run with every log at DEBUG, and errors on the way: no secret of the installation is anywhere it can be read.

Where they have to be: in the private files of the stack's own start (the stand-in EvalAI reads its users there), in
Secrets Manager, and encrypted in Prefect's database.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
import requests
from pydantic import SecretStr

from deployments.settings import Settings
from deployments.stack_state import EMBEDDED_CREDENTIALS
from embedded.stack import PROJECT
from embedded.stack_plan import child_environment
from evalai_api.budget import NoBudget
from evalai_api.client import EvalAIClient
from evalai_api.http import RetryPolicy
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.submission.model import SubmissionStatus
from tests.e2e.conftest import Harness
from tests.waiting import PATIENCE_SECONDS

DEBUG = {"PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG"}
PRIVATE = {"stack.json", "tmp/evalai.json"}  # readable for their owner only
STRANGER = "a-token-that-evalai-does-not-know"
ONCE = RetryPolicy(attempts=1)
LISTS = (
    "artifacts",
    "automations",
    "block_documents",
    "block_types",
    "deployments",
    "flow_runs",
    "flows",
    "logs",
    "task_runs",
    "v2/concurrency_limits",
    "variables",
    "work_pools",
)


@dataclass
class Evidence:
    """What can be read, by where it was."""

    pieces: dict[str, bytes] = field(default_factory=dict)

    def add(self, where: str, text: str | bytes) -> None:
        self.pieces[where] = self.pieces.get(where, b"") + (text.encode() if isinstance(text, str) else text)

    def having(self, secret: str) -> list[str]:
        """Where the secret stands, plainly or within something that is base64."""
        shifted = [base64.b64encode(b"x" * shift + secret.encode())[4:-4] for shift in range(3)]
        return [where for where, text in self.pieces.items() if any(s in text for s in (secret.encode(), *shifted))]


def files(harness: Harness) -> Evidence:
    """Everything below the stack's folder: logs, run directories, Prefect's database as the bytes that it is."""
    pieces, folder = Evidence(), harness.stack.state.folder
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            try:
                pieces.add(str(path.relative_to(folder)), path.read_bytes())
            except FileNotFoundError:  # a run directory that is being removed
                continue
    return pieces


def prefect(harness: Harness, submission: int) -> Evidence:
    """What Prefect's API shows."""
    pieces, api = Evidence(), harness.stack.state.prefect_api_url
    for name in LISTS:
        for page in _pages(f"{api}/{name}/filter"):
            pieces.add(f"Prefect's {name}", json.dumps(page, ensure_ascii=False))
    for run in harness.flow_runs_of(submission):
        history = _asked("GET", f"{api}/flow_run_states/?flow_run_id={run['id']}")
        pieces.add("Prefect's states", json.dumps(history, ensure_ascii=False))
    answer: dict[str, Any] = _asked("POST", f"{api}/events/filter", {"limit": 50})
    while True:
        pieces.add("Prefect's events", json.dumps(answer["events"], ensure_ascii=False))
        if not answer["next_page"]:
            return pieces
        answer = _asked("GET", answer["next_page"])


def _pages(url: str) -> Iterator[list[Any]]:
    offset = 0
    while page := _asked("POST", url, {"limit": 200, "offset": offset}):
        yield page
        offset += len(page)
        if len(page) < 200:
            return


def _asked(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    answer = requests.request(method, url, json=body, timeout=60)
    assert answer.ok, f"{url}: {answer.text}"
    return answer.json()


def aws(harness: Harness) -> Evidence:
    """Every object of every bucket, and every row of every table."""
    pieces, s3, tables = Evidence(), harness.stack.aws.s3, harness.stack.aws.dynamodb
    for bucket in s3.list_buckets()["Buckets"]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for item in page.get("Contents", []):
                key = item["Key"]
                pieces.add(f"s3://{bucket['Name']}/{key}", s3.get_object(Bucket=bucket["Name"], Key=key)["Body"].read())
    for table in tables.list_tables()["TableNames"]:
        for rows in tables.get_paginator("scan").paginate(TableName=table):
            pieces.add(f"table {table}", json.dumps(rows["Items"], default=str, ensure_ascii=False))
    return pieces


@contextmanager
def debugging_runs(harness: Harness) -> Iterator[None]:
    """The worker, and with it the runs that start meanwhile, log everything, as a host who hunts an error would do."""
    processes = harness.stack.processes
    usual = processes.child("worker").environment
    processes.restart("worker", {**usual, **DEBUG})
    yield
    processes.restart("worker", usual)


def setup(harness: Harness, **changes: str) -> "subprocess.Popen[str]":
    """`leaderboard setup`, which reads all secrets, with every log at DEBUG."""
    state = harness.stack.state
    addresses = ["--queue-url", state.queue_url, "--dead-letter-url", state.dead_letter_url]
    command = [sys.executable, "-m", "cli.main", "setup", *addresses]
    return subprocess.Popen(
        [*command, "--clusters", str(state.folder / "tmp" / "clusters.json")],
        cwd=PROJECT,
        env={**child_environment(Settings(), state), **DEBUG, **changes},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def refusals(harness: Harness, submission: int, token: str) -> Evidence:
    """EvalAI's 401 to a token that it does not know and its 500 to one that it knows, as our errors show them."""
    pieces, state = Evidence(), harness.stack.state
    with pytest.raises(InvalidConfiguration, match="answered 401") as refused:
        EvalAIClient(state.evalai_url, SecretStr(STRANGER), NoBudget(), retries=ONCE).status(submission)
    pieces.add("our error for EvalAI's 401", repr(refused.value) + str(refused.value))
    outage = {"kind": "broken", "seconds": 3}
    host = {"Authorization": f"Bearer {state.host_token}"}
    requests.post(f"{state.evalai_url}/standin/outage", json=outage, headers=host, timeout=30).raise_for_status()
    with pytest.raises(ServiceUnavailable, match="answered 500") as broken:
        EvalAIClient(state.evalai_url, SecretStr(token), NoBudget(), retries=ONCE).status(submission)
    pieces.add("our error for EvalAI's 500", repr(broken.value) + str(broken.value))
    return pieces


def provenance_key(harness: Harness) -> str:
    """What the stack made to sign with."""
    state = harness.stack.state
    keys = {name.lower(): EMBEDDED_CREDENTIALS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    manager = boto3.client("secretsmanager", endpoint_url=state.aws_url, region_name=state.region, **keys)
    return str(json.loads(manager.get_secret_value(SecretId="evalai")["SecretString"])["provenance_key"])


def test_no_secret_is_anywhere_after_a_run_that_logs_everything(harness: Harness) -> None:
    users = json.loads((harness.stack.state.folder / "tmp" / "evalai.json").read_text())["users"]
    installation = next(user["token"] for user in users if user["name"] == "leaderboard-flows")
    secrets = {*(user["token"] for user in users), EMBEDDED_CREDENTIALS["AWS_SECRET_ACCESS_KEY"], STRANGER}
    secrets.add(provenance_key(harness))

    commands = {"setup": setup(harness), "setup without secrets": setup(harness, LEADERBOARD_SECRETS_PREFIX="absent-")}
    with debugging_runs(harness):
        submission = harness.submit("leaderboard-20-SENSORS", "demo/agent:steady")
        harness.wait(submission, lambda _: len(harness.pods_of(submission)) == 4)
    found = [files(harness), refusals(harness, submission, installation)]
    printed = {name: command.communicate(timeout=PATIENCE_SECONDS)[0] for name, command in commands.items()}
    seen = harness.end_of(submission)
    found += [
        files(harness),
        prefect(harness, submission),
        aws(harness),
        Evidence({name: text.encode() for name, text in printed.items()}),
    ]

    # then: all of it was there to be found, in the loudest form
    assert seen.evalai is SubmissionStatus.FINISHED
    assert [command.returncode == 0 for command in commands.values()] == [True, False]
    assert "does not exist in this account" in printed["setup without secrets"]
    worker = (harness.stack.state.folder / "logs" / "worker.log").read_text()
    assert all("DEBUG" in text for text in (worker, *printed.values()))
    places = {where for pieces in found for where in pieces.pieces}
    assert {"prefect/prefect.db", "logs/evalai.log", f"s3://leaderboard-20/{submission}/merged.json"} <= places
    assert len([where for where in places if where.endswith("/job.json")]) >= 4
    assert {f"Prefect's {name}" for name in ("flow_runs", "states", "logs", "events", "artifacts")} <= places
    assert "tmp/evalai.json" in found[0].having(installation)

    # and: no secret is where it need not be
    where = {place for pieces in found for secret in secrets for place in pieces.having(secret)}
    assert where - PRIVATE == set()
    assert all((harness.stack.state.folder / name).stat().st_mode & 0o077 == 0 for name in PRIVATE)
