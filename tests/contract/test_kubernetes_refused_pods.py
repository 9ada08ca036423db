"""A node that refuses pods, as a watcher on real HTTP meets it: another Job takes the place of the shard's."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from evaluation.errors import InvalidConfiguration
from evaluation.shards import ShardState, ShardStatus
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.refusals import RefusalLimits
from tests.contract.kubernetes_server import KubernetesServer, Trouble, once, status
from tests.contract.test_kubernetes_backend import add_pod, backend_on
from tests.kubernetes_objects import condition, shard_job

pytestmark = pytest.mark.anyio
JOB = shard_job()
NO_GPU = "Pod was rejected: Allocate failed due to no healthy devices present"


def refuse(server: KubernetesServer, name: str, node: str = "node-1") -> None:
    add_pod(server, JOB.name, name, node=node, phase="Failed", reason="UnexpectedAdmissionError", message=NO_GPU)


def add_pod_unseen(server: KubernetesServer, name: str) -> None:
    """A pod that a node has admitted, of which the watches say nothing yet."""
    tell, server._tell = server._tell, lambda *_: None  # type: ignore[method-assign]
    add_pod(server, JOB.name, name, node="node-2")
    server._tell = tell  # type: ignore[method-assign]


def finish(server: KubernetesServer) -> None:
    job = server.objects["jobs"][JOB.name]
    server.put("jobs", job | {"status": {"conditions": [condition("Complete")]}})


async def follow(backend: KubernetesJobBackend, server: KubernetesServer, refusing: int) -> list[ShardStatus]:
    """Every status to the end; the first `refusing` Jobs get a pod that is refused, the next one finishes."""
    seen, judged = [], set[str]()
    async with asyncio.timeout(20), aclosing(backend.watch([JOB])) as snapshots:
        async for statuses in snapshots:
            seen.append(statuses[0])
            job = server.objects["jobs"].get(JOB.name)
            if job is None or job["metadata"]["uid"] in judged:
                continue
            judged.add(job["metadata"]["uid"])
            if len(judged) > refusing:
                finish(server)
            else:
                refuse(server, f"pod-{len(judged)}")
    return seen


def refuse_the_second_job(server: KubernetesServer) -> Trouble:
    """Does not let the Job be created that takes the deleted one's place."""

    def trouble(request: web.Request) -> web.StreamResponse | None:
        creates = request.method == "POST" and request.path.endswith("/jobs")
        return status(503, "Unavailable", "later") if creates and JOB.name not in server.objects["jobs"] else None

    return trouble


async def follow_until(backend: KubernetesJobBackend, condition: Callable[[], bool]) -> None:
    """As a run that dies then."""
    async with asyncio.timeout(20), aclosing(backend.watch([JOB])) as snapshots:
        async for _ in snapshots:
            if condition():
                return


def refused_by(server: KubernetesServer) -> dict[str, int]:
    annotations = server.objects["jobs"].get(JOB.name, {}).get("metadata", {}).get("annotations", {})
    counts: dict[str, int] = json.loads(annotations.get("leaderboard/refused-by", "{}"))
    return counts


def avoided(job: Any) -> dict[str, Any]:
    affinity: dict[str, Any] = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    return affinity


