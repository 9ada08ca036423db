import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.pair.observations import Observations, SeenRecord, SeenStart
from evaluation.pair.restarts import restarts
from evaluation.pair.timeline import timelines
from evaluation.pair.usage import usage_of
from evaluation.pulling.choice import MOST_START_SHARE, START_SECONDS, next_routes
from evaluation.pulling.durations import RouteSize, adapted, expected_seconds, shown_seconds, start_seconds
from evaluation.routes import RouteRun

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def record(route: int, seconds: float, repetition: int = 0, **more: bool) -> SeenRecord:
    return SeenRecord(RouteRun(route, repetition), "Completed", "digest", at(seconds), 1, 1, **more)


def test_without_history_a_longer_route_and_one_with_more_scenarios_is_expected_to_take_longer() -> None:
    expected = expected_seconds({1: RouteSize(100), 2: RouteSize(2000), 3: RouteSize(100, scenarios=40)})

    assert expected == {1: pytest.approx(400), 2: pytest.approx(2300), 3: pytest.approx(1200)}


def test_earlier_submissions_correct_the_route_file_and_their_agents_factor_does_not() -> None:
    sizes = {route: RouteSize(1000) for route in range(4)}
    slow = {0: 4000.0, 1: 1000.0, 2: 1000.0, 3: 1000.0}
    fast = {route: seconds / 10 for route, seconds in slow.items()}

    once, often = expected_seconds(sizes, [slow]), expected_seconds(sizes, [slow, fast] * 10)

    assert once[0] > once[1] == once[2]
    assert often[0] / often[1] == pytest.approx(4 ** (20 / 24))
    assert often[1] < once[1]


def test_a_submission_with_few_of_the_routes_says_nothing_of_them() -> None:
    sizes = {route: RouteSize(1000) for route in range(4)}

    assert expected_seconds(sizes, [{0: 9000.0, 1: 1.0, 77: 1.0}]) == expected_seconds(sizes)


def test_what_an_agent_has_shown_scales_the_others() -> None:
    assert adapted({1: 100.0, 2: 200.0, 3: 400.0}, {1: 50.0, 2: 100.0, 9: 1.0})[3] == pytest.approx(200)


@given(
    st.dictionaries(st.integers(0, 30), st.floats(0, 1e6), min_size=1),
    st.lists(st.dictionaries(st.integers(0, 40), st.floats(0, 1e6)), max_size=4),
)
def test_every_route_has_a_time_whatever_was_seen(metres: dict[int, float], earlier: list[dict[int, float]]) -> None:
    expected = expected_seconds({route: RouteSize(each) for route, each in metres.items()}, earlier)

    assert expected.keys() == metres.keys()
    assert all(0 < seconds < math.inf for seconds in expected.values())


def test_shown_is_what_the_supervisors_clock_says() -> None:
    seen = Observations(
        (
            SeenStart(1, 1, at(0), ready_at=at(12)),
            record(4, 100),
            record(2, 130),
            record(2, 150, repetition=1),
            SeenStart(1, 2, at(160), ready_at=at(180)),
            record(5, 400, by_supervisor=True),
            record(6, 450),
            SeenStart(1, 3, at(500)),
        )
    )

    assert shown_seconds(seen) == {4: 88, 2: 50, 6: 50}
    assert start_seconds(seen, otherwise=15) == 16
    assert start_seconds(Observations(), otherwise=15) == 15


def test_short_routes_share_a_start_until_it_is_worth_its_time_and_a_long_one_is_alone() -> None:
    short = dict.fromkeys(range(1000), 20.0)
    worth = START_SECONDS / MOST_START_SHARE

    assert len(next_routes(range(1000), short, 4)) == worth / 20
    assert next_routes(range(1000), short | {500: 3000.0}, 4)[:1] == (500,)
    assert len(next_routes(range(1000), short | {500: 3000.0}, 4)) == 1


@given(
    st.dictionaries(st.integers(0, 300), st.floats(1, 1e5), max_size=40),
    st.integers(1, 8),
    st.floats(0.1, 600),
)
def test_a_start_takes_the_longest_and_no_more_than_its_part(
    expected: dict[int, float], pairs: int, start: float
) -> None:
    taken = next_routes(tuple(expected), expected, pairs, start)

    assert bool(taken) == bool(expected)
    assert len(set(taken)) == len(taken)
    if len(taken) > 1:
        assert sum(expected[route] for route in taken) <= sum(expected.values()) / pairs
    if taken:
        assert expected[taken[0]] == max(expected.values())


def test_a_start_for_the_next_routes_is_neither_a_restart_nor_a_retry() -> None:
    first = SeenStart(1, 1, at(0), at(10), at(100), interrupted=False, drove_all=True)
    seen = Observations((first, record(4, 99), SeenStart(1, 2, at(110), at(130)), replace(record(2, 230), start=2)))

    [attempt] = timelines({0: seen}, 1, at(0))
    seconds = usage_of(attempt).seconds

    assert (seconds.starting, seconds.driving) == (10 + 10 + 20, 90 + 100)
    assert (seconds.retries_agent, seconds.retries_infrastructure) == (0, 0)
    assert not list(restarts(0, seen))
