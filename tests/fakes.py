"""Fakes that implement the ports in memory, for tests of the flow. Assertions read their state."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from evaluation import storage_keys
from evaluation.errors import Failure, Fault, InvalidConfiguration, RequestRefused
from evaluation.pair.observations import Observations, SeenStart
from evaluation.ports import Made
from evaluation.shards import ShardJob, ShardState, ShardStatus, ShardStatuses
from evaluation.submission.message import Delivery
from evaluation.submission.model import Phase, parse_phase
from tests.fake_evalai import FakeEvalAI as FakeEvalAI
from tests.fake_ledger import FakeLedger as FakeLedger


@dataclass
class FakePhases:
    codenames: dict[int, str] = field(default_factory=lambda: {1: "leaderboard-20-SENSORS"})

    challenge_pk: int | None = 1

    def phase(self, phase_pk: int) -> Phase:
        if phase_pk not in self.codenames:
            raise InvalidConfiguration(f"Phase {phase_pk} is not in the secret evalai-tracks")
        return parse_phase(self.codenames[phase_pk])

    @property
    def clusters(self) -> tuple[str, ...]:
        return tuple(sorted({parse_phase(codename).cluster for codename in self.codenames.values()}))


@dataclass
class FakeStore:
    objects: dict[str, bytes] = field(default_factory=dict)

    def write(self, key: str, body: bytes, content_type: str) -> None:
        self.objects[key] = body

    def read(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def sizes(self, prefix: str) -> Mapping[str, int]:
        return {key: len(body) for key, body in self.objects.items() if key.startswith(prefix)}

    def read_from(self, key: str, start: int) -> bytes:
        return self.objects.get(key, b"")[start:]

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        body = self.objects.get(key)
        return None if body is None else (body, sha256(body).hexdigest())

    def write_version(self, key: str, body: bytes, replaced: str | None) -> bool:
        found = self.read_version(key)
        if (found[1] if found else None) != replaced:
            return False
        self.objects[key] = body
        return True

    def location(self, key: str) -> str:
        return f"s3://bucket/{key}"


@dataclass
class FakeDocument:
    """A shared document in memory; several lists may share it, as processes do."""

    made: Made = field(default_factory=Made)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> Made:
        return self.made

    def begin(self, after: int) -> int | None:
        with self._lock:
            if self.made.begun != after:
                return None
            self.made = replace(self.made, begun=after + 1)
            return after + 1

    def publish(self, number: int, body: bytes) -> None:
        if len(body) > 380_000:
            raise RequestRefused("A shared document is too large")
        with self._lock:
            if number > self.made.done:
                self.made = replace(self.made, done=number, body=body)


@dataclass
class FakeQueue:
    deleted: list[Delivery] = field(default_factory=list)
    dead: list[tuple[str, str]] = field(default_factory=list)
    hidden_seconds: list[int] = field(default_factory=list)

    def acknowledge(self, delivery: Delivery) -> None:
        self.deleted.append(delivery)

    def extend(self, delivery: Delivery, seconds: int) -> None:
        self.hidden_seconds.append(seconds)

    def reject(self, delivery: Delivery, body: str, reason: str) -> None:
        self.dead.append((body, reason))


@dataclass
class FakeBackend:
    """Jobs that end as `endings` says (finished where it says nothing), leaving `checkpoint(job)` in the store."""

    store: FakeStore
    checkpoint: Callable[[ShardJob], bytes | None]
    observed: Callable[[ShardJob, bytes], Observations | None] = lambda job, body: observations_of(job, body)
    endings: dict[int, Failure] = field(default_factory=dict)
    runs_for_ever: bool = False
    jobs: dict[str, ShardJob] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    removed: list[tuple[int, int]] = field(default_factory=list)

    async def ensure(self, jobs: Sequence[ShardJob]) -> None:
        for job in jobs:
            if job.name not in self.jobs:
                self.created.append(job.name)
                self.jobs[job.name] = job

    async def watch(self, jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        yield {
            job.shard.index: ShardStatus(job.shard.index, ShardState.STARTING, backend_id=f"fake {job.name}")
            for job in jobs
        }
        while self.runs_for_ever:
            await asyncio.sleep(0.02)
            yield {job.shard.index: ShardStatus(job.shard.index, ShardState.DRIVING) for job in jobs}
        for job in jobs:
            body = self.checkpoint(job)
            if body is not None:
                self.put(job, body)
        yield {job.shard.index: self._ended(job.shard.index) for job in jobs}

    def put(self, job: ShardJob, body: bytes) -> None:
        """What a shard's supervisor copies to S3."""
        pk, shard = job.submission, job.shard.index
        seen = self.observed(job, body)
        if seen is not None:
            self.store.write(storage_keys.observations_key(pk, shard), seen.render(), "application/json")
        self.store.write(storage_keys.checkpoint_key(pk, shard), body, "application/json")

    async def remove(self, submission: int, attempt: int) -> None:
        self.removed.append((submission, attempt))
        self.jobs = {name: job for name, job in self.jobs.items() if job.submission != submission}

    async def running(self) -> frozenset[tuple[int, int]]:
        return frozenset((job.submission, job.attempt) for job in self.jobs.values())

    async def logs(self, job: ShardJob, lines: int) -> Mapping[str, str]:
        return {"agent": f"agent of shard {job.shard.index}: Traceback", "simulator": "not for the team"}

    def _ended(self, index: int) -> ShardStatus:
        failure = self.endings.get(index)
        state = ShardState.FAILED if failure else ShardState.FINISHED
        return ShardStatus(index, state, failure=failure)


