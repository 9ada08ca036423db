import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.errors import InvalidConfiguration
from evaluation.routes import RouteRun
from evaluation.shards import (
    Budgets,
    RoutePlan,
    Shard,
    ShardJob,
    parse_plan,
    plan_routes,
    render_plan,
    split_contiguous,
)
from evaluation.submission.model import LeaderboardVersion, Phase


def job(**changes: object) -> ShardJob:
    values: dict[str, object] = {
        "submission": 42,
        "attempt": 2,
        "shard": Shard(3, 4, (15, 16)),
        "phase": Phase("leaderboard-20-SENSORS", "leaderboard-20", "SENSORS"),
        "version": LeaderboardVersion.V2,
        "repetitions": 2,
        "image": "demo/agent:steady",
        "team_name": "Ünïcode & Søns; rm -rf /",
        "bucket": "results",
        "budgets": Budgets(),
        "hang_seconds": 800.0,
        "deadline_seconds": 3600.0,
    }
    return ShardJob(**(values | changes))  # type: ignore[arg-type]  # a table of values for a test


def test_twenty_routes_become_four_times_five() -> None:
    shards = split_contiguous(range(20), 4)
    assert [shard.routes for shard in shards] == [
        (0, 1, 2, 3, 4),
        (5, 6, 7, 8, 9),
        (10, 11, 12, 13, 14),
        (15, 16, 17, 18, 19),
    ]
    assert [(shard.index, shard.count) for shard in shards] == [(0, 4), (1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize(
    ("routes", "count", "sizes"), [(10, 4, [3, 2, 3, 2]), (5, 4, [2, 1, 1, 1]), (3, 4, [1, 1, 1]), (7, 1, [7])]
)
def test_bounds_are_rounded_up(routes: int, count: int, sizes: list[int]) -> None:
    assert [len(shard.routes) for shard in split_contiguous(range(routes), count)] == sizes


@given(st.lists(st.integers(0, 1000), min_size=1, unique=True), st.integers(1, 12))
def test_split_loses_and_doubles_nothing_and_leaves_no_shard_empty(routes: list[int], count: int) -> None:
    shards = split_contiguous(routes, count)
    assert [route for shard in shards for route in shard.routes] == routes
    assert all(shard.routes for shard in shards)
    assert len(shards) == min(count, len(routes))
    sizes = {len(shard.routes) for shard in shards}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("routes", "count"), [([], 4), ([1, 2], 0), ([1, 2], -1)])
def test_nothing_to_split_is_refused(routes: list[int], count: int) -> None:
    with pytest.raises(InvalidConfiguration):
        split_contiguous(routes, count)


def test_job_name_is_a_dns_label_whatever_the_team_is_called() -> None:
    assert job().name == "submission-42-attempt-2-shard-3"
    longest = job(submission=2**63 - 1, attempt=999, shard=Shard(99, 100, (1,))).name
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", longest)


def test_job_expects_every_repetition_of_its_routes() -> None:
    assert job().expected == (RouteRun(15, 0), RouteRun(15, 1), RouteRun(16, 0), RouteRun(16, 1))


@pytest.mark.parametrize("how", RoutePlan)
def test_plan_is_read_back(how: RoutePlan) -> None:
    plan = plan_routes(range(10), 4, 2, how)
    assert parse_plan(render_plan(plan).encode(), "plan.json") == plan
    assert plan.routes == tuple(range(10))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"shards": [[1]]}',
        b'{"shards": [], "repetitions": 1}',
        b'{"shards": [[1], []], "repetitions": 1}',
        b'{"shards": [[1], [1]], "repetitions": 1}',
        b'{"shards": [[1]], "repetitions": 0}',
        b'{"shards": [[-1]], "repetitions": 1}',
        b'{"pulled_by": 0, "routes": [1], "repetitions": 1}',
        b'{"pulled_by": 2, "routes": [1], "repetitions": 1}',
        b'{"pulled_by": 1, "routes": [1, 1], "repetitions": 1}',
        b'{"pulled_by": 1, "repetitions": 1}',
        b'{"shards": [["1"]], "repetitions": 1}',
        b'{"shards": [[1.5]], "repetitions": 1}',
        b'{"shards": [[1]], "repetitions": Infinity}',
        b'{"shards": [[1]], "repetitions": true}',
        b"[" * 100_000,
    ],
    ids=lambda data: data[:45].decode("ascii", "replace"),
)
def test_bad_plan_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InvalidConfiguration, match=r"plan\.json is not a shard plan"):
        parse_plan(data, "plan.json")
