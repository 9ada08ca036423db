"""The reconciler of a running stack: it runs by itself, and operators are notified of what it leaves to them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import requests
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from deployments.operator_notifications import AUTOMATIONS, notify_operators
from embedded.stack import PROJECT
from flows.reconciler.flow import NEEDS_ATTENTION
from prefect_api.events import OutgoingEvent, PrefectEvents
from tests.e2e.conftest import Harness
from tests.waiting import eventually


@contextmanager
def prefect_of(harness: Harness) -> Iterator[SyncPrefectClient]:
    with (
        temporary_settings({PREFECT_API_URL: harness.stack.state.prefect_api_url}),
        get_client(sync_client=True) as client,
    ):
        yield client


class Operators:
    """A webhook of the operators, and what has reached it."""

    def __init__(self, server: HTTPServer) -> None:
        self.messages: list[object] = []
        self._url = server.url_for("/hook")
        server.expect_request("/hook").respond_with_handler(self._hear)

    def block(self) -> str:
        """Saved; its type and name."""
        CustomWebhookNotificationBlock(
            name="operators", url=self._url, json_data={"text": "{{subject}}: {{body}}"}
        ).save("operators", overwrite=True)
        return "custom-webhook/operators"

    def _hear(self, request: Request) -> Response:
        self.messages.append(request.get_json())
        return Response("ok")


def publish_for_flow_run(client: SyncPrefectClient, run: UUID, event: str) -> None:
    """As a run of evaluate-submission does."""
    related = {"prefect.resource.id": f"prefect.flow.{uuid4()}", "prefect.resource.role": "flow"}
    body = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": f"prefect.flow-run.{event}",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.name": "submission-7"},
        "related": [{**related, "prefect.resource.name": "evaluate-submission"}],
    }
    client.request("POST", "/events", json=[body]).raise_for_status()


RECOVERY_POOL = "leaderboard-recovery"


def pools_of_runs_started_by(client: SyncPrefectClient, automation: UUID) -> list[str | None]:
    """The work pools of the reconciler's runs that it has started."""
    runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["reconcile"])))
    return [run.work_pool_name for run in runs if run.created_by and run.created_by.id == automation]


def runs_of_the_reconciler(harness: Harness) -> list[dict[str, Any]]:
    body = {"flows": {"name": {"any_": ["reconcile"]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    answer = requests.post(f"{harness.stack.state.prefect_api_url}/flow_runs/filter", json=body, timeout=30)
    return list(answer.json())


def test_it_looks_by_itself(harness: Harness) -> None:
    eventually(lambda: bool(runs_of_the_reconciler(harness)))


def test_it_needs_no_slot_of_the_submissions_pool(harness: Harness) -> None:
    assert {run["work_pool_name"] for run in runs_of_the_reconciler(harness)} == {RECOVERY_POOL}


def test_what_it_finds_can_be_seen_without_being_repaired(harness: Harness) -> None:
    command = [sys.executable, "-m", "cli.main", "reconcile", "--dry-run"]
    folder = {"LEADERBOARD_STATE_DIR": str(harness.stack.state.folder)}
    done = subprocess.run(
        command, cwd=PROJECT, env={"PATH": "/usr/bin:/bin", **folder}, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "everything agrees." in done.stdout


def test_operators_are_notified_of_what_only_a_person_can_repair(harness: Harness, httpserver: HTTPServer) -> None:
    operators = Operators(httpserver)
    with prefect_of(harness) as client:
        made = [notify_operators(client, operators.block()) for _ in range(2)]
        assert [len(client.read_automations_by_name(name)) for name in AUTOMATIONS] == [1, 1, 1]
        finding = {"finding": "Its run should have started."}
        PrefectEvents(client).publish(
            OutgoingEvent(NEEDS_ATTENTION, "leaderboard.submission.7", "submission 7", finding)
        )

    assert made == ["notifications through custom-webhook/operators"] * 2
    expected = {"text": "submission 7 needs an operator: Its run should have started."}
    eventually(lambda: operators.messages == [expected])


def test_prefect_itself_notifies_operators_of_a_silent_reconciler(harness: Harness, httpserver: HTTPServer) -> None:
    operators = Operators(httpserver)
    silent = "The reconciler is silent: The flow reconcile has not completed for 0.166667 minutes."
    with prefect_of(harness) as client:
        notify_operators(client, operators.block(), longest_silence=timedelta(seconds=10))  # it looks every minute
        try:
            eventually(lambda: any(silent in str(message) for message in operators.messages))
        finally:
            notify_operators(client, operators.block())


def test_a_run_whose_heartbeats_stop_calls_the_reconciler(harness: Harness) -> None:
    """A copy of the automation that prefect.yaml deploys, with a shorter timeout.

    A copy, as Prefect evaluates a changed one only once the old timeout is over.
    """
    silent, ended = uuid4(), uuid4()
    with prefect_of(harness) as client:
        [deployed] = client.read_automations_by_name("heartbeats-missing")
        automation = AutomationCore.model_validate(deployed.model_dump(exclude={"id", "owner_resource"}))
        impatient = automation.trigger.model_copy(update={"within": timedelta(seconds=10)})
        made = client.create_automation(automation.model_copy(update={"name": "hurried", "trigger": impatient}))
        try:
            for run, events in ((ended, ["heartbeat", "TakenOver"]), (silent, ["heartbeat"])):
                for event in events:
                    publish_for_flow_run(client, run, event)
            pools = eventually(lambda: pools_of_runs_started_by(client, made))
        finally:
            client.delete_automation(made)
            publish_for_flow_run(client, silent, "TakenOver")

    assert pools == [RECOVERY_POOL]
