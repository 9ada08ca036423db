"""The reconciler of a running stack: it looks by itself, and what it leaves to a person reaches one."""

import subprocess
import sys
from typing import Any

import requests
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from deployments.notification import NAME, tell_hosts
from deployments.prefect_events import OutgoingEvent, PrefectEvents
from deployments.stack import PROJECT
from flows.reconcile import ATTENTION
from flows.successors import FIRST
from tests.e2e.conftest import Site
from tests.waiting import eventually


def runs_of_the_reconciler(site: Site) -> list[dict[str, Any]]:
    body = {"flows": {"name": {"any_": ["reconcile"]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    answer = requests.post(f"{site.stack.state.prefect_api_url}/flow_runs/filter", json=body, timeout=30)
    return list(answer.json())


def test_it_looks_by_itself(site: Site) -> None:
    eventually(lambda: bool(runs_of_the_reconciler(site)), seconds=110)


def test_it_goes_before_new_submissions(site: Site) -> None:
    queue = requests.get(f"{site.stack.state.prefect_api_url}/work_pools/leaderboard/queues/{FIRST}", timeout=30).json()
    assert queue["priority"] == 1
    assert {run["work_queue_name"] for run in runs_of_the_reconciler(site)} == {FIRST}


def test_what_it_finds_can_be_seen_without_being_repaired(site: Site) -> None:
    command = [sys.executable, "-m", "deployments.cli", "reconcile", "--dry-run"]
    folder = {"LEADERBOARD_STATE_DIR": str(site.stack.state.folder)}
    done = subprocess.run(
        command, cwd=PROJECT, env={"PATH": "/usr/bin:/bin", **folder}, capture_output=True, text=True, timeout=90
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "everything agrees." in done.stdout


def test_the_hosts_hear_of_what_only_a_person_can_mend(site: Site, httpserver: HTTPServer) -> None:
    messages: list[object] = []

    def webhook(request: Request) -> Response:
        messages.append(request.get_json())
        return Response("ok")

    httpserver.expect_request("/hook").respond_with_handler(webhook)
    with (
        temporary_settings({PREFECT_API_URL: site.stack.state.prefect_api_url}),
        get_client(sync_client=True) as client,
    ):
        CustomWebhookNotificationBlock(
            name="hosts", url=httpserver.url_for("/hook"), json_data={"text": "{{subject}}: {{body}}"}
        ).save("hosts", overwrite=True)
        made = [tell_hosts(client, "custom-webhook/hosts") for _ in range(2)]
        assert len(client.read_automations_by_name(NAME)) == 1
        finding = {"finding": "Its run should have started."}
        PrefectEvents(client).ring(OutgoingEvent(ATTENTION, "leaderboard.submission.7", "submission 7", finding))

    assert made == ["notification through custom-webhook/hosts"] * 2
    told = {"text": "submission 7 needs a host: Its run should have started."}
    eventually(lambda: messages == [told], seconds=60)
