"""How long routes are expected to take: from the route file, from earlier submissions, from what this agent has shown.

Durations of routes are spread over orders of magnitude, and agents differ by a factor, so everything is reckoned with
logarithms: an agent's factor and a route's share of it. Which route is the longest does not depend on the factor; how
many short routes fill a start does.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from evaluation.pair.observations import Observations, SeenRecord, SeenStart

_LEAST_SECONDS = 1.0
# 69 published runs (docs/reference/results.md, "How long routes take"): a part of a route's time is the same for all.
SECONDS_PER_ROUTE, SECONDS_PER_METRE, SECONDS_PER_SCENARIO = 300.0, 1.0, 20.0
FILE_WEIGHT = 4.0  # what the route file says counts like so many earlier submissions
_LEAST_COMMON = 3  # an earlier submission is comparable where it shares so many routes


@dataclass(frozen=True)
class RouteSize:
    """What a route file says of a route: metres between its points, and how many scenarios."""

    metres: float
    scenarios: int = 0

    @property
    def seconds(self) -> float:
        return SECONDS_PER_ROUTE + SECONDS_PER_METRE * self.metres + SECONDS_PER_SCENARIO * self.scenarios


def expected_seconds(sizes: Mapping[int, RouteSize], earlier: Iterable[Mapping[int, float]] = ()) -> dict[int, float]:
    """Seconds by route, before anything is driven. `earlier`: what earlier submissions took, seconds by route.

    An earlier submission speaks for the routes that it shares, and only of how these compare: its agent's factor is
    taken out. The factors together give the level.
    """
    of_file = {route: math.log(size.seconds) for route, size in sizes.items()}
    votes: dict[int, list[float]] = {route: [] for route in sizes}
    factors = []
    for seconds in earlier:
        common = {route: _log(seconds[route]) for route in sizes if route in seconds}
        if len(common) < min(_LEAST_COMMON, len(sizes)):
            continue
        factor = fmean(common[route] - of_file[route] for route in common)
        factors.append(factor)
        for route, value in common.items():
            votes[route].append(value - factor)
    level = fmean(factors) if factors else 0.0
    return {
        route: math.exp(level + (FILE_WEIGHT * value + sum(votes[route])) / (FILE_WEIGHT + len(votes[route])))
        for route, value in of_file.items()
    }


def adapted(expected: Mapping[int, float], shown: Mapping[int, float]) -> dict[int, float]:
    """The expected seconds with this agent's factor, as the routes that it has driven show it."""
    residuals = [_log(seconds) - _log(expected[route]) for route, seconds in shown.items() if route in expected]
    factor = math.exp(fmean(residuals)) if residuals else 1.0
    return {route: seconds * factor for route, seconds in expected.items()}


def shown_seconds(seen: Observations) -> dict[int, float]:
    """Seconds of each route that was driven to its record, all repetitions together, by the supervisor's own clock."""
    shown: dict[int, float] = {}
    since = None
    for event in seen.events:
        if isinstance(event, SeenStart):
            since = event.ready_at
        elif isinstance(event, SeenRecord):
            if since is not None and not event.by_supervisor:
                seconds = max(_LEAST_SECONDS, (event.at - since).total_seconds())
                earlier = shown.get(event.run.route, 0.0) if event.run.repetition else 0.0
                shown[event.run.route] = earlier + seconds
            since = event.at
    return shown


def start_seconds(seen: Observations, otherwise: float) -> float:
    """How long a start of this pair takes until its simulator is ready."""
    waits = [(start.ready_at - start.began_at).total_seconds() for start in seen.starts if start.ready_at]
    return fmean(waits) if waits else otherwise


def merged_seconds(pairs: Sequence[Observations]) -> dict[int, float]:
    """`shown_seconds` of all pairs of a submission."""
    return {route: seconds for seen in pairs for route, seconds in shown_seconds(seen).items()}


def _log(seconds: float) -> float:
    return math.log(max(_LEAST_SECONDS, seconds))
