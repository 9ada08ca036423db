"""The compute client's worked example on the embedded stack: producer, queue, bridge, event, worker, result."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from compute_client import DynamoDBClient, Producer
from compute_client.job import ResultStatus
from deployments.settings import Settings
from deployments.stack_state import EMBEDDED_CREDENTIALS
from embedded.aws import queue_url
from embedded.stack import PROJECT
from embedded.stack_plan import child_environment
from tests.e2e.conftest import Harness
from tests.original_compute_example import run_original_example

BUCKET = "compute-contents"


@dataclass(frozen=True)
class Compute:
    """A queue of jobs with its bridge, beside the stack's own; its function is prefect.yaml's."""

    producer: Producer
    leaderboard: Callable[..., "subprocess.CompletedProcess[str]"]  # `leaderboard compute ...`
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def compute(harness: Harness) -> Compute:
    stack = harness.stack
    own = {"LEADERBOARD_STATE_DIR": str(stack.state.folder)}
    environment = child_environment(Settings(), stack.state) | own
    command = [sys.executable, "-m", "cli.main", "compute"]

    def leaderboard(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *words],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = leaderboard("setup", "--metrics")  # makes the queue from its template
    assert done.returncode == 0, done.stderr
    stack.processes.start("compute-bridge", [*command, "bridge"], own)
    client: Any = partial(
        boto3.client,
        endpoint_url=stack.state.aws_url,
        region_name=stack.state.region,
        aws_access_key_id=EMBEDDED_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=EMBEDDED_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    queue = queue_url(stack.state.aws_url, "compute")
    producer = Producer(queue, DynamoDBClient("compute", BUCKET, make_client=client), timeout_seconds=100)
    return Compute(producer, leaderboard, environment)


def test_the_worked_example(compute: Compute) -> None:
    producer = compute.producer
    good = {below: producer.post_non_blocking({"below": below}) for below in (10, 100_000)}
    bad = producer.post_non_blocking({"below": -1})

    results = {below: producer.wait(job_id).result for below, job_id in good.items()}
    failed = producer.wait(bad)

    assert results == {
        10: {"primes": 4, "below": 10, "job": good[10]},
        100_000: {"primes": 9592, "below": 100_000, "job": good[100_000]},
    }
    assert failed.status is ResultStatus.FAILED
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("ValueError", "below is -1; it has to be 0 or more")
    assert "compute_client/example.py" in failed.error.trace


def test_a_person_may_post_and_look(compute: Compute) -> None:
    posted = compute.leaderboard("post", '{"below": 30}', "--id", "by-hand", "--wait", "90")
    backlog = compute.leaderboard("backlog", "--workers", "2")

    assert posted.stdout.splitlines()[0] == "by-hand SUCCESS", posted.stderr
    assert json.loads(posted.stdout.splitlines()[1]) == {"primes": 10, "below": 30, "job": "by-hand"}
    assert ", 2 workers, " in backlog.stdout, backlog.stderr
    assert compute.producer.post({"below": 30}, job_id="by-hand").result == {
        "primes": 10,
        "below": 30,
        "job": "by-hand",
    }


def test_the_original_example_in_a_bare_shell_with_the_variables_of_leaderboard_env(
    compute: Compute, tmp_path: Path
) -> None:
    assert compute.leaderboard("setup", "--jobs", "answers").returncode == 0
    shell = subprocess.run(
        [sys.executable, "-m", "cli.main", "env"],
        cwd=PROJECT,
        env=compute.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [shlex.split(line) for line in shell.stdout.splitlines()]

    run_original_example("answers", "answers", dict(line[1].split("=", 1) for line in lines), tmp_path)
