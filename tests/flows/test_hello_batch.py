"""The flow `hello-batch` on moto's Batch: its steps, its log, its end when it is cancelled."""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled

from batch_jobs.functions import FunctionLimits
from blocks.document_names import BATCH
from compute_client.job import JobFailed
from deployments.batch_setup import save_batch_tasks
from deployments.settings import Settings
from evaluation.errors import InvalidConfiguration
from flows.batch_task import end_batch_jobs, run_on_batch
from flows.hello_batch import hello_batch
from tests.contract.conftest import aws, moto_url  # noqa: F401 - fixtures
from tests.contract.function_machine import BUCKET, DEFINITION, Clock, FunctionMachine
from tests.waiting import eventually_in_loop


@pytest.fixture
def machine(aws: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FunctionMachine:  # noqa: F811
    machine = FunctionMachine(aws, tmp_path)
    settings = Settings(aws_endpoint_url=aws["endpoint_url"], region=aws["region_name"])
    save_batch_tasks(settings, BATCH, DEFINITION, BUCKET, queue_prefix="")
    limits = FunctionLimits(poll_seconds=0.05, clock=Clock(step=5))
    monkeypatch.setattr("blocks.batch_tasks.FunctionLimits", lambda: limits)
    return machine


@flow(name="two-on-batch")
async def failing(function: str) -> object:
    return await run_on_batch(function, {"words": "no such number"}, gpus=1)


def test_start_and_end_run_here_and_hello_on_batch(machine: FunctionMachine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "prefect"):
        state = asyncio.run(hello_batch("Zendesk", return_state=True))

    assert asyncio.run(state.aresult()) == "Hi from AWS Batch, Zendesk!"
    (job,) = machine.jobs
    assert job.job_queue.name == "leaderboard-cpu-adhoc"
    said = [record.getMessage() for record in caplog.records if record.name.startswith("prefect.")]
    start = next(index for index, line in enumerate(said) if "is starting here" in line)
    done = next(index for index, line in enumerate(said) if line.endswith("answered: Hi from AWS Batch, Zendesk!"))
    between = [line for line in said[start:done] if line.startswith(f"[{job.job_id}] ")]
    assert re.search(r"batch_jobs.hello:hello is SUCCEEDED", " ".join(between))
    assert f"[{job.job_id}] Hi from AWS Batch, Zendesk!" in between


def test_a_functions_error_is_the_runs(machine: FunctionMachine) -> None:
    state = asyncio.run(failing("tests.batch_functions:fails", return_state=True))

    error = asyncio.run(state.aresult(raise_on_failure=False))
    assert isinstance(error, JobFailed)
    assert (error.error.type, error.error.message) == ("ValueError", "no such number")
    assert machine.jobs[0].job_queue.name == "leaderboard-gpu-production"


def test_a_misconfigured_job_is_told_at_once(machine: FunctionMachine) -> None:
    machine.reason = "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE"

    state = asyncio.run(hello_batch(return_state=True))

    error = asyncio.run(state.aresult(raise_on_failure=False))
    assert isinstance(error, InvalidConfiguration)
    assert "it needs more vCPUs than its compute environments may have" in str(error)


def test_cancelling_ends_the_job_and_so_does_the_hook_of_a_run_that_is_gone(machine: FunctionMachine) -> None:
    machine.reason = ""  # no machine: it waits

    async def cancel() -> FlowRun:
        running = asyncio.create_task(hello_batch(return_state=True))
        await eventually_in_loop(lambda: machine.names("RUNNABLE"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        (name,) = machine.names()
        async with get_client() as client:
            return await client.read_flow_run(re.match(r"run-([0-9a-f-]{36})-", name)[1])  # type: ignore[index,arg-type]

    run = asyncio.run(cancel())
    asyncio.run(end_batch_jobs(hello_batch, run, Cancelled()))

    (name,) = machine.names()
    assert machine.statuses(name) == ["FAILED"]
    assert re.fullmatch(r"hello-batch \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", run.name)
