"""A supervisor against a real S3 server, with the test as its simulator and agent."""

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3

import k8s_jobs
from evaluation import storage_keys
from evaluation.pair.protocol import PairExitCode, PairProgress, parse_progress
from evaluation.pulling.pool import RoutePool
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.records import crashed_record
from evaluation.routes import RouteRun, expand
from evaluation.shards import Budgets, RoutePlan
from evaluation.submission.model import LeaderboardVersion
from shard_pod.pair_directory import PairDirectory
from shard_pod.settings import PairSettings
from shard_pod.shard_routes import ShardRoutes
from shard_pod.storage import ShardStorage
from shard_pod.supervisor import PairSupervisor, Stopped
from tests.waiting import PATIENCE_SECONDS, eventually

BUCKET = "leaderboard-20-results"
ROUTES = (0, 1, 2)
GOOD, CRASHED, SENSORS = "Completed", "Failed - Simulation crashed", "Failed - Agent's sensors were invalid"
SETUP = "Failed - Agent couldn't be set up"


def document(*statuses: str, entry: str = "Started") -> dict[str, Any]:
    records = []
    for index, status in enumerate(statuses):
        record = crashed_record(RouteRun(ROUTES[index]), index, LeaderboardVersion.V2)
        records.append({**record, "status": status})
    return {
        "_checkpoint": {"global_record": {}, "progress": [len(records), len(ROUTES)], "records": records},
        "entry_status": entry,
        "eligible": False,
        "sensors": ["carla_gnss"],
        "values": [],
        "labels": [],
    }


def text(*statuses: str, entry: str = "Started") -> str:
    return render_document(document(*statuses, entry=entry), LeaderboardVersion.V2)


def route_file(routes: Sequence[int]) -> bytes:
    return ("<routes>" + "".join(f'<route id="{route}"/>' for route in routes) + "</routes>").encode()


def statuses_in(content: bytes | None) -> list[str]:
    return [record["status"] for record in json.loads(content or b"{}")["_checkpoint"]["records"]]


class _Answers(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        if self.request.recv(100):
            self.request.sendall(b"\x94\x01\x00\xc0\xc0")


class Port:
    """A simulator's port. It answers CARLA's RPC unless it is frozen: then the kernel still accepts connections."""

    def __init__(self) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Answers)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self._serving = True

    @property
    def number(self) -> int:
        return int(self._server.server_address[1])

    def freeze(self) -> None:
        if self._serving:
            self._serving = False
            self._server.shutdown()
            self._thread.join()

    def close(self) -> None:
        self.freeze()
        self._server.server_close()


class Bench:
    """A pair whose simulator and agent are played by hand."""

    def __init__(self, settings: PairSettings, storage: ShardStorage) -> None:
        self.settings = settings
        self.storage = storage
        self.files = PairDirectory(settings.pair_dir)
        self.stop = threading.Event()
        self.ended: list[PairExitCode | str] = []
        self.thread: threading.Thread | None = None
        self.port = Port()

    def has_claimed(self, routes: Sequence[int], claims: tuple[tuple[int, ...], ...]) -> None:
        """The submission's pool is of these routes, with these claims of its shards, unless there is one already."""
        key, pool = storage_keys.pool_key(self.settings.submission), RoutePool(dict.fromkeys(routes, 1e6), claims)
        if self.storage.read(key) is None:
            self.storage.write(key, pool.render(), "application/json")
        self.files.all_routes.write_bytes(route_file(range(5)))
        ShardRoutes(self.settings, self.files).keep(claims[self.settings.shard])

    def keep(self) -> None:
        """Start a supervisor, as after a crash of the one before."""
        self.stop = threading.Event()
        supervisor = PairSupervisor(self.settings, self.storage, self.stop)
        self.thread = threading.Thread(target=self._run, args=(supervisor,))
        self.thread.start()

    def _run(self, supervisor: PairSupervisor) -> None:
        try:
            self.ended.append(supervisor.run())
        except Stopped:
            self.ended.append("stopped")

    def lose_supervisor(self) -> None:
        self.stop.set()
        if self.thread:
            self.thread.join(PATIENCE_SECONDS)

    def exit_code(self) -> PairExitCode | str:
        assert self.thread
        self.thread.join(PATIENCE_SECONDS)
        assert self.ended, "the supervisor goes on"
        return self.ended[-1]

    def started(self, n: int) -> None:
        eventually((self.files.supervisor / f"start{n}").exists)
        (self.files.simulator / f"ready{n}").write_text(f"{self.port.number}\n")

    def ends(self, n: int, simulator: str, agent: str) -> None:
        (self.files.simulator / f"exit{n}").write_text(f"{simulator}\n")
        (self.files.agent / f"exit{n}").write_text(f"{agent}\n")

    def writes(self, content: str) -> None:
        self.settings.checkpoint.write_text(content)

    def stored(self, key: Callable[[int, int], str]) -> bytes | None:
        return self.storage.read(key(self.settings.submission, self.settings.shard))

    def detail(self) -> str:
        """What it says that it is doing; "" before it says anything."""
        progress = parse_progress(self.stored(storage_keys.progress_key) or b"")
        return progress.detail if progress else ""

    def progress(self) -> PairProgress:
        """What is stored, as soon as anything is: the first copy comes some time after the first start."""
        progress = eventually(lambda: parse_progress(self.stored(storage_keys.progress_key) or b""))
        assert progress
        return progress


