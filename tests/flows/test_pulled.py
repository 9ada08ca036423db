"""Submissions whose pairs pull their routes: the same result as by a fixed plan, also where shards fail."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from prefect.client.schemas.objects import State

from evaluation.errors import Failure, Fault
from evaluation.provenance import parse_envelope
from evaluation.pulling.pool import RoutePool, parse_pool
from evaluation.shards import RoutePlan, Shard, ShardJob
from evaluation.submission.model import SubmissionStatus
from flows.evaluate_submission import evaluate_submission
from tests.fakes import checkpoint_of, observations_of
from tests.flows.conftest import World

CRASHED = Failure("The simulator crashed again and again", "", "Resume the submission.", Fault.INFRASTRUCTURE)
HANGS = replace(CRASHED, summary="The agent hangs", fault=Fault.TEAM)
FAIR = ((4, 19, 0, 11, 7, 3), (2, 9, 1), (18, 5, 6, 8, 10, 12), (13, 14, 15, 16, 17))


def run(world: World, pk: int) -> State[None]:
    return asyncio.run(evaluate_submission(*world.submitted(pk), return_state=True))


def pool_of(world: World, pk: int) -> RoutePool:
    return parse_pool(world.store.objects[f"{pk}/pool.json"], f"{pk}/pool.json")


def pull(world: World, claims: Sequence[Sequence[int]], given_back: Mapping[int, Sequence[int]] | None = None) -> None:
    """Let the shards claim and drive these; shard -> routes that it gave back are driven by nobody or another."""

    def checkpoint(job: ShardJob) -> bytes | None:
        shard, pk = job.shard.index, job.submission
        pool = pool_of(world, pk)
        mine = (*pool.claims[:shard], tuple(claims[shard]), *pool.claims[shard + 1 :])
        returned = (*pool.returned, *(given_back or {}).get(shard, ()))
        world.store.objects[f"{pk}/pool.json"] = replace(pool, claims=mine, returned=returned).render()
        return checkpoint_of(claimed(job)) if mine[shard] else None

    def claimed(job: ShardJob) -> ShardJob:
        return replace(job, shard=Shard(job.shard.index, job.shard.count, tuple(claims[job.shard.index])))

    world.backend.checkpoint = checkpoint
    world.backend.observed = lambda job, body: observations_of(claimed(job), body)


@pytest.fixture
def world(world: World) -> World:
    world.settings.route_plan = RoutePlan.PULLED
    return world


def test_the_result_is_byte_for_byte_that_of_the_fixed_plan(world: World) -> None:
    pull(world, FAIR)
    pulled = run(world, 7)
    world.settings.route_plan = RoutePlan.FIXED
    world.backend.checkpoint, world.backend.observed = checkpoint_of, observations_of
    run(world, 8)

    assert pulled.message == "Submission 7 finished: driving score 50.000 over 20 of 20 routes."
    assert world.store.objects["7/merged.json"] == world.store.objects["8/merged.json"]
    assert json.loads(world.store.objects["7/plan.json"]) == {
        "repetitions": 1,
        "pulled_by": 4,
        "routes": list(range(20)),
    }
    assert "pool.json" in parse_envelope(world.store.objects["7/provenance.json"], "7").files
    assert "8/pool.json" not in world.store.objects


def test_routes_that_a_failed_shard_gave_back_count_where_others_drove_them(world: World) -> None:
    pull(world, FAIR, {1: (16, 17)})
    world.backend.endings = {1: CRASHED}

    state = run(world, 7)

    assert state.is_completed()
    assert "Given back by a pair that failed, and driven by another: 16,17." in str(state.message)


def test_routes_that_nobody_drove_fail_the_submission_as_its_shard_did(world: World) -> None:
    pull(world, (*FAIR[:3], FAIR[3][:-1]), {3: (17,)})
    world.backend.endings = {3: CRASHED}

    state = run(world, 7)

    assert state.name == "InfrastructureFailed"
    assert "1 of 4 shards failed" in str(state.message)
    assert world.evalai.reports[-1].status is SubmissionStatus.FAILED


def test_a_failure_of_the_team_ends_it_although_every_route_was_driven(world: World) -> None:
    pull(world, FAIR)
    world.backend.endings = {2: HANGS}

    assert run(world, 7).name == "AgentFailed"


def test_a_resume_keeps_the_claims_and_the_next_submission_knows_the_durations(world: World) -> None:
    pull(world, (*FAIR[:3], ()))
    world.backend.endings = {3: CRASHED}
    run(world, 7)
    before = pool_of(world, 7)

    world.backend.endings = {}
    world.evalai.statuses[7] = SubmissionStatus.RESUMING
    world.ledger.rows[7].pop("claim-key")  # a resume has a later one than this
    pull(world, FAIR)
    assert run(world, 7).is_completed()
    assert pool_of(world, 7).claims == FAIR
    assert pool_of(world, 7).expected == before.expected

    [kept] = json.loads(world.store.objects["route-durations.json"])
    assert kept["submission"] == 7
    assert kept["seconds"].keys() == {str(route) for route in range(20)}
    run(world, 9)
    assert pool_of(world, 9).expected != before.expected
