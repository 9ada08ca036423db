"""`leaderboard doctor` on whether the work goes on: the bridge's heartbeat, late runs and the slots of the pool."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Running, Scheduled
from prefect_aws import AwsCredentials

from blocks.submission_queue import SubmissionQueue
from deployments.installation import Installation
from deployments.settings import Settings
from doctor import progress_checks
from doctor.context import DoctorContext
from doctor.findings import CheckStatus, Finding, run_checks
from evaluation.errors import InvalidConfiguration
from services.bridge_heartbeat import HEARTBEAT, bridge_resource
from tests.waiting import eventually

POOL, RECOVERY = "progress-pool", "progress-recovery"


@dataclass
class Installed:
    client: SyncPrefectClient
    deployments: dict[str, UUID]  # by pool
    queue_url: str

    def diagnose(self) -> dict[str, Finding]:
        settings, installation = (
            Settings(work_pool=POOL, recovery_pool=RECOVERY),
            Installation(str(PREFECT_API_URL.value())),
        )
        context = DoctorContext(settings, installation, self.client, self.load)
        return {finding.subject: finding for finding in run_checks(progress_checks.progress_checks(context))}

    def load(self, kind: Any, name: str) -> Any:
        if kind is not SubmissionQueue:
            raise InvalidConfiguration("The block cannot be used")
        credentials = AwsCredentials(region_name="us-west-2")
        return SubmissionQueue(queue_url=self.queue_url, dead_letter_url="d", credentials=credentials)

    def heartbeat(self, age: timedelta = timedelta(0)) -> None:
        resource = {"prefect.resource.id": bridge_resource(self.queue_url)}
        occurred = (datetime.now(UTC) - age).isoformat()
        body = {"id": str(uuid4()), "occurred": occurred, "event": HEARTBEAT, "resource": resource, "payload": {}}
        self.client.request("POST", "/events", json=[body]).raise_for_status()
        wanted = {"filter": {"resource": {"id": [bridge_resource(self.queue_url)]}}}
        eventually(lambda: self.client.request("POST", "/events/filter", json=wanted).json()["total"] > 0, 60)

    def run(self, minutes_late: float = 0, pool: str = POOL, running: bool = False) -> None:
        due = datetime.now(UTC) - timedelta(minutes=minutes_late)
        made = self.client.create_flow_run_from_deployment(
            self.deployments[pool], state=Scheduled(scheduled_time=due), name=f"run-of-{pool}"
        )
        state = Running() if running else Scheduled(scheduled_time=due, name="Late")
        self.client.set_flow_run_state(made.id, state, force=True)


@pytest.fixture
def installed() -> Iterator[Installed]:
    with get_client(sync_client=True) as client:
        flow, deployments = client.create_flow_from_name("progress"), {}
        for pool in (POOL, RECOVERY):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            deployments[pool] = client.create_deployment(flow, pool, work_pool_name=pool)
        try:
            yield Installed(client, deployments, f"http://127.0.0.1:1/1/queue-{uuid4().hex[:8]}")
        finally:
            for pool, deployment in deployments.items():
                client.delete_deployment(deployment)
                with suppress(ObjectNotFound):
                    client.delete_work_pool(pool)


def test_a_bridge_that_polls_and_a_pool_that_works_are_fine(installed: Installed) -> None:
    installed.heartbeat()
    installed.client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=8))
    installed.run(running=True)
    installed.run(minutes_late=30)  # a submission that waits its turn while another one drives

    findings = installed.diagnose()

    assert {finding.status for finding in findings.values()} == {CheckStatus.OK}
    assert (
        findings["Prefect: late runs"].detail == "1 run is late, run-of-progress-pool by 30 min; 1 of 8 slots are taken"
    )


def test_a_bridge_whose_heartbeat_is_old_is_a_problem(installed: Installed) -> None:
    installed.heartbeat(timedelta(minutes=7))

    found = installed.diagnose()["Intake: bridge"]

    assert found.status is CheckStatus.PROBLEM
    assert "No messages are received: the bridge of queue-" in found.detail
    assert "last polled 7 min ago" in found.detail
    assert found.remedy.endswith("start it: leaderboard bridge")


def test_an_installation_without_a_bridge_is_a_problem(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_checks, "_PAUSE_SECONDS", 0.0)

    found = installed.diagnose()["Intake: bridge"]

    assert found.status is CheckStatus.PROBLEM
    assert "No bridge has ever polled the queue queue-" in found.detail


def test_a_takeover_that_is_late_is_a_problem_whatever_the_other_pool_does(installed: Installed) -> None:
    installed.run(running=True)
    installed.run(minutes_late=3, pool=RECOVERY)

    found = installed.diagnose()["Prefect: late runs"]

    assert found.status is CheckStatus.PROBLEM
    assert f"wait in the work pool {RECOVERY}: 1 run is late, run-of-progress-recovery by 3 min" in found.detail
    assert "Run `leaderboard reconcile`" in found.remedy
    assert f"prefect worker start --pool {RECOVERY}" in found.remedy


def test_late_runs_that_no_worker_starts_are_a_problem(installed: Installed) -> None:
    installed.run(minutes_late=4)
    installed.run(minutes_late=9)

    found = installed.diagnose()["Prefect: late runs"]

    assert found.status is CheckStatus.PROBLEM
    assert found.detail == (
        f"No worker starts the runs of the work pool {POOL}: 2 runs are late, run-of-progress-pool by 9 min; "
        "0 runs hold a slot"
    )
