"""A submission's routes as a pool: which shard has claimed which routes, in the order in which it drives them.

pool.json in the submission's folder is the truth. The flow creates it (If-None-Match); from then on only supervisors
change it, each time by a conditional write (If-Match), so of two changes to the same state one is refused and made
again to the new state. A claim belongs to a shard: the pod that replaces another one finds it there.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from itertools import chain

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from evaluation.errors import InvalidConfiguration
from evaluation.pulling.choice import START_SECONDS, next_routes
from evaluation.pulling.durations import adapted


@dataclass(frozen=True)
class Closed:
    """No more routes are claimed in this attempt: the submission has failed."""

    attempt: int
    because: str


@dataclass(frozen=True)
class RoutePool:
    """`expected`: seconds by route, before anything is driven; the order is that of the route file."""

    expected: Mapping[int, float]
    claims: tuple[tuple[int, ...], ...]  # by shard, in the order of driving
    shown: Mapping[int, float] = field(default_factory=dict)  # seconds by route, as their supervisors saw them
    returned: tuple[int, ...] = ()  # given back by a shard that failed; each route at most once
    closed: Closed | None = None

    @property
    def free(self) -> tuple[int, ...]:
        claimed = frozenset(chain.from_iterable(self.claims))
        return tuple(route for route in self.expected if route not in claimed)

    def take(
        self,
        shard: int,
        known: tuple[int, ...],
        attempt: int,
        shown: Mapping[int, float] | None = None,
        start_seconds: float = START_SECONDS,
    ) -> "RoutePool":
        """The pool after the shard's next claim; the same where there is nothing to claim.

        `known` are the shard's claims as its pod knows them. Where the pool has more, an answer was lost or another pod
        of the shard has claimed them: they are the next routes.
        """
        if self.claims[shard] != known or (self.closed and self.closed.attempt == attempt):
            return self
        pool = replace(self, shown={**self.shown, **(shown or {})})
        seconds = adapted(pool.expected, pool.shown)
        taken = next_routes(pool.free, seconds, len(pool.claims), start_seconds)
        return pool._with_claims(shard, (*known, *taken)) if taken else self

    def give_back(self, shard: int, keep: int) -> "RoutePool":
        """The pool after a shard has ended for good with its first `keep` claims driven.

        A route comes back once: one on which a second pair fails keeps its shard, and the submission ends without it.
        """
        kept, undriven = self.claims[shard][:keep], self.claims[shard][keep:]
        stay = tuple(route for route in undriven if route in self.returned)
        back = tuple(route for route in undriven if route not in self.returned)
        return replace(self._with_claims(shard, (*kept, *stay)), returned=(*self.returned, *back))

    def close(self, attempt: int, because: str) -> "RoutePool":
        """The pool after a failure that ends the submission; the first reason stays."""
        if self.closed and self.closed.attempt == attempt:
            return self
        return replace(self, closed=Closed(attempt, because))

    def render(self) -> bytes:
        """The JSON text, one line."""
        return _POOL.dump_json(self)

    def _with_claims(self, shard: int, routes: tuple[int, ...]) -> "RoutePool":
        return replace(self, claims=(*self.claims[:shard], routes, *self.claims[shard + 1 :]))


_POOL = TypeAdapter(RoutePool)


def parse_pool(data: bytes, source: str) -> RoutePool:
    """Read what `render` wrote; raises InvalidConfiguration, naming the source."""
    try:
        pool = _POOL.validate_json(data)
        claimed = list(chain.from_iterable(pool.claims))
        if len(set(claimed)) < len(claimed) or not set(claimed) <= set(pool.expected):
            raise ValueError("a route is claimed twice, or is none of the submission's")
    except (ValidationError, ValueError, OverflowError) as error:
        remedy = "Restore an earlier version of the object in S3, then resume the submission."
        raise InvalidConfiguration(f"{source} is not a pool of routes", str(error)[:200], remedy) from error
    return pool
