"""`leaderboard doctor` on a real Prefect server: all green, then one thing broken at a time."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from blocks.artifact_bucket import ArtifactBucket
from blocks.document_names import CREDENTIALS, EVALAI, QUEUE
from blocks.evalai import EvalAI
from blocks.leaderboard_cluster import LeaderboardCluster, LocalCompute
from blocks.ledger_table import LedgerTable
from blocks.secrets import ClusterSecret, EvalAISecret, InstallationSecrets
from blocks.submission_queue import SubmissionQueue
from deployments.installation import Installation
from deployments.operator_notifications import ATTENTION, AUTOMATIONS, RECONCILER_SILENT, notify_operators
from deployments.settings import Settings
from doctor.context import DoctorContext
from doctor.findings import CheckStatus, Finding, run_checks
from doctor.prefect_checks import prefect_checks
from evaluation.errors import InvalidConfiguration
from evaluation.submission.model import LeaderboardVersion

TOKEN = "host-token-7f3a"
POOL, RECOVERY, LIMIT = "doctors-pool", "doctors-recovery", "doctors-limit"
CLUSTER = "leaderboard-20"
PROJECT = {
    "deployments": [
        {
            "name": "doctors-evaluation",
            "entrypoint": "flows.evaluate_submission.evaluate_submission",
            "triggers": [{"name": "doctors-trigger"}],
        },
        {
            "name": "doctors-reconciler",
            "entrypoint": "flows.reconciler.flow.reconcile",
            "schedules": [{"interval": 300}],
        },
    ]
}


@dataclass
class Server:
    """What the doctor finds on Prefect's server."""

    client: SyncPrefectClient
    project: Path
    evaluation: UUID
    reconciler: UUID
    schedule: UUID
    automation: UUID
    blocks: dict[tuple[type[Block], str], Block]

    def diagnose(self, settings: Settings | None = None) -> dict[str, Finding]:
        installation = Installation(str(PREFECT_API_URL.value()))
        settings = settings or Settings(work_pool=POOL, recovery_pool=RECOVERY)
        context = KnownSecrets(settings, installation, self.client, self.load)
        return {
            finding.subject: finding for finding in run_checks(prefect_checks(context, self.project / "prefect.yaml"))
        }

    def load(self, kind: Any, name: str) -> Any:
        if (kind, name) not in self.blocks:
            raise InvalidConfiguration("The block cannot be used", "", "Run `leaderboard setup`.")
        return self.blocks[kind, name]

    def change(self, kind: type[Block], name: str, **changes: object) -> None:
        self.blocks[kind, name] = self.blocks[kind, name].model_copy(update=changes)


class KnownSecrets(DoctorContext):
    """AWS is another test's matter: the secrets are those that filled the blocks."""

    def secrets(self) -> InstallationSecrets:
        return SECRETS


