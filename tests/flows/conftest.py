"""The flow on a real, throw-away Prefect server, with fakes behind the ports."""

import asyncio
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prefect.client.schemas.objects import State
from prefect.context import _temporary_global_settings_context, get_settings_context
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings
from prefect_aws import AwsCredentials

from blocks.leaderboard_cluster import LeaderboardCluster, LocalCompute
from embedded.prefect_server import empty_database, one_connection
from evaluation.shards import ShardJob
from evaluation.submission.message import Delivery, SubmissionMessage
from evaluation.submission.model import LeaderboardVersion, SubmissionStatus
from flows.evaluate_submission import evaluate_submission
from flows.services import Cluster, Services
from tests.fakes import FakeBackend, FakeEvalAI, FakeLedger, FakePhases, FakeQueue, FakeStore, checkpoint_of
from tests.waiting import eventually_in_loop


@pytest.fixture(scope="package", autouse=True)
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's server on a database that is migrated already and opened once, as in the embedded stack.

    prefect_test_harness migrates a new one first, and where several runs write at the same time, "database is locked".
    """
    database = tmp_path_factory.mktemp("prefect") / "prefect.db"
    shutil.copyfile(empty_database(), database)
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: one_connection(database)}):
        server = SubprocessASGIServer()
        server.start(timeout=200)
        try:
            with (
                temporary_settings({PREFECT_API_URL: server.api_url}),
                _temporary_global_settings_context(get_settings_context()),  # for threads without a context
            ):
                yield
        finally:
            server.stop()


@dataclass
class World:
    """Everything outside the flow. `cluster_names` are the clusters that have blocks."""

    settings: LeaderboardCluster
    evalai: FakeEvalAI = field(default_factory=FakeEvalAI)
    phases: FakePhases = field(default_factory=FakePhases)
    queue: FakeQueue = field(default_factory=FakeQueue)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    store: FakeStore = field(default_factory=FakeStore)
    backend: FakeBackend = field(init=False)
    deliveries: int = 0

    def __post_init__(self) -> None:
        self.backend = FakeBackend(self.store, checkpoint_of)

    async def load_services(self) -> Services:
        return Services(self.evalai, self.phases, self.queue)

    async def load_cluster(self, name: str) -> Cluster:
        return Cluster(self.settings, self.backend, self.ledger, self.store)

    def submitted(self, pk: int, image: str | None = "demo/agent:steady") -> tuple[SubmissionMessage, Delivery]:
        """A new submission at EvalAI and its message, as the bridge would hand it over."""
        self.evalai.statuses.setdefault(pk, SubmissionStatus.SUBMITTED)
        self.deliveries += 1
        message = SubmissionMessage(challenge_pk=1, phase_pk=1, submission_pk=pk, submitted_image_uri=image)
        delivery = Delivery(queue_url="q", receipt_handle=f"receipt-{self.deliveries}", message_id=f"m-{pk}")
        return message, delivery

    def cancelled_while_driving(self, message: SubmissionMessage, delivery: Delivery) -> State[None]:
        """The state of a run whose submission the team cancels once its Jobs are there."""
        self.backend.runs_for_ever = True

        async def cancel_soon() -> State[None]:
            task = asyncio.create_task(evaluate_submission(message, delivery, return_state=True))
            await eventually_in_loop(lambda: self.backend.created)
            self.evalai.statuses[message.submission_pk] = SubmissionStatus.CANCELLED
            return await task

        return asyncio.run(cancel_soon())

    def only(self, done: dict[int, int]) -> None:
        """Let each shard named drive only its first so many routes."""

        def checkpoint(job: ShardJob) -> bytes | None:
            count = done.get(job.shard.index)
            return None if count == 0 else checkpoint_of(job, count)

        self.backend.checkpoint = checkpoint

    def merged(self, pk: int) -> dict[str, object]:
        return dict(json.loads(self.store.objects[f"{pk}/merged.json"]))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    routes = tmp_path / "routes.xml"
    routes.write_text("<routes>" + "".join(f'<route id="{i}" town="Town12"/>' for i in range(20)) + "</routes>")
    settings = LeaderboardCluster(
        cluster="leaderboard-20",
        leaderboard_version=LeaderboardVersion.V2,
        compute=LocalCompute(workdir=tmp_path / "runs"),
        credentials=AwsCredentials(region_name="us-west-2"),
        bucket="leaderboard-20",
        log_group="leaderboard-20",
        routes=str(routes),
        image_registries=["demo"],
        cancel_check_seconds=0.05,
        partial_result_seconds=0.05,
    )
    the_world = World(settings)
    monkeypatch.setattr("flows.evaluate_submission.load_services", the_world.load_services)
    monkeypatch.setattr("flows.reconciler.flow.load_services", the_world.load_services)
    monkeypatch.setattr("flows.intake.load_cluster", the_world.load_cluster)
    monkeypatch.setattr("flows.reconciler.snapshot.load_cluster", the_world.load_cluster)
    return the_world


@pytest.fixture
def run_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What flow and task runs write; Prefect's loggers do not hand it on to the root logger."""
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    yield caplog
    for logger in loggers:
        logger.removeHandler(caplog.handler)
