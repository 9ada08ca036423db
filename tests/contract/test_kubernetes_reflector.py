"""The shared watch, and the failures that it survives."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.shards import ShardJob, ShardState, ShardStatuses
from k8s_jobs.api import RequestLimits
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.manifest import SHARD_LABELS
from k8s_jobs.reflector import ReflectorLimits
from tests.contract.kubernetes_server import KubernetesServer, once, running_server, status
from tests.kubernetes_objects import (
    PlainAccess,
    cluster_spec,
    condition,
    pod_object,
    quick_limits,
    shard_job,
    shard_jobs,
)
from tests.waiting import PATIENCE_SECONDS, eventually_in_loop

pytestmark = pytest.mark.anyio
COMPLETE = {"conditions": [condition("Complete")]}
FIRST = "submission-7-attempt-1-shard-0"


def backend_on(server: KubernetesServer, *tokens: str, **limits: Any) -> KubernetesJobBackend:
    token_seconds = limits.pop("token_seconds", 600.0)
    access = PlainAccess(server.url, list(tokens), token_seconds)
    return KubernetesJobBackend(access, cluster_spec(), quick_limits(**limits))


def finish(server: KubernetesServer, name: str) -> None:
    server.put("jobs", server.objects["jobs"][name] | {"status": COMPLETE})


def add_driving_pod(server: KubernetesServer) -> None:
    uid = server.objects["jobs"][FIRST]["metadata"]["uid"]
    states = {"simulator": {"running": {"startedAt": "2026-11-20T10:00:00Z"}}}
    pod = pod_object(states, job=FIRST, job_uid=uid)
    pod["metadata"]["labels"] |= SHARD_LABELS
    server.put("pods", pod)


async def states_until(
    backend: KubernetesJobBackend, jobs: list[ShardJob], done: Callable[[ShardStatuses], bool]
) -> list[ShardStatuses]:
    """The snapshots up to the first one that fits."""
    seen: list[ShardStatuses] = []
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(backend.watch(jobs)) as snapshots:
        async for statuses in snapshots:
            seen.append(statuses)
            if done(statuses):
                break
    return seen


def drives(statuses: ShardStatuses) -> bool:
    return statuses[0].state is ShardState.DRIVING


def all_are(state: ShardState) -> Callable[[ShardStatuses], bool]:
    return lambda statuses: all(status.state is state for status in statuses.values())


async def test_watch_yields_at_once_follows_and_ends(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure(shard_jobs())
    seen = []

    async for statuses in backend.watch(shard_jobs()):
        seen.append([status.state for status in statuses.values()])
        if len(seen) == 1:
            for name in list(server.objects["jobs"]):
                finish(server, name)

    assert seen[0] == [ShardState.WAITING] * 4
    assert seen[-1] == [ShardState.FINISHED] * 4


async def test_news_come_without_any_change(server: KubernetesServer) -> None:
    backend = backend_on(server, snapshot_seconds=0.05)
    await backend.ensure([shard_job()])
    seen = 0

    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(backend.watch([shard_job()])) as snapshots:
        async for _ in snapshots:
            seen += 1
            if seen == 3:
                break

    assert seen == 3


async def test_unknown_jobs_are_gone_and_that_is_an_end(server: KubernetesServer) -> None:
    (statuses,) = await states_until(backend_on(server), shard_jobs(), lambda _: False)

    assert all_are(ShardState.GONE)(statuses)


async def test_job_that_somebody_deletes_is_gone_and_one_that_ended_before_is_not(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure(shard_jobs()[:2])
    finish(server, FIRST)

    async with asyncio.timeout(PATIENCE_SECONDS):
        async for statuses in backend.watch(shard_jobs()[:2]):
            if statuses[1].state is ShardState.WAITING:
                server.drop("jobs", FIRST)
                server.drop("jobs", "submission-7-attempt-1-shard-1")

    assert statuses[0].state is ShardState.FINISHED
    assert statuses[1].state is ShardState.GONE
    assert "deleted from outside" in statuses[1].detail


async def test_hundred_followers_share_one_watch_of_each_kind(server: KubernetesServer) -> None:
    unhurried = RequestLimits(answer_seconds=60, silence_seconds=60)  # a busy machine must not break a watch
    backend = backend_on(server)
    numbers = range(1, 26)
    for number in numbers:
        await backend.ensure(shard_jobs(number))
    before = len(server.requests)
    watching = [
        asyncio.create_task(
            states_until(
                # no_pod_seconds: after these, events would be asked for too
                backend_on(server, requests=unhurried, no_pod_seconds=600),
                shard_jobs(number),
                all_are(ShardState.FINISHED),
            )
        )
        for number in numbers
    ]
    await eventually_in_loop(lambda: server.watches == 2)

    for name in list(server.objects["jobs"]):
        finish(server, name)
    await asyncio.gather(*watching)

    assert len(server.requests) - before == 4  # two lists, two watches
    await eventually_in_loop(lambda: server.watches == 0)


BREAKS = {
    "watch ends": KubernetesServer.end_watches,
    "410 inside the watch": KubernetesServer.expire_watches,
    "connection drops": KubernetesServer.drop_connections,
    "connection goes silent": KubernetesServer.deafen_watches,
}


@pytest.mark.parametrize("how", BREAKS)
async def test_what_happens_while_the_watch_is_broken_is_seen_after(server: KubernetesServer, how: str) -> None:
    backend = backend_on(server)
    await backend.ensure([shard_job()])
    watching = asyncio.create_task(states_until(backend, [shard_job()], all_are(ShardState.FINISHED)))
    await eventually_in_loop(lambda: server.watches == 2)

    BREAKS[how](server)
    server._watches = []  # it hears nothing of what comes now
    finish(server, FIRST)

    assert (await watching)[-1][0].state is ShardState.FINISHED


async def test_410_as_a_status_is_listed_again(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([shard_job()])
    server.troubles += [once("WATCH", "/jobs", status(410, "Expired", "too old")) for _ in range(2)]
    watching = asyncio.create_task(states_until(backend, [shard_job()], all_are(ShardState.FINISHED)))
    await eventually_in_loop(lambda: server.watches == 2)

    finish(server, FIRST)
    await watching

    assert server.count("GET", "/jobs") == 1 + 3  # ensure's own


async def test_job_deleted_while_the_watch_is_broken_is_gone(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([shard_job()])
    watching = asyncio.create_task(states_until(backend, [shard_job()], all_are(ShardState.GONE)))
    await eventually_in_loop(lambda: server.watches == 2)

    server.deafen_watches()
    server.drop("jobs", FIRST)

    assert (await watching)[-1][0].state is ShardState.GONE


async def test_pod_that_goes_while_the_watch_is_broken_drives_no_longer(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([shard_job()])
    add_driving_pod(server)
    gone_on = asyncio.create_task(states_until(backend, [shard_job()], lambda each: not drives(each)))
    await eventually_in_loop(lambda: server.watches == 2)

    server.deafen_watches()
    server.drop("pods", "pod-a")

    snapshots = await gone_on
    assert drives(snapshots[0])
    assert snapshots[-1][0].state is ShardState.RETRYING


async def test_job_that_the_watch_has_yet_to_hear_of_is_not_gone(server: KubernetesServer) -> None:
    # given: a watch that is shared, and that lags behind
    backend = backend_on(server, requests=RequestLimits(silence_seconds=5), snapshot_seconds=0.05)
    await backend.ensure([shard_job(8)])
    other = asyncio.create_task(states_until(backend, [shard_job(8)], all_are(ShardState.FINISHED)))
    await eventually_in_loop(lambda: server.watches == 2)
    watches, server._watches = server._watches, []

    await backend.ensure([shard_job()])
    first = (await states_until(backend, [shard_job()], lambda _: True))[0]

    assert first[0].state is ShardState.WAITING
    server._watches = watches
    finish(server, "submission-8-attempt-1-shard-0")
    await other


async def test_while_the_cluster_is_down_the_last_states_stay_and_say_so(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([shard_job()])
    add_driving_pod(server)
    seen: list[tuple[ShardState, str]] = []  # and the warning

    async with asyncio.timeout(PATIENCE_SECONDS):
        async for statuses in backend.watch([shard_job()]):
            seen.append((statuses[0].state, statuses[0].warning))
            if len(seen) == 1:
                await server.stop()
            elif "has not answered since" in statuses[0].warning and server._runner is None:
                await server.start()
                finish(server, FIRST)

    assert seen[0] == (ShardState.DRIVING, "")
    assert any(
        state is ShardState.DRIVING and "the cluster has not answered since" in warning for state, warning in seen
    )
    assert seen[-1][0] is ShardState.FINISHED


async def test_silence_has_an_end(server: KubernetesServer) -> None:
    backend = backend_on(server, silent_cluster_seconds=0.5)
    await backend.ensure([shard_job()])

    async def watch() -> None:
        async for _ in backend.watch([shard_job()]):
            if server._runner:
                await server.stop()

    with pytest.raises(ServiceUnavailable, match="has not answered for"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await watch()


async def test_cluster_that_is_down_from_the_start_is_given_up(server: KubernetesServer) -> None:
    backend = backend_on(server, first_list_seconds=0.3)
    await server.stop()

    with pytest.raises(ServiceUnavailable, match="cannot be listed"):
        await states_until(backend, [shard_job()], lambda _: False)


async def test_refusal_ends_the_watch_only_if_it_lasts(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([shard_job()])
    watching = asyncio.create_task(states_until(backend, [shard_job()], all_are(ShardState.FINISHED)))
    await eventually_in_loop(lambda: server.watches == 2)

    server.troubles.append(once("GET", "/jobs", status(403, "Forbidden", "the authorizer is starting")))
    server.end_watches()
    await eventually_in_loop(lambda: not server.troubles)
    finish(server, FIRST)

    assert (await watching)[-1][0].state is ShardState.FINISHED


async def test_refused_list_at_the_start_ends_the_watch(server: KubernetesServer) -> None:
    server.troubles += [once("GET", "/jobs", status(403, "Forbidden", "cannot list resource jobs")) for _ in range(99)]

    with pytest.raises(InvalidConfiguration, match="cannot list resource jobs"):
        await states_until(backend_on(server), [shard_job()], lambda _: False)


async def test_watch_is_renewed_with_its_token(server: KubernetesServer) -> None:
    # given: tokens that are used for a second and a watch that would last for minutes
    quick = ReflectorLimits(first_pause_seconds=0.02)
    backend = backend_on(server, "first", "second", token_seconds=1.0, reflector=quick)
    await backend.ensure([shard_job()])
    asked: list[str] = []

    def note(request: Any) -> None:
        if "watch" in request.query:
            asked.append(request.query["timeoutSeconds"])

    server.troubles.append(note)
    watching = asyncio.create_task(states_until(backend, [shard_job()], all_are(ShardState.FINISHED)))
    await eventually_in_loop(lambda: server.watches == 2)

    # when: the server ends the watches after the time that they asked for
    await asyncio.sleep(1)
    server.end_watches()
    await eventually_in_loop(lambda: "Bearer second" in server.tokens_seen)
    finish(server, FIRST)
    await watching

    assert asked[:2] == ["1", "1"]


def test_backend_works_in_one_event_loop_after_another() -> None:
    async def run() -> bool:
        async with running_server() as server:
            backend = backend_on(server)
            await backend.ensure([shard_job()])
            finish(server, FIRST)
            return all_are(ShardState.FINISHED)((await states_until(backend, [shard_job()], lambda _: False))[-1])

    assert asyncio.run(run())
    assert asyncio.run(run())