_BEGIN = datetime(2026, 11, 28, 12, tzinfo=UTC)


def observations_of(job: ShardJob, body: bytes) -> Observations:
    """What a supervisor sees of a shard that is driven to this checkpoint in one start, a record each ten minutes."""
    seen = Observations().with_new_start(SeenStart(job.attempt, 1, _BEGIN, _BEGIN), job.expected)
    records = json.loads(body)["_checkpoint"]["records"]
    for count in range(1, len(records) + 1):
        seen = seen.with_records(job.expected, records[:count], _BEGIN + count * timedelta(minutes=10))
    return seen


AGENT_CRASHED = Failure("The agent crashed", "it ended with exit code 139", "Run it on the public routes.", Fault.TEAM)


def checkpoint_of(job: ShardJob, done: int | None = None) -> bytes:
    """A 2.x checkpoint with the first `done` of the job's routes (all of them by default), each with score 50."""
    runs = job.expected if done is None else job.expected[:done]
    records = [_record(index, f"RouteScenario_{run.route}_rep{run.repetition}") for index, run in enumerate(runs)]
    document = {
        "_checkpoint": {"global_record": {}, "progress": [len(runs), len(job.expected)], "records": records},
        "entry_status": "Started",
        "eligible": False,
        "sensors": ["carla_camera"],
        "values": [],
        "labels": [],
    }
    return json.dumps(document, indent=4).encode()


_INFRACTIONS = (
    "collisions_layout", "collisions_pedestrian", "collisions_vehicle", "red_light", "stop_infraction",
    "outside_route_lanes", "min_speed_infractions", "yield_emergency_vehicle_infractions", "scenario_timeouts",
    "route_dev", "vehicle_blocked", "route_timeout",
)  # fmt: skip


def _record(index: int, route_id: str) -> dict[str, object]:
    return {
        "index": index,
        "route_id": route_id,
        "status": "Completed",
        "num_infractions": 1,
        "infractions": {name: [] for name in _INFRACTIONS} | {"collisions_pedestrian": ["Agent collided with 7"]},
        "scores": {"score_route": 100.0, "score_penalty": 0.5, "score_composed": 50.0},
        "meta": {"route_length": 1000.0, "duration_game": 100.0, "duration_system": 200.0},
    }
