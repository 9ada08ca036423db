"""Shards that pull their routes from the submission's pool in S3; the test plays simulators and agents."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from embedded.aws_server import aws_server
from evaluation import storage_keys
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.pair.observations import Observations, parse_observations
from evaluation.pair.protocol import PairExitCode
from evaluation.pair.restarts import restarts
from evaluation.pulling.pool import RoutePool, parse_pool
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.records import crashed_record
from evaluation.routes import RouteRun, expand, parse_route_xml
from evaluation.shards import Budgets, RoutePlan, ShardState
from evaluation.submission.model import LeaderboardVersion
from shard_pod.prepare import prepare
from shard_pod.shard_routes import ShardRoutes, SharedPool
from tests.contract.aws_server import empty_aws
from tests.contract.pair_bench import CRASHED, GOOD, SETUP, Bench, Make, benches
from tests.waiting import PATIENCE_SECONDS, eventually

ROUTES = range(5)
POOL = storage_keys.pool_key(7)
V2 = LeaderboardVersion.V2


@pytest.fixture
def bench(tmp_path: Path, aws: dict[str, Any]) -> Iterator[Make]:
    yield from benches(tmp_path, aws, RoutePlan.PULLED)


def shard(make: Make, index: int, pod: str = "", attempt: int = 1, **changes: Any) -> Bench:
    """A shard of a submission of five routes, of which route 0 is the longest and 4 the shortest, prepared."""
    pair = make(
        pod=pod or f"shard-{index}", shard=index, attempt=attempt, expected=expand(ROUTES, 1), claims=None, **changes
    )
    if pair.storage.read(POOL) is None:
        pool = RoutePool({route: 900.0 - 100 * route for route in ROUTES}, claims=((), ()))
        pair.storage.write(POOL, pool.render(), "application/json")
    prepare(pair.settings, pair.storage)
    return pair


def text(routes: Sequence[int], statuses: Sequence[str], total: int | None = None) -> str:
    """A checkpoint with these records, of the first of the routes."""
    records = [
        {**crashed_record(RouteRun(route), index, V2), "status": status}
        for index, (route, status) in enumerate(zip(routes, statuses, strict=False))
    ]
    return render_document(
        {
            "_checkpoint": {
                "global_record": {},
                "progress": [len(records), len(routes) if total is None else total],
                "records": records,
            },
            "entry_status": "Started",
            "eligible": False,
            "sensors": ["carla_gnss"],
            "values": [],
            "labels": [],
        },
        V2,
    )


def pool_of(pair: Bench) -> RoutePool:
    return parse_pool(pair.storage.read(POOL) or b"", POOL)


def seen_by(pair: Bench) -> Observations:
    return parse_observations(pair.stored(storage_keys.observations_key) or b"", "observations.json")


def drives(pair: Bench, start: int, *routes: int, agent: str = "died 0") -> None:
    """Play a start that drives these, all that the shard has claimed so far."""
    pair.started(start)
    assert pair.files.published(f"subset{start}") == ",".join(map(str, routes))
    assert parse_route_xml(pair.settings.routes.read_bytes(), "routes") == routes
    pair.writes(text(routes, [GOOD] * len(routes)))
    pair.ends(start, "stopped", agent)


def test_pairs_take_the_longest_route_first_and_end_when_none_is_left(bench: Make) -> None:
    first, second = shard(bench, 0), shard(bench, 1)
    first.keep()
    drives(first, 1, 0)
    first.started(2)  # it has claimed route 1
    second.keep()
    drives(second, 1, 2)
    drives(second, 2, 2, 3, agent="died 1")  # records count more than exit codes
    drives(second, 3, 2, 3, 4)

    assert second.exit_code() is PairExitCode.FINISHED
    drives(first, 2, 0, 1)
    assert first.exit_code() is PairExitCode.FINISHED

    assert pool_of(first).claims == ((0, 1), (2, 3, 4))
    assert first.stored(storage_keys.checkpoint_key) == text((0, 1), [GOOD] * 2).encode()
    assert (second.progress().state, second.progress().routes_done) == (ShardState.FINISHED, 3)
    assert second.progress().counters.agent_restarts == 0
    seen = seen_by(second)
    assert not list(restarts(1, seen))
    assert not seen.redrives
    assert set(pool_of(first).shown) == {0, 2, 3}


def test_a_pod_that_replaces_another_goes_on_with_its_shards_claims(bench: Make) -> None:
    first = shard(bench, 0)
    first.keep()
    drives(first, 1, 0)
    first.started(2)
    eventually(lambda: first.stored(storage_keys.checkpoint_key) is not None)
    first.lose_supervisor()

    pod = shard(bench, 0, pod="another")
    pod.keep()
    drives(pod, 1, 0, 1)
    pod.started(2)

    assert pool_of(pod).claims == ((0, 1, 2), ())


def test_a_supervisor_that_starts_again_claims_once(bench: Make) -> None:
    pair = shard(bench, 0)
    pair.keep()
    drives(pair, 1, 0)
    pair.started(2)
    pair.lose_supervisor()
    pair.keep()
    drives(pair, 2, 0, 1)
    pair.started(3)

    assert pool_of(pair).claims == ((0, 1, 2), ())


def test_a_supervisor_that_has_told_the_others_the_end_claims_no_more(bench: Make) -> None:
    pair = shard(bench, 0)
    pair.files.publish("exit_code", "0")
    pair.keep()

    assert pair.exit_code() is PairExitCode.FINISHED
    assert pool_of(pair).claims == ((), ())


def test_a_shard_that_finds_nothing_left_ends_at_once(bench: Make) -> None:
    pair = shard(bench, 0)
    pool = pool_of(pair)
    pair.storage.write(POOL, RoutePool(pool.expected, ((), tuple(ROUTES))).render(), "application/json")
    pair.keep()

    assert pair.exit_code() is PairExitCode.FINISHED
    assert not (pair.files.supervisor / "start1").exists()
    assert pair.progress().routes_total == 0


def test_infrastructure_that_fails_gives_back_what_it_has_not_driven_or_has_quarantined(bench: Make) -> None:
    pair = shard(bench, 0, budgets=Budgets(1, 1, 1))
    pair.keep()
    drives(pair, 1, 0)
    pair.started(2)
    pair.ends(2, "died 139", "died 255")  # route 1 is quarantined, and the next ones are taken
    pair.started(3)
    pair.ends(3, "died 139", "died 255")

    assert pair.exit_code() is PairExitCode.SIMULATOR_CRASHED
    pool = pool_of(pair)
    assert (pool.claims, pool.free, pool.returned) == (((0,), ()), (1, 2, 3, 4), (1, 2))
    assert pair.stored(storage_keys.checkpoint_key) == text((0,), [GOOD]).encode()
    assert pair.progress().counters.quarantined == ()

    other = shard(bench, 1)
    other.keep()
    drives(other, 1, 1)


def test_a_failure_that_ends_the_submission_gives_nothing_back_and_lets_the_others_end(bench: Make) -> None:
    failed, other = shard(bench, 0, budgets=Budgets(0, 0, 3)), shard(bench, 1)
    other.keep()
    other.started(1)
    failed.keep()
    failed.started(1)
    failed.ends(1, "stopped", "died 1")
    assert failed.exit_code() is PairExitCode.AGENT_CRASHED

    drives(other, 1, 0)
    assert other.exit_code() is PairExitCode.FINISHED
    assert pool_of(other).claims == ((1,), (0,))

    resumed = shard(bench, 1, pod="resumed", attempt=2)
    resumed.keep()
    drives(resumed, 1, 0, 2)


def test_an_agent_that_cannot_be_set_up_is_tried_until_no_route_is_left(bench: Make) -> None:
    pair = shard(bench, 0)
    pair.keep()
    for count in range(1, 6):
        pair.started(count)
        pair.writes(text(range(count), [SETUP] * count))
        pair.ends(count, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.AGENT_SETUP_FAILED


def test_a_route_that_kills_its_evaluator_is_given_up_and_the_next_one_taken(bench: Make) -> None:
    pair = shard(bench, 0, budgets=Budgets(4, 4, 3))
    pair.keep()
    for count in (1, 2, 3):
        pair.started(count)
        pair.ends(count, "stopped", "died 1")
    pair.started(4)

    assert pair.files.published("subset4") == "0,1"
    assert pool_of(pair).claims == ((0, 1), ())


def test_a_resume_drives_a_crashed_route_of_its_own_before_it_takes_another(bench: Make) -> None:
    first = shard(bench, 0)
    first.keep()
    first.started(1)
    first.writes(text((0,), [CRASHED]))
    eventually(lambda: first.stored(storage_keys.checkpoint_key) is not None)
    first.lose_supervisor()

    resumed = shard(bench, 0, pod="resumed", attempt=2)
    resumed.keep()
    drives(resumed, 1, 0)
    resumed.started(2)
    assert pool_of(resumed).claims == ((0, 1), ())


@pytest.fixture
def atomic_aws() -> Iterator[dict[str, Any]]:
    """moto with the atomic conditional writes of AWS: the embedded stack's server."""
    server = aws_server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield empty_aws(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join(PATIENCE_SECONDS)
    server.server_close()


def test_every_route_is_claimed_once_by_sixteen_shards_at_the_same_time(
    tmp_path: Path, atomic_aws: dict[str, Any]
) -> None:
    shards, routes = 16, range(48)
    pairs = []
    for make in benches(tmp_path, atomic_aws, RoutePlan.PULLED):
        client = boto3.client("s3", **atomic_aws)
        client.put_object(
            Bucket="leaderboard-20-results",
            Key=POOL,
            Body=RoutePool(dict.fromkeys(routes, 900.0), claims=((),) * shards).render(),
        )
        pairs = [make(f"pod-{n}", shard=n, claims=None) for n in range(shards)]

        def take_all(pair: Bench) -> tuple[int, ...]:
            pool = SharedPool(pair.settings, pair.storage, lambda: None)
            mine = ShardRoutes(pair.settings, pair.files)
            while pool.take(mine, Observations()):
                pass
            return mine.claims

        with ThreadPoolExecutor(shards) as threads:
            claims = tuple(threads.map(take_all, pairs))
        assert sorted(route for each in claims for route in each) == list(routes)
        assert pool_of(pairs[0]).claims == claims


def test_a_claim_whose_answer_is_lost_is_found_again(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = shard(bench, 0)
    write, pauses = pair.storage.write_version, list[int]()

    def written_and_lost(key: str, body: bytes, replaced: str) -> bool:
        write(key, body, replaced)
        raise ServiceUnavailable("S3 does not answer")

    monkeypatch.setattr(pair.storage, "write_version", written_and_lost)
    routes = ShardRoutes(pair.settings, pair.files)

    assert SharedPool(pair.settings, pair.storage, lambda: pauses.append(1)).take(routes, Observations())
    assert (routes.claims, pool_of(pair).claims, pauses) == ((0,), ((0,), ()), [1])


def test_without_a_pool_or_a_place_in_it_the_shard_is_configured_wrongly(bench: Make) -> None:
    pair = shard(bench, 0)
    stranger = bench("stranger", shard=5, claims=None)
    with pytest.raises(InvalidConfiguration, match="knows 2 shards, not shard 5"):
        prepare(stranger.settings, stranger.storage)

    other = bench("other", submission=8, claims=None)
    with pytest.raises(InvalidConfiguration, match=r"There is no pool of routes at .*8/pool\.json"):
        prepare(other.settings, other.storage)
    assert pool_of(pair).claims == ((), ())


def test_a_pod_whose_shard_was_ended_by_another_drives_no_further(bench: Make) -> None:
    pair = shard(bench, 0)
    pool, routes = SharedPool(pair.settings, pair.storage, lambda: None), ShardRoutes(pair.settings, pair.files)
    assert pool.take(routes, Observations())
    pair.storage.write(POOL, pool_of(pair).give_back(0, keep=0).render(), "application/json")

    with pytest.raises(InvalidConfiguration, match="Another pod of this shard has given back routes"):
        pool.take(routes, Observations())