Make = Callable[..., Bench]


def benches(tmp_path: Path, aws: dict[str, Any], plan: RoutePlan = RoutePlan.FIXED) -> Iterator[Make]:
    """What makes benches; their supervisors end with it. `claims`: what the shard has pulled."""
    client = boto3.client("s3", **aws)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws["region_name"]})
    file = tmp_path / "routes.xml"
    file.write_bytes(route_file(range(5)))
    every: list[Bench] = []

    def make(
        pod: str = "pod",
        attempt: int = 1,
        routes: str = str(file),
        claims: tuple[int, ...] | None = ROUTES,
        **changes: Any,
    ) -> Bench:
        pair = tmp_path / pod
        for party in ("supervisor", "simulator", "agent"):
            (pair / party).mkdir(parents=True)
        (pair / "agent" / "agent.log").touch()
        values: dict[str, Any] = {
            "submission": 7,
            "attempt": attempt,
            "shard": 0,
            "version": LeaderboardVersion.V2,
            "expected": expand(ROUTES, 1),
            "bucket": BUCKET,
            "routes_location": routes,
            "routes": pair / "agent" / "routes.xml",
            "pair_dir": pair,
            "checkpoint": pair / "agent" / "checkpoint.json",
            "budgets": Budgets(1, 3, 2),
            "hang_seconds": 60.0,
            "copy_seconds": 0.05,
            "poll_seconds": 0.02,
            "simulator_wait_seconds": 60.0,
        }
        pulled = {"pulled": plan is RoutePlan.PULLED, "repetitions": 1}
        made = Bench(PairSettings(**{**values, **pulled, **changes}), ShardStorage(BUCKET, client))
        if made.settings.pulled and claims:
            made.has_claimed(claims, (claims,))
        every.append(made)
        return made

    yield make
    for made in every:
        made.lose_supervisor()
        made.port.close()


def container(module: str, environment: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    """The module as a container runs it, from where our packages are."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        cwd=Path(k8s_jobs.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def contract(settings: PairSettings) -> dict[str, str]:
    """The environment of a container with these settings."""
    return {
        "SUBMISSION": str(settings.submission),
        "ATTEMPT": str(settings.attempt),
        "WORKER_ID": str(settings.shard),
        "LEADERBOARD_VERSION": settings.version.value,
        "ROUTES_SUBSET": "0-2",
        "REPETITIONS": "1",
        "BUCKET": settings.bucket,
        "LOG_GROUP": settings.log_group,
        "ROUTES_LOCATION": settings.routes_location,
        "ROUTES": str(settings.routes),
        "PAIR_DIR": str(settings.pair_dir),
        "CHECKPOINT_ENDPOINT": str(settings.checkpoint),
        "AGENT_RESTARTS": "1",
        "INFRASTRUCTURE_RESTARTS": "1",
        "SIMULATOR_CRASHES_PER_ROUTE": "1",
        "HANG_SECONDS": "60",
        "COPY_SECONDS": "0.5",
        "POLL_SECONDS": "0.05",
        "SIMULATOR_WAIT_SECONDS": "60",
    }


def credentials(aws: dict[str, Any]) -> dict[str, str]:
    """boto3's variables."""
    return {
        "AWS_DEFAULT_REGION": aws["region_name"],
        "AWS_ACCESS_KEY_ID": aws["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": aws["aws_secret_access_key"],
        "AWS_ENDPOINT_URL": aws["endpoint_url"],
    }