async def test_a_refused_pod_is_placed_elsewhere_by_a_new_job_and_never_gone(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    first = server.objects["jobs"][JOB.name]["metadata"]["uid"]

    seen = await follow(backend, server, refusing=1)

    job = server.objects["jobs"][JOB.name]
    assert seen[-1].state is ShardState.FINISHED
    assert {status.state for status in seen} <= {ShardState.WAITING, ShardState.RETRYING, ShardState.FINISHED}
    assert any("no budget is charged" in status.detail for status in seen)
    assert job["metadata"]["uid"] != first
    assert job["metadata"]["labels"]["leaderboard/shard"] == "0"
    assert job["spec"]["backoffLimit"] == JOB.budgets.infrastructure_restarts
    (preferred,) = avoided(job)["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchFields"][0]["values"] == ["node-1"]
    assert server.objects["pods"] == {}


async def test_a_node_that_refuses_pod_after_pod_is_excluded_and_uses_up_no_budget(server: KubernetesServer) -> None:
    backend = backend_on(server, refusals=RefusalLimits(exclude_after=3, pause_seconds=0.01))
    await backend.ensure([JOB])

    seen = await follow(backend, server, refusing=9)

    job = server.objects["jobs"][JOB.name]
    assert seen[-1].state is ShardState.FINISHED
    assert json.loads(job["metadata"]["annotations"]["leaderboard/refused-by"]) == {"node-1": 9}
    assert job["spec"]["backoffLimit"] == JOB.budgets.infrastructure_restarts
    (term,) = avoided(job)["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"][0]["values"] == ["node-1"]


async def test_refusals_without_end_fail_the_shard_and_name_the_node(server: KubernetesServer) -> None:
    backend = backend_on(server, refusals=RefusalLimits(pods=3, pause_seconds=0.01))
    await backend.ensure([JOB])

    seen = await follow(backend, server, refusing=99)

    assert seen[-1].failure is not None
    assert seen[-1].failure.summary == "Nodes refused the shard's pods before they started"
    assert "3 pods, by node-1" in seen[-1].failure.cause


async def test_an_outage_between_the_two_jobs_loses_neither(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    server.troubles += [once("POST", "/jobs", status(503, "Unavailable", "later")) for _ in range(6)]

    seen = await follow(backend, server, refusing=1)

    assert seen[-1].state is ShardState.FINISHED
    assert not any(status.state is ShardState.GONE for status in seen)
    assert any("503" in status.warning for status in seen)


async def test_a_watch_that_is_late_with_the_new_job_makes_the_shard_not_gone(
    server: KubernetesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    tell = server._tell

    def late(kind: str, what: str, item: Any) -> None:
        """The news of a new Job come four polls later."""
        if (kind, what) == ("jobs", "ADDED"):
            asyncio.get_running_loop().call_later(1.2, tell, kind, what, item)
        else:
            tell(kind, what, item)

    monkeypatch.setattr(server, "_tell", late)

    seen = await follow(backend, server, refusing=1)

    assert ShardState.GONE not in {status.state for status in seen}


async def test_a_pod_that_runs_by_now_keeps_its_job_although_the_watch_does_not_know(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    first = server.objects["jobs"][JOB.name]["metadata"]["uid"]
    async with aclosing(backend.watch([JOB])) as snapshots:
        await anext(snapshots)
        add_pod_unseen(server, "pod-2")
        refuse(server, "pod-1")

        statuses = await anext(snapshots)

    assert statuses[0].state is not ShardState.GONE
    assert server.objects["jobs"][JOB.name]["metadata"]["uid"] == first


async def test_a_lost_answer_to_the_deletion_loses_no_shard(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])

    def delete_and_fail(request: Any) -> Any:
        if request.method == "DELETE" and request.path.endswith(JOB.name):
            server.drop("jobs", JOB.name)
            return status(504, "Timeout", "request did not complete within the allotted timeout")
        return None

    server.troubles.append(delete_and_fail)

    seen = await follow(backend, server, refusing=1)

    assert seen[-1].state is ShardState.FINISHED
    assert ShardState.GONE not in {status.state for status in seen}


async def test_a_run_that_dies_between_the_two_jobs_forgets_no_refusal(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    refuse(server, "pod-1")
    server.troubles += [refuse_the_second_job(server) for _ in range(99)]
    await follow_until(backend, lambda: JOB.name not in server.objects["jobs"])
    server.troubles.clear()

    await backend_on(server).ensure([JOB])

    job = server.objects["jobs"][JOB.name]
    assert list(server.objects["jobs"]) == [JOB.name]
    assert refused_by(server) == {"node-1": 1}
    assert job["metadata"]["annotations"]["leaderboard/deadline-seconds"] == "3600"
    assert job["spec"]["activeDeadlineSeconds"] <= 3600
    assert not job["spec"].get("suspend")
    (preferred,) = avoided(job)["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchFields"][0]["values"] == ["node-1"]


async def test_a_run_that_dies_before_the_deletion_leaves_a_job_that_the_next_run_replaces(
    server: KubernetesServer,
) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    first = server.objects["jobs"][JOB.name]["metadata"]["uid"]
    refuse(server, "pod-1")
    server.troubles.append(once("DELETE", JOB.name, status(403, "Forbidden", "no")))
    with pytest.raises(InvalidConfiguration):
        await follow_until(backend, lambda: False)
    assert server.objects["jobs"][f"{JOB.name}-next"]["spec"]["suspend"] is True

    await backend_on(server).ensure([JOB])

    assert server.objects["jobs"][JOB.name]["metadata"]["uid"] == first
    await follow_until(backend_on(server), lambda: refused_by(server) == {"node-1": 1})
    assert list(server.objects["jobs"]) == [JOB.name]


async def test_what_was_planned_is_removed_with_its_attempt(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    refuse(server, "pod-1")
    server.troubles.append(once("DELETE", JOB.name, status(403, "Forbidden", "no")))
    with pytest.raises(InvalidConfiguration):
        await follow_until(backend, lambda: False)

    await backend.remove(JOB.submission, JOB.attempt)

    assert server.objects["jobs"] == {}


async def test_a_job_that_somebody_removes_meanwhile_is_not_created_again(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([JOB])
    refuse(server, "pod-1")
    job = server.objects["jobs"][JOB.name]
    job["metadata"]["deletionTimestamp"] = "2026-11-20T10:00:00Z"
    server.put("jobs", job)
    asyncio.get_running_loop().call_later(0.3, server.drop, "jobs", JOB.name)

    async with asyncio.timeout(20):
        seen = [statuses[0] async for statuses in backend.watch([JOB])]

    assert seen[-1].state is ShardState.GONE
    assert server.count("POST", "/jobs") == 1