SECRETS = InstallationSecrets(
    EvalAISecret("https://eval.ai", SecretStr(TOKEN), {"2203": "leaderboard-20-SENSORS"}),
    {
        CLUSTER: ClusterSecret(
            cluster=CLUSTER,
            name="eks",
            endpoint="local",
            simulator_image="sim:1",
            leaderboard_image="agent:1",
            logcopy_image="logcopy:1",
            s3_bucket="bucket",
            table="table",
            log_group="logs",
        )
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("project")
    (project / "prefect.yaml").write_text(yaml.safe_dump(PROJECT))
    return project


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """Made anew for each test, by the client, as `setup` and `prefect deploy` do."""
    with get_client(sync_client=True) as client:
        for pool in (POOL, RECOVERY):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            client.send_worker_heartbeat(pool, "doctors-worker", heartbeat_interval_seconds=60)
        limit = GlobalConcurrencyLimitCreate(name=LIMIT, limit=600, slot_decay_per_second=80)
        client.create_global_concurrency_limit(limit)
        evaluation, reconciler = (deploy(client, spec) for spec in PROJECT["deployments"])
        every_minute = IntervalSchedule(interval=timedelta(minutes=1))
        [schedule] = client.create_deployment_schedules(reconciler, [(every_minute, True)])
        trigger = DeploymentEventTrigger(name="doctors-trigger", expect={"an.event"})
        trigger.set_deployment_id(evaluation)
        automation = client.create_automation(trigger.as_automation())
        CustomWebhookNotificationBlock(name="operators", url="http://127.0.0.1:1/hook").save(
            "doctors-operators", overwrite=True
        )
        notify_operators(client, "custom-webhook/doctors-operators")
        try:
            yield Server(client, folder, evaluation, reconciler, schedule.id, automation, blocks())
        finally:
            clean(client, evaluation, reconciler)


def blocks() -> dict[tuple[type[Block], str], Block]:
    """As the secrets would make them; saved blocks are tests/flows/test_saved_blocks.py's matter."""
    credentials = AwsCredentials(region_name="us-west-2")
    evalai, [cluster] = SECRETS.evalai, SECRETS.clusters.values()
    compute = LeaderboardCluster(
        cluster=cluster.cluster,
        leaderboard_version=LeaderboardVersion.V2,
        compute=LocalCompute(workdir=Path("runs")),
        credentials=credentials,
        bucket=cluster.s3_bucket,
        routes="routes.xml",
        image_registries=["demo"],
    )
    phases = dict(evalai.phases)
    return {
        (AwsCredentials, CREDENTIALS): credentials,
        (EvalAI, EVALAI): EvalAI(
            api_server=evalai.api_server, auth_token=evalai.token, phases=phases, rate_limit=LIMIT
        ),
        (SubmissionQueue, QUEUE): SubmissionQueue(queue_url="q", dead_letter_url="d", credentials=credentials),
        (LedgerTable, CLUSTER): LedgerTable(table=cluster.table, credentials=credentials),
        (ArtifactBucket, CLUSTER): ArtifactBucket(bucket=cluster.s3_bucket, credentials=credentials),
        (LeaderboardCluster, CLUSTER): compute,
    }


def deploy(client: SyncPrefectClient, spec: dict[str, object]) -> UUID:
    flow = client.create_flow_from_name(str(spec["name"]))
    entrypoint = str(spec["entrypoint"])
    return client.create_deployment(flow, str(spec["name"]), entrypoint=entrypoint, work_pool_name=POOL)


def clean(client: SyncPrefectClient, *deployments: UUID) -> None:
    for deployment in deployments:
        client.delete_resource_owned_automations(f"prefect.deployment.{deployment}")
        with suppress(ObjectNotFound):
            client.delete_deployment(deployment)
    for automation in notifications(client):
        client.delete_automation(automation.id)
    for pool in (POOL, RECOVERY):
        with suppress(ObjectNotFound):
            client.delete_work_pool(pool)
    with suppress(ObjectNotFound):
        client.delete_global_concurrency_limit_by_name(LIMIT)


def notifications(client: SyncPrefectClient) -> list[Automation]:
    return [automation for name in AUTOMATIONS for automation in client.read_automations_by_name(name)]


def test_an_installation_that_is_well_is_all_green(server: Server) -> None:
    findings = server.diagnose()

    assert [str(finding) for finding in findings.values() if finding.status is not CheckStatus.OK] == []
    assert findings["Prefect: worker"].detail == "1 online: doctors-worker"
    assert findings["Prefect: recovery worker"].detail == "1 online: doctors-worker"
    assert findings["Prefect: request budget"].detail == "54 requests a minute at most"
    assert findings["Prefect: deployment doctors-reconciler"].detail == f"ready, in {POOL}, by schedule"
    assert "Prefect: block compute-cluster/leaderboard-20" in findings


BROKEN: dict[str, tuple[Callable[[Server], object], dict[str, tuple[str, str]]]] = {
    "paused-pool": (
        lambda server: server.client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True)),
        {"Prefect: work pool": (f"The work pool {POOL} is paused", f"prefect work-pool resume {POOL}")},
    ),
    "budget-gone": (
        lambda server: server.client.delete_global_concurrency_limit_by_name(LIMIT),
        {"Prefect: request budget": (f"There is no rate limit {LIMIT}", "Run `leaderboard setup`.")},
    ),
    "budget-too-high": (
        lambda server: server.client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=2000)),
        {
            "Prefect: request budget": (
                "2000 slots, 80 more a second, 100 for a request",
                "Run `leaderboard setup`.",
            )
        },
    ),
    "no-deployment": (
        lambda server: server.client.delete_deployment(server.reconciler),
        {"Prefect: deployment doctors-reconciler": ("There is no deployment", "Run `prefect deploy --all`.")},
    ),
    "paused-deployment": (
        lambda server: server.client.pause_deployment(server.reconciler),
        {"Prefect: deployment doctors-reconciler": ("is paused", "Resume it in Prefect.")},
    ),
    "no-schedule": (
        lambda server: server.client.update_deployment_schedule(server.reconciler, server.schedule, active=False),
        {"Prefect: deployment doctors-reconciler": ("has 0 active schedules, not 1", "Run `prefect deploy --all`.")},
    ),
    "no-automation": (
        lambda server: server.client.delete_automation(server.automation),
        {"Prefect: automation doctors-trigger": ("There is no automation", "Run `prefect deploy --all`.")},
    ),
    "automation-off": (
        lambda server: server.client.pause_automation(server.automation),
        {"Prefect: automation doctors-trigger": ("is switched off", "Switch it on in Prefect")},
    ),
    "nobody-is-notified": (
        lambda server: server.client.delete_automation(notifications(server.client)[1].id),
        {
            "Prefect: notifications": (
                f"there is no automation {RECONCILER_SILENT}",
                "Run `leaderboard setup --notify BLOCK`.",
            )
        },
    ),
    "notification-off": (
        lambda server: server.client.pause_automation(notifications(server.client)[0].id),
        {"Prefect: notifications": (f"The automation {ATTENTION} is switched off", "Switch it on in Prefect.")},
    ),
    "other-token": (
        lambda server: server.change(EvalAI, EVALAI, auth_token=SecretStr("another-token")),
        {"Prefect: blocks and secrets": ("not what the secrets say: auth_token", "Run `leaderboard setup`.")},
    ),
    "other-table": (
        lambda server: server.change(LedgerTable, CLUSTER, table="another"),
        {"Prefect: blocks and secrets": ("the table of leaderboard-20", "Run `leaderboard setup`.")},
    ),
    "no-block": (
        lambda server: server.blocks.pop((LedgerTable, CLUSTER)),
        {"Prefect: block ledger-table/leaderboard-20": ("cannot be used", "Run `leaderboard setup`.")},
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_the_only_problem_and_says_what_to_do(server: Server, broken: str) -> None:
    how, expected = BROKEN[broken]
    how(server)

    findings = server.diagnose()

    problems = {subject: found for subject, found in findings.items() if found.status is CheckStatus.PROBLEM}
    assert set(problems) == set(expected)
    for subject, (detail, remedy) in expected.items():
        assert detail in problems[subject].detail
        assert remedy in problems[subject].remedy
    assert TOKEN not in "".join(map(str, findings.values()))
    assert "another-token" not in "".join(map(str, findings.values()))


def test_a_pool_that_is_not_there_is_one_problem_and_its_worker_is_not_checked(server: Server) -> None:
    findings = server.diagnose(Settings(work_pool="absent", recovery_pool=RECOVERY))

    assert findings["Prefect: work pool"].status is CheckStatus.PROBLEM
    assert findings["Prefect: work pool"].remedy == "Run `leaderboard setup`."
    assert findings["Prefect: worker"].status is CheckStatus.NOT_CHECKED
    assert (
        "runs in the work pool doctors-pool, not in absent" in findings["Prefect: deployment doctors-reconciler"].detail
    )


def test_a_pool_without_a_worker_says_how_to_start_one(server: Server) -> None:
    server.client.create_work_pool(WorkPoolCreate(name="doctors-other-pool", type="process"))
    try:
        findings = server.diagnose(Settings(work_pool="doctors-other-pool", recovery_pool=RECOVERY))
    finally:
        server.client.delete_work_pool("doctors-other-pool")

    worker = findings["Prefect: worker"]
    assert (worker.status, worker.detail) == (
        CheckStatus.PROBLEM,
        "No worker is online in the work pool doctors-other-pool: there has never been one",
    )
    assert worker.remedy == "Start one: prefect worker start --pool doctors-other-pool"


def test_a_server_that_does_not_answer_is_one_problem(folder: Path) -> None:
    nowhere = "http://127.0.0.1:1/api"
    with temporary_settings({PREFECT_API_URL: nowhere}), get_client(sync_client=True) as client:
        context = KnownSecrets(Settings(), Installation(nowhere), client)
        findings = list(run_checks(prefect_checks(context, folder / "prefect.yaml")))

    [problem] = [finding for finding in findings if finding.status is CheckStatus.PROBLEM]
    assert problem.detail == f"Prefect's server at {nowhere} does not answer: ConnectError"
    assert problem.remedy.startswith("Start it, or correct PREFECT_API_URL")
    others = {finding.detail for finding in findings if finding is not problem}
    assert others == {"it needs Prefect's server, see there"}


def test_without_the_projects_file_nobody_knows_the_deployments(server: Server, tmp_path: Path) -> None:
    found = replace(server, project=tmp_path).diagnose()["Prefect: deployments"]

    assert (found.status, found.remedy) == (
        CheckStatus.NOT_CHECKED,
        "Install leaderboard-flows anew.",
    )
