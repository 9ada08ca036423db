"""One simulated installation: everything that production has, of one seed."""

import gc
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling
from prefect_aws import AwsCredentials
from pydantic import SecretStr

import flows.evalai_list
from blocks import document_names
from blocks.artifact_bucket import ArtifactBucket
from blocks.evalai import EvalAI
from blocks.kubernetes_compute import InClusterAccess, KubernetesCompute
from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue
from embedded.challenge import CHALLENGE, PHASES
from evaluation.shards import RoutePlan
from evaluation.submission.model import LeaderboardVersion
from flows.evaluate_submission import evaluate_submission
from flows.reconciler.flow import reconcile
from k8s_jobs.api import Json
from services.bridge import BridgeSettings, run_bridge
from tests.simulation.aws import S3, SQS, DynamoDB, Queue, Tables, put_message
from tests.simulation.calls import Calls
from tests.simulation.chance import Chance, Fault
from tests.simulation.cluster import Cluster
from tests.simulation.evalai_server import HOST, TOKENS, EvalAIServer
from tests.simulation.hub import Hub
from tests.simulation.kubernetes_server import KubernetesServer, simulated_api
from tests.simulation.machine import DRIFT, JUMPS, Machine
from tests.simulation.pair import Pair, settings_of
from tests.simulation.patches import patched, task_engine
from tests.simulation.prefect_client import SimulatedEvents, SimulatedPrefectClient, SimulatedSyncClient
from tests.simulation.prefect_engine import Worker, run_task
from tests.simulation.prefect_server import Deployment, Limit, PrefectServer
from tests.simulation.threads import SimulatedEvent

QUEUE, DEAD_LETTERS = "https://sqs.example/1/queue", "https://sqs.example/1/dead-letters"
TABLE, BUCKET, CLUSTER = "leaderboard-20", "leaderboard-20", "leaderboard-20"
ROUTES = 8
RUNS_A_PAGE = 5  # of flow runs; 200 in the real one
MEMORY = Path("/dev/shm")  # noqa: S108 - pairs write much, and none of it has to last
LEASE_SECONDS = 180
REQUESTS_PER_MINUTE = (60, 60, 20)  # EvalAI's limit, of some seeds so low that few submissions reach it


@dataclass
class History:
    """What happened, as lines; `digest` is the same exactly where all lines are."""

    hub: Hub
    lines: list[str] = field(default_factory=list)
    _hash: Any = field(default_factory=lambda: blake2b(digest_size=8))

    def note(self, text: str) -> None:
        line = f"{self.hub.now:12.3f} {text}"
        self.lines.append(line)
        self._hash.update(line.encode())

    @property
    def digest(self) -> str:
        return str(self._hash.hexdigest())


