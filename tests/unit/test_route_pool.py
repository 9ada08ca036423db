"""Claims of a submission's routes: as a model against any order of pods, races, lost answers and failures."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evaluation.errors import InvalidConfiguration
from evaluation.pulling.pool import RoutePool, parse_pool

SHARDS, ROUTES = 3, 8


def pool(**changes: object) -> RoutePool:
    values: dict[str, object] = {"expected": {7: 100.0, 3: 900.0, 5: 10.0}, "claims": ((), ())}
    return RoutePool(**(values | changes))  # type: ignore[arg-type]  # a table of values for a test


def test_the_longest_route_goes_first_and_each_to_one_shard() -> None:
    first = pool().take(0, (), attempt=1)
    second = first.take(1, (), attempt=1)

    assert first.claims == ((3,), ())
    assert second.claims == ((3,), (7,))
    assert second.free == (5,)


def test_what_this_agent_has_shown_decides_how_many_short_routes_fill_a_start() -> None:
    many = pool(expected=dict.fromkeys(range(200), 100.0))

    assert len(many.take(0, (), 1).claims[0]) == 5
    assert len(many.take(0, (), 1, {0: 10.0}).claims[0]) > 40


def test_a_shard_that_has_claims_which_its_pod_does_not_know_claims_no_more() -> None:
    taken = pool().take(0, (), attempt=1)

    assert taken.take(0, (), attempt=1) == taken


def test_a_failure_that_ends_the_submission_closes_the_pool_for_its_attempt() -> None:
    closed = pool().close(1, "shard 1: the agent hangs").close(1, "another")

    assert closed.take(0, (), attempt=1) == closed
    assert closed.closed
    assert closed.closed.because == "shard 1: the agent hangs"
    assert closed.take(0, (), attempt=2).claims[0] == (3,)


def test_a_route_is_given_back_once() -> None:
    failed = pool(claims=((3, 7), ())).give_back(0, keep=1)
    assert (failed.claims, failed.free, failed.returned) == (((3,), ()), (7, 5), (7,))

    again = failed.take(1, (), 1).give_back(1, keep=0)
    assert again.claims == ((3,), (7,))


def test_it_is_read_back() -> None:
    each = pool(claims=((3,), (7,)), shown={3: 812.5}, returned=(7,)).close(2, "it hangs")

    assert parse_pool(each.render(), "pool.json") == each
    assert list(parse_pool(each.render(), "pool.json").expected) == [7, 3, 5]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"expected": {"1": 1}, "claims": [[1], [1]]}',
        b'{"expected": {"1": 1}, "claims": [[2]]}',
        b'{"expected": {"1": "long"}, "claims": [[]]}',
    ],
)
def test_what_is_no_pool_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InvalidConfiguration, match=r"7/pool\.json is not a pool of routes"):
        parse_pool(data, "7/pool.json")


class Pods(RuleBasedStateMachine):
    """Pods of three shards that read, change and write one object; every write is conditional on what was read.

    A pod knows its claims and what it drove. Its write may be refused, its answer lost, the pod replaced by another at
    any time; the other then reads what the pool says of its shard.
    """

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.pool = RoutePool({route: 100.0 + route for route in range(ROUTES)}, claims=((),) * SHARDS)
        self.read: list[tuple[int, RoutePool] | None] = [None] * SHARDS  # since its last write
        self.known: list[tuple[int, ...]] = [()] * SHARDS
        self.driven: list[tuple[int, ...]] = [()] * SHARDS
        self.ended = [False] * SHARDS

    shards = st.integers(0, SHARDS - 1)

    def lives(self, shard: int) -> bool:
        return not self.ended[shard]

    @rule(shard=shards)
    def reads(self, shard: int) -> None:
        self.read[shard] = self.version, self.pool

    def _write(self, shard: int, changed: RoutePool) -> bool:
        assert self.read[shard]
        version, read = self.read[shard]  # type: ignore[misc]  # as asserted
        self.read[shard] = None
        if changed == read:
            return True
        if version != self.version:
            return False
        self.pool, self.version = changed, self.version + 1
        return True

    @rule(shard=shards, answer_is_lost=st.booleans())
    def takes(self, shard: int, answer_is_lost: bool) -> None:
        read = self.read[shard]
        if not self.lives(shard) or self.known[shard] != self.driven[shard] or not read:
            return
        changed = read[1].take(shard, self.known[shard], attempt=1)
        if self._write(shard, changed) and not answer_is_lost:
            self.known[shard] = changed.claims[shard]

    @rule(shard=shards)
    def drives(self, shard: int) -> None:
        done = len(self.driven[shard])
        if self.lives(shard) and done < len(self.known[shard]):
            self.driven[shard] = self.known[shard][: done + 1]

    @rule(shard=shards)
    def is_replaced(self, shard: int) -> None:
        if self.lives(shard):
            self.read[shard] = self.version, self.pool
            self.known[shard] = self.pool.claims[shard]

    @precondition(lambda self: self.ended.count(False) > 1)
    @rule(shard=shards)
    def fails_for_good(self, shard: int) -> None:
        if self.lives(shard):
            self.read[shard] = self.version, self.pool
            assert self._write(shard, self.pool.give_back(shard, len(self.driven[shard])))
            self.ended[shard] = True

    @rule(shard=shards)
    def fails_the_submission(self, shard: int) -> None:
        self.read[shard] = self.version, self.pool
        assert self._write(shard, self.pool.close(1, "it hangs"))

    @invariant()
    def no_route_is_lost_or_claimed_twice(self) -> None:
        again = parse_pool(self.pool.render(), "pool.json")
        claimed = [route for claims in again.claims for route in claims]
        assert sorted([*claimed, *again.free]) == list(range(ROUTES))

    @invariant()
    def no_route_is_driven_twice(self) -> None:
        driven = [route for routes in self.driven for route in routes]
        assert len(driven) == len(set(driven))

    @invariant()
    def a_shard_drives_what_it_has_claimed_in_this_order(self) -> None:
        for claims, known, driven in zip(self.pool.claims, self.known, self.driven, strict=True):
            assert claims[: len(driven)] == driven
            assert known[: len(driven)] == driven


TestPods = Pods.TestCase
TestPods.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
