"""Leases of compute jobs on machines whose clocks differ: DynamoDB's time counts, and nobody else's."""

import time
from typing import Any

import pytest

from aws_api import dynamodb_clock
from compute_client.job import Held
from compute_client.table import JobTable
from tests.contract.compute_harness import ComputeAws


@pytest.fixture
def compute(aws: dict[str, Any]) -> ComputeAws:
    return ComputeAws(aws)


def on_a_machine(compute: ComputeAws) -> JobTable:
    return JobTable(compute.table, None, compute.client, lease_seconds=60)


@pytest.mark.parametrize("ahead", [-300, 61, 300, 86400])
def test_a_worker_whose_clock_differs_does_not_take_a_job_from_a_live_run(
    compute: ComputeAws, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = on_a_machine(compute)
    right.submit("job", 1, "group")
    claimed = right.claim("job", "run-a")
    monkeypatch.setattr(dynamodb_clock, "time", lambda: time.time() + ahead)

    with pytest.raises(Held) as held:
        on_a_machine(compute).claim("job", "run-b")

    assert 0 < held.value.seconds_left <= 61
    right.succeed(claimed.lease, "1")


@pytest.mark.parametrize("ahead", [-300, 300])
def test_a_lease_that_has_ended_is_taken_whatever_the_clock_says(
    compute: ComputeAws, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_a_machine(compute)
    first.submit("job", 1, "group")
    first.give_back(first.claim("job", "run-a").lease, counted=True)
    monkeypatch.setattr(dynamodb_clock, "time", lambda: time.time() + ahead)

    assert on_a_machine(compute).claim("job", "run-b").lease.attempt == 2
