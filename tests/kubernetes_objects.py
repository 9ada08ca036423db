"""Jobs, pods and shards as JSON and values, for the tests of k8s_jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes_asyncio.client import ApiClient, Configuration

from evaluation.pair.shard_limits import ShardTimeouts
from evaluation.shards import Budgets, Shard, ShardJob
from evaluation.submission.model import LeaderboardVersion, parse_phase
from k8s_jobs.api import RequestLimits
from k8s_jobs.backend import BackendLimits
from k8s_jobs.cluster_spec import ClusterSpec, GpuJoin
from k8s_jobs.reflector import ReflectorLimits
from k8s_jobs.removal import RemovalLimits

Json = dict[str, Any]
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    """So many seconds before NOW."""
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def shard_job(submission: int = 7, attempt: int = 1, index: int = 0, **changes: Any) -> ShardJob:
    values: dict[str, Any] = {
        "submission": submission,
        "attempt": attempt,
        "shard": Shard(index, 4, tuple(range(5 * index, 5 * index + 5))),
        "phase": parse_phase("leaderboard-20-SENSORS"),
        "version": LeaderboardVersion.V2,
        "repetitions": 1,
        "image": "demo/agent:steady",
        "team_name": "Équipe 🚗",
        "bucket": "leaderboard-20",
        "budgets": Budgets(),
        "hang_seconds": 800.0,
        "deadline_seconds": 3600.0,
    }
    return ShardJob(**(values | changes))


def shard_jobs(submission: int = 7, attempt: int = 1) -> list[ShardJob]:
    return [shard_job(submission, attempt, index) for index in range(4)]


def cluster_spec(namespace: str = "leaderboard", **changes: Any) -> ClusterSpec:
    values: dict[str, Any] = {
        "namespace": namespace,
        "simulator_image": "demo/simulator",
        "leaderboard_image": "demo/leaderboard",
        "logcopy_image": "demo/logcopy",
        "routes_location": "s3://leaderboard-20/routes.xml",
        "region": "us-west-2",
        "storage_secret": "storage",
        "gpu_join": GpuJoin.NONE,
    }
    return ClusterSpec(**(values | changes))


def quick_limits(**changes: Any) -> BackendLimits:
    """The production's limits. Short is only what tests wait for: what must not pass on a busy machine is long."""
    values: dict[str, Any] = {
        "snapshot_seconds": 0.3,
        "warning_seconds": 0.2,
        "namesake_seconds": 60.0,
        "timeouts": ShardTimeouts(),
        "removal": RemovalLimits(60.0, 1.0, 0.02, 0.2),
        "requests": RequestLimits(answer_seconds=30.0, silence_seconds=0.5, attempts=4, retry_wait_seconds=0.01),
        "reflector": ReflectorLimits(first_pause_seconds=0.02, longest_pause_seconds=0.2, refusal_seconds=0.5),
        "first_list_seconds": 60.0,
    }
    return BackendLimits(**(values | changes))


@dataclass(frozen=True)
class PlainAccess:
    """A server without encryption; the tokens are handed out in turn, the last one for ever."""

    url: str
    tokens: list[str] = field(default_factory=list, compare=False)
    token_seconds: float = 600.0

    async def client(self) -> ApiClient:
        return ApiClient(Configuration(host=self.url))

    async def token(self) -> str | None:
        if not self.tokens:
            return None
        return f"Bearer {self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]}"


def job_object(
    *conditions: Json, name: str = "submission-7-attempt-1-shard-0", spec: Json | None = None, **status: Any
) -> Json:
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": at(600)},
        "spec": {"backoffLimit": 8, "activeDeadlineSeconds": 172800, **(spec or {})},
        "status": {"startTime": at(600), "conditions": list(conditions), **status},
    }


def condition(kind: str, holds: bool = True, reason: str = "", message: str = "", age: float = 60) -> Json:
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "lastTransitionTime": at(age),
    }


def waiting(reason: str = "PodInitializing", message: str = "") -> Json:
    return {"waiting": {"reason": reason, "message": message}}


def running(age: float = 300) -> Json:
    return {"running": {"startedAt": at(age)}}


def ended(code: int, reason: str = "Error", message: str = "", age: float = 5) -> Json:
    times = {"startedAt": at(age + 100), "finishedAt": at(age)}
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, **times}}


DONE = ended(0, "Completed", age=400)


def pod_object(
    states: Mapping[str, Json] | None = None,
    *,
    name: str = "pod-a",
    job: str = "submission-7-attempt-1-shard-0",
    job_uid: str = "",
    phase: str = "Running",
    node: str = "node-1",
    age: float = 500,
    conditions: Sequence[Json] = (),
    deleted: bool = False,
    **status: Any,
) -> Json:
    """`states` by container; init containers by name, as in the template."""
    init = ("evaluator", "private-contents", "supervisor")
    statuses = [{"name": key, "state": state} for key, state in (states or {}).items()]
    metadata: Json = {
        "name": name,
        "creationTimestamp": at(age),
        "labels": {"batch.kubernetes.io/job-name": job},
        "ownerReferences": [{"kind": "Job", "name": job, "uid": job_uid or f"uid-of-{job}"}],
    }
    if deleted:
        metadata["deletionTimestamp"] = at(0)
    return {
        "metadata": metadata,
        "spec": {
            **({"nodeName": node} if node else {}),
            "initContainers": [{"name": each} for each in init],
            "containers": [{"name": "simulator"}, {"name": "agent"}],
        },
        "status": {
            "phase": phase,
            "conditions": [condition("PodScheduled", bool(node), age=age), *conditions],
            "initContainerStatuses": [each for each in statuses if each["name"] in init],
            "containerStatuses": [each for each in statuses if each["name"] not in init],
            **status,
        },
    }