@dataclass
class World:
    """Made by `running_world`; `hub.run` lets it go on."""

    seed: int
    chance: Chance
    folder: Path
    hub: Hub = field(default_factory=Hub)
    process_per_run: bool = False
    machines: dict[str, Machine] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)
    worker_runs: dict[str, list[FlowRun]] = field(default_factory=dict)
    recorded: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    executing: set[str] = field(default_factory=set)  # ids of flow runs whose code runs somewhere
    lease_seconds: float = LEASE_SECONDS
    _ever: list[Machine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = History(self.hub)
        self.calls = Calls(self.hub, self.chance, self.history)
        self.tables = Tables({TABLE: ("team-id", "submission-id")})
        self.queues = {QUEUE: Queue(QUEUE), DEAD_LETTERS: Queue(DEAD_LETTERS)}
        requests = Random(f"{self.seed} evalai").choice(REQUESTS_PER_MINUTE)
        self.evalai = EvalAIServer(self.calls, lambda body: put_message(self.calls, self.queues[QUEUE], body), requests)
        self.kubernetes = KubernetesServer(self.calls)
        self.cluster = Cluster(self.calls, self.kubernetes, self._start_pair)
        self.prefect = PrefectServer(self.hub, self.chance)
        self.prefect.deployments = [
            Deployment(
                "evaluate-submission/evaluate-submission",
                evaluate_submission,
                "leaderboard",
                "leaderboard.submission.received",
            ),
            Deployment("evaluate-submission/takeover", evaluate_submission, "leaderboard-recovery"),
            Deployment("reconcile/reconcile", reconcile, "leaderboard-recovery", every_seconds=300.0),
        ]
        self.prefect.limits["evalai"] = Limit(700, (requests - 9) * 100 / 60)
        self.prefect_client = SimulatedPrefectClient(self.calls, self.prefect)
        self._blocks = self._make_blocks()

    def _make_blocks(self) -> dict[tuple[str, str], Any]:
        credentials = AwsCredentials(region_name="us-west-2")
        routes = self.folder / "routes.xml"
        routes.write_text("<routes>" + "".join(f'<route id="{i}" town="Town12"/>' for i in range(ROUTES)) + "</routes>")
        compute = KubernetesCompute(
            access=InClusterAccess(),
            simulator_image="demo/simulator",
            leaderboard_image="demo/leaderboard",
            logcopy_image="demo/logcopy",
            storage_secret="storage",
            poll_seconds=10,
        )
        cluster = LeaderboardCluster(
            cluster=CLUSTER,
            leaderboard_version=LeaderboardVersion.V2,
            compute=compute,
            credentials=credentials,
            bucket=BUCKET,
            routes=str(routes),
            route_plan=RoutePlan.FIXED if self.seed % 2 else RoutePlan.PULLED,
            image_registries=["demo"],
            shard_deadline_seconds=6 * 3600,
        )
        phases = {str(PHASES["leaderboard-20-SENSORS"]): "leaderboard-20-SENSORS"}
        evalai = EvalAI(
            api_server=f"https://{HOST}",
            auth_token=SecretStr(TOKENS.installation),
            phases=phases,
            challenge_pk=CHALLENGE,
        )
        queue = SubmissionQueue(queue_url=QUEUE, dead_letter_url=DEAD_LETTERS, credentials=credentials)
        return {
            ("EvalAI", document_names.EVALAI): evalai,
            ("SubmissionQueue", document_names.QUEUE): queue,
            ("LeaderboardCluster", CLUSTER): cluster,
            ("LedgerTable", CLUSTER): LedgerTable(table=TABLE, credentials=credentials, lease_seconds=LEASE_SECONDS),
            ("ArtifactBucket", CLUSTER): ArtifactBucket(bucket=BUCKET, credentials=credentials),
        }

    # What stands for vendors' clients.

    async def _load_block(self, kind: type, name: str) -> Any:
        import httpx

        from evaluation.errors import ServiceUnavailable

        try:
            return await self.prefect_client.ask("read_block", lambda: self._blocks[kind.__name__, name])
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"Loading the block {name} failed", type(error).__name__) from error

    def _aws_client(self, credentials: Any, service: str) -> Any:
        match service:
            case "dynamodb":
                return DynamoDB(self.calls, self.tables)
            case "sqs":
                return SQS(self.calls, self.queues)
            case _:
                return S3(self.calls, self.objects)

    def _own_client(self, credentials: Any, service: str, timeout_seconds: float) -> Any:
        return DynamoDB(self.calls, self.tables, attempts=2, timeout=timeout_seconds / 2)

    def replaced(self) -> dict[str, Any]:
        """What patches.patched puts in the place of vendors' clients."""

        async def artifact(*args: Any, key: str, description: str = "", **given: Any) -> Any:
            return await self.prefect_client.keep_artifact(key, given.get("table") or given.get("markdown") or args)

        async def update(artifact_id: Any, **_: Any) -> None:
            await self.prefect_client.update_artifact(artifact_id, None)

        async def last(key: str) -> Any:
            import json

            found = await self.prefect_client.artifact(key)
            return None if found is None else SimpleNamespace(data=json.dumps(found))

        return {
            "prefect_api.runs.PAGE": RUNS_A_PAGE,
            "prefect_api.blocks.load_block": self._load_block,
            "blocks.aws_client.aws_client": self._aws_client,
            "blocks.aws_client.own_client": self._own_client,
            "evalai_api.transport.exchange": self.evalai.exchange,
            "k8s_jobs.api.KubernetesApi": simulated_api(self.kubernetes),
            "shard_pod.simulator_probe.simulator_answers": lambda port, stop, seconds: True,
            "prefect_api.request_budget._client": lambda: SimulatedSyncClient(self.calls, self.prefect),
            "prefect.get_client": lambda *_, **__: self.prefect_client,
            "prefect_api.events.prefect_events": lambda *_, **__: SimulatedEvents(self.calls, self.prefect),
            "prefect.artifacts.acreate_markdown_artifact": artifact,
            "prefect.artifacts.acreate_progress_artifact": artifact,
            "prefect.artifacts.acreate_table_artifact": artifact,
            "prefect.artifacts.aupdate_progress_artifact": update,
            "prefect.artifacts.Artifact": SimpleNamespace(aget=last),
        }

    # Machines.

    def machine(self, name: str, of_a_pod: bool = False) -> Machine:
        """One whose clocks may be wrong, but a pod's: what a supervisor notes of its routes would not fit."""
        machine = Machine(self.hub, name)
        chance, now = self.chance, self.hub.now
        if not of_a_pod and chance.strikes("clock is off", name, now):
            machine.ahead = chance.random.choice(JUMPS)
        if not of_a_pod and chance.strikes("clock drifts", name, now):
            machine.rate += chance.random.uniform(-DRIFT, DRIFT)
        self.machines[name] = machine
        self._ever.append(machine)
        return machine

    def run(self, run_id: str) -> FlowRun | None:
        return self.prefect.runs.get(UUID(run_id)) if run_id else None

    def running_runs(self) -> list[FlowRun]:
        """Evaluations that Prefect shows as running."""
        return [
            run
            for run in self.prefect.open_runs
            if run.state_type is StateType.RUNNING and self.prefect.of_run(run).flow is evaluate_submission
        ]

    def stop_run(self, run: FlowRun) -> None:
        """What Prefect's button does: the worker is to end the run."""
        self.history.note(f"an operator cancels run {run.name} ({run.id})")
        self.prefect.set_state(run.id, Cancelling(), force=True)

    def supervised(self, name: str, begin: Callable[[Machine], None]) -> None:
        """A machine that is started again after each death, as Kubernetes or ECS do."""
        machine = self.machine(name)
        machine.on_death.append(lambda: self.history.note(f"{name} dies"))
        pause = self.chance.random.choice((10.0, 60.0, 300.0))
        machine.on_death.append(lambda: self.hub.after(pause, self.supervised, name, begin))
        begin(machine)

    def begin(self) -> None:
        """Bridge, workers and schedules."""
        self.supervised("bridge", self._bridge)
        for name, pool in (
            ("worker-1", "leaderboard"),
            ("worker-2", "leaderboard"),
            ("recovery", "leaderboard-recovery"),
        ):
            self.supervised(name, lambda machine, pool=pool: self._worker(machine, pool))  # type: ignore[misc]
        self.prefect.begin()

    def _bridge(self, machine: Machine) -> None:
        stop = SimulatedEvent(self.hub)
        settings = BridgeSettings(challenge_pk=CHALLENGE)
        publisher = SimulatedEvents(self.calls, self.prefect)
        queue = self._blocks["SubmissionQueue", document_names.QUEUE]
        self.hub.thread(machine, lambda: run_bridge(queue, publisher, stop, settings))  # type: ignore[arg-type]

    def _worker(self, machine: Machine, pool: str) -> None:
        new_process = self._process if self.process_per_run else None
        worker = Worker(
            machine, pool, self.prefect_client, self.prefect, new_process, self.worker_runs, executing=self.executing
        )
        machine.start(worker.work())

    def _process(self, run: FlowRun) -> Machine:
        subject = (run.parameters.get("message") or {}).get("submission_pk", "reconcile")
        self.begun[f"run of {subject}"] += 1
        return self.machine(f"run {self.begun[f'run of {subject}']} of {subject}")

    def _start_pair(self, pod: Json, ended: Callable[[int], None]) -> Callable[[bool], None]:
        owner = pod["metadata"]["ownerReferences"][0]["name"]
        job = self.kubernetes.objects["jobs"][owner]
        container = next(
            each for each in job["spec"]["template"]["spec"]["initContainers"] if each["name"] == "private-contents"
        )
        image = next(each["image"] for each in job["spec"]["template"]["spec"]["containers"] if each["name"] == "agent")
        self.begun[owner] += 1
        machine = self.machine(f"{owner} pod {self.begun[owner]}", of_a_pod=True)
        settings = settings_of(container, self.folder / f"{owner}-{self.begun[owner]}")

        def recorded(submission: int, attempt: int, route: int) -> None:
            self.recorded[submission, attempt, route] += 1

        s3 = S3(self.calls, self.objects)
        pair = Pair(self.calls, machine, settings, s3, image, ended, recorded)
        machine.on_death.append(lambda: None if pair.over else self.hub.after(1.0, ended, 137))
        pair.begin()
        return pair.end

    async def run_task(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await run_task(task, args, kwargs, self.chance.random.random)


@contextmanager
def running_world(seed: int, only: frozenset[Fault] | None = None) -> Iterator[World]:
    """The world of the seed, patched in for as long as the block lasts. `only` is for chance.Chance."""
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None))
    world = World(seed, Chance(seed, only), folder)
    try:
        with patched(world.hub, seed, world.replaced()), task_engine(world.run_task):
            flows.evalai_list._lists.clear()
            world.begin()
            gc.disable()  # what is left of a dead machine may not run, at whatever time that would be
            gc.freeze()  # modules, and what earlier worlds have left: `_end` has to look at this world only
            yield world
    finally:
        _end(world)
        shutil.rmtree(folder, ignore_errors=True)


def _end(world: World) -> None:
    """Let go of everything, whose `finally` blocks find a world that has ended."""
    world.hub.closed = True
    told = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        world.hub.forget()
        for machine in world._ever:
            machine.forget()
        gc.collect()
    finally:
        sys.unraisablehook = told
        gc.enable()
