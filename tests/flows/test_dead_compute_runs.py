"""Runs of the compute client that a lost machine has left in Prefect give up their slots, and live ones keep them."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.states import Running

from flows.compute import compute
from flows.reconciler import compute_runs
from flows.reconciler.compute_runs import mark_dead_compute_runs_crashed
from tests.contract.compute_harness import ComputeAws
from tests.contract.conftest import aws, moto_url  # noqa: F401 - fixtures

LEASE = 60


@pytest.fixture
def harness(aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> ComputeAws:  # noqa: F811
    harness = ComputeAws(aws)

    async def load(kind: type, name: str) -> SimpleNamespace:
        return SimpleNamespace(jobs=lambda: harness.jobs(lease_seconds=LEASE))

    monkeypatch.setattr(compute_runs, "load_block", load)
    return harness


def prefect_is_ahead(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    async def ahead(client: PrefectClient) -> timedelta:
        return timedelta(seconds=seconds)

    monkeypatch.setattr(compute_runs, "clock_ahead", ahead)


def begun(job_id: str) -> str:
    with get_client(sync_client=True) as client:
        parameters = {"job_id": job_id, "function": "m:f"}
        return str(client.create_flow_run(compute, parameters=parameters, state=Running()).id)


def shown(*runs: str) -> list[StateType]:
    with get_client(sync_client=True) as client:
        states = [client.read_flow_run(run).state for run in runs]  # type: ignore[arg-type] - a text does, too
    return [state.type for state in states if state]


def test_runs_that_hold_no_job_any_more_are_shown_as_crashed(
    harness: ComputeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect_is_ahead(monkeypatch, 3600)
    jobs = harness.jobs(lease_seconds=LEASE)
    runs = {}
    for job_id in ("silent", "renewed", "ended", "another's"):
        jobs.submit(job_id.replace("'", "-"), 1, "group")
        runs[job_id] = begun(job_id.replace("'", "-"))
    runs["unknown"] = begun("nobody-s")
    leases = {job: jobs.claim(job, runs[job]).lease for job in ("silent", "renewed", "ended")}
    jobs.claim("another-s", "another run")
    jobs.succeed(leases["ended"], "1")
    harness.clock.ahead = 4 * LEASE + 1
    jobs.renew(leases["renewed"])

    assert asyncio.run(mark_dead_compute_runs_crashed()) == 4

    dead = [runs[job] for job in ("silent", "ended", "another's", "unknown")]
    assert shown(*dead) == [StateType.CRASHED] * 4
    assert shown(runs["renewed"]) == [StateType.RUNNING]
    jobs.succeed(leases["silent"], "1")  # a display: whoever holds the lease still has the job
    asyncio.run(mark_dead_compute_runs_crashed())
    assert shown(runs["renewed"]) == [StateType.RUNNING]


def test_a_run_that_has_just_begun_is_left_alone(harness: ComputeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun("nobody-s")
    prefect_is_ahead(monkeypatch, 0)
    asyncio.run(mark_dead_compute_runs_crashed())
    assert shown(run) == [StateType.RUNNING]

    prefect_is_ahead(monkeypatch, 3600)
    asyncio.run(mark_dead_compute_runs_crashed())
    assert shown(run) == [StateType.CRASHED]
