"""Shards that Kueue lets start, on a Kubernetes API over real HTTP with what Kueue's documented API answers."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from evaluation.errors import InvalidConfiguration
from evaluation.queue_place import QueuePlace
from evaluation.shards import ShardState, ShardStatus
from k8s_jobs import kueue as kueue_module
from k8s_jobs.api import KubernetesApi
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.cluster_spec import ClusterSpec
from k8s_jobs.kueue import QUEUE_LABEL, Kueue
from k8s_jobs.manifest import job_manifest
from k8s_jobs.planned_jobs import as_planned, plan_job
from k8s_jobs.preflight import check_access
from tests.contract.kubernetes_server import KubernetesServer, status
from tests.kubernetes_objects import PlainAccess, cluster_spec, condition, quick_limits, shard_job

pytestmark = pytest.mark.anyio
JOB = shard_job()
TEAMS = Kueue(cluster_queue="leaderboard")
QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor gpu, 1 more needed"
)


def spec_with(kueue: Kueue) -> ClusterSpec:
    return replace(cluster_spec(), kueue=kueue)


def backend_on(server: KubernetesServer, kueue: Kueue = TEAMS) -> KubernetesJobBackend:
    return KubernetesJobBackend(PlainAccess(server.url, []), spec_with(kueue), quick_limits())


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch, server: KubernetesServer) -> None:
    monkeypatch.setattr(kueue_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(kueue_module, "REASON_SECONDS", 0.05)
    server.has_kueue = True


def kueue_sees(server: KubernetesServer, in_cluster: int = 0, in_local: int = 0) -> None:
    """Kueue has made a Workload of the Job, which waits; others of the ClusterQueue are admitted."""
    job, queue = server.objects["jobs"][JOB.name], TEAMS.queue_of(JOB.team_name)
    owner = [{"kind": "Job", "name": JOB.name, "uid": job["metadata"]["uid"]}]
    name = f"job-{JOB.name}-a1b2c"
    labels = {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}
    conditions = [condition("QuotaReserved", False, reason="WaitingForQuota", message=QUOTA)]
    metadata = {"name": name, "labels": labels, "ownerReferences": owner}
    server.put("workloads", {"metadata": metadata, "status": {"conditions": conditions}})
    server.pending[queue] = [
        {
            "metadata": {"name": name, "ownerReferences": owner},
            "priority": 0,
            "localQueueName": queue,
            "positionInClusterQueue": in_cluster,
            "positionInLocalQueue": in_local,
        }
    ]
    for each, pending, admitted in ((queue, 1, 0), ("team-other", 11, 8), ("of-another-cluster-queue", 50, 50)):
        cluster_queue = "another" if each.startswith("of-another") else "leaderboard"
        queue_status = {"pendingWorkloads": pending, "admittedWorkloads": admitted, "conditions": []}
        metadata = {"name": each}
        server.put(
            "localqueues", {"metadata": metadata, "spec": {"clusterQueue": cluster_queue}, "status": queue_status}
        )


async def status_of(backend: KubernetesJobBackend) -> ShardStatus:
    async with asyncio.timeout(20), aclosing(backend.watch([JOB])) as snapshots:
        async for statuses in snapshots:
            return statuses[0]
    raise AssertionError("watch said nothing")


async def test_each_team_has_a_queue_and_its_jobs_wait_there_suspended(server: KubernetesServer) -> None:
    await backend_on(server).ensure([JOB, replace(JOB, submission=8, team_name="Others")])
    await backend_on(server).ensure([JOB])

    queues = server.objects["localqueues"]
    assert {queue["spec"]["clusterQueue"] for queue in queues.values()} == {"leaderboard"}
    assert {queue["metadata"]["annotations"]["leaderboard/team"] for queue in queues.values()} == {
        JOB.team_name,
        "Others",
    }
    for job in server.objects["jobs"].values():
        assert job["spec"]["suspend"] is True
        assert job["metadata"]["labels"][QUEUE_LABEL] in queues
        assert QUEUE_LABEL not in job["spec"]["template"]["metadata"]["labels"]
    assert len({job["metadata"]["labels"][QUEUE_LABEL] for job in server.objects["jobs"].values()}) == 2


async def test_one_queue_for_all_is_the_operators_and_none_is_made(server: KubernetesServer) -> None:
    await backend_on(server, Kueue(local_queue="shards")).ensure([JOB])

    assert server.objects["jobs"][JOB.name]["metadata"]["labels"][QUEUE_LABEL] == "shards"
    assert server.objects["localqueues"] == {}


async def test_a_queued_shard_says_its_position_and_why_it_waits(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    kueue_sees(server, in_cluster=4, in_local=0)

    seen = await status_of(backend)

    assert seen.state is ShardState.WAITING
    assert seen.queue == QueuePlace(5, 12, 8, f"quota: {QUOTA}; other teams' turns come first")
    assert seen.detail == str(seen.queue)


async def test_a_queue_is_read_once_for_all_who_wait_in_it(
    server: KubernetesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kueue_module, "LOOK_SECONDS", 60.0)
    backend = backend_on(server)
    await backend.ensure([JOB])
    kueue_sees(server)

    await asyncio.gather(*(status_of(backend) for _ in range(10)))

    assert server.count("GET", "/pendingworkloads") == 1
    assert server.count("GET", "/localqueues") == 1


async def test_without_the_visibility_server_the_reason_is_said_without_a_position(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    kueue_sees(server)
    server.pending = {}

    seen = await status_of(backend)

    assert (seen.state, seen.queue) == (ShardState.WAITING, None)
    assert seen.detail.endswith(f": quota: {QUOTA}")


async def test_a_queue_that_is_not_active_is_named(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    queue = server.objects["localqueues"][TEAMS.queue_of(JOB.team_name)]
    inactive = condition("Active", False, message="Can't submit new workloads to clusterQueue")
    server.put("localqueues", queue | {"status": {"conditions": [inactive]}})

    assert "is not active: Can't submit new workloads to clusterQueue" in (await status_of(backend)).detail


async def test_a_long_wait_in_the_queue_fails_nothing_and_the_deadline_counts_from_the_start(
    server: KubernetesServer,
) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    job = server.objects["jobs"][JOB.name]
    job["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    server.put("jobs", job)

    assert (await status_of(backend)).state is ShardState.WAITING
    assert "startTime" not in job.get("status", {})  # Kubernetes sets it when a Job is no longer suspended


async def test_without_kueue_nothing_is_created_and_the_run_says_what_is_missing(server: KubernetesServer) -> None:
    server.has_kueue = False

    with pytest.raises(InvalidConfiguration, match=r"The cluster has no Kueue.*Install Kueue"):
        await backend_on(server).ensure([JOB])

    assert server.objects["jobs"] == {}
    await backend_on(server, Kueue()).ensure([JOB])
    assert "suspend" not in server.objects["jobs"][JOB.name]["spec"]


async def test_what_is_written_down_as_a_jobs_successor_is_in_no_queue(server: KubernetesServer) -> None:
    manifest = job_manifest(JOB, spec_with(TEAMS))

    async with KubernetesApi(PlainAccess(server.url, [])) as api:
        await plan_job(api, spec_with(TEAMS).namespace, manifest, "uid-of-the-first")

    plan = server.objects["jobs"][f"{JOB.name}-next"]
    assert plan["spec"]["suspend"] is True
    assert QUEUE_LABEL not in plan["metadata"]["labels"]
    assert as_planned(manifest, plan)["metadata"]["labels"][QUEUE_LABEL] == TEAMS.queue_of(JOB.team_name)


@pytest.fixture
def allowed(server: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that allows all, for the doctor."""

    async def answer(_api: object, _namespace: str, *_right: str) -> bool:
        return True

    monkeypatch.setattr("k8s_jobs.preflight._allowed", answer)
    server.troubles.append(lambda request: status(200, "", "") if request.path == "/version" else None)


@pytest.mark.usefixtures("allowed")
async def test_the_doctor_says_which_queue_shards_wait_in(server: KubernetesServer) -> None:
    access = PlainAccess(server.url, [])

    assert (await check_access(access, "shards", TEAMS)).endswith(
        "a LocalQueue for each team in Kueue's ClusterQueue leaderboard"
    )


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("has_kueue", "words"), [(False, "The cluster has no Kueue"), (True, "There is no LocalQueue gone")]
)
async def test_the_doctor_says_what_is_missing(server: KubernetesServer, has_kueue: bool, words: str) -> None:
    server.has_kueue = has_kueue

    with pytest.raises(InvalidConfiguration, match=words):
        await check_access(PlainAccess(server.url, []), "shards", Kueue(local_queue="gone"))
