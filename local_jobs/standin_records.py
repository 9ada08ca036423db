"""The records that the stand-in evaluator writes: plausible numbers, drawn from the route and a seed.

Format and penalty factors: docs/reference/results.md, "Records" and "Penalty factors".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

Record = dict[str, Any]

_V2_ONLY = ("min_speed_infractions", "yield_emergency_vehicle_infractions", "scenario_timeouts")
_INFRACTIONS = (
    "collisions_layout",
    "collisions_pedestrian",
    "collisions_vehicle",
    "red_light",
    "stop_infraction",
    "outside_route_lanes",
    *_V2_ONLY,
    "route_dev",
    "vehicle_blocked",
    "route_timeout",
)
# kind -> how likely it happens once on a route, its penalty factor, its message
_MISHAPS: dict[str, tuple[float, float, str]] = {
    "collisions_layout": (0.08, 0.65, "Agent collided against object with type=static.road and id=0 at {at}"),
    "collisions_pedestrian": (
        0.05,
        0.5,
        "Agent collided against object with type=walker.pedestrian.0020 and id=3 at {at}",
    ),
    "collisions_vehicle": (0.2, 0.6, "Agent collided against object with type=vehicle.tesla.model3 and id=63 at {at}"),
    "red_light": (0.1, 0.7, "Agent ran a red light 6454 at {at}"),
    "stop_infraction": (0.1, 0.8, "Agent ran a stop with id=2543 at {at}"),
    "yield_emergency_vehicle_infractions": (0.04, 0.7, "Agent failed to yield to an emergency vehicle at {at}"),
    "scenario_timeouts": (0.05, 0.7, "Agent timed out a scenario at {at}"),
}
# kind of the infraction that ended the route early -> the record's status, the message
_ENDS = {
    "vehicle_blocked": ("Failed - Agent got blocked", "Agent got blocked at {at}"),
    "route_dev": ("Failed - Agent deviated from the route", "Agent deviated from the route at {at}"),
    "route_timeout": ("Failed - Agent timed out", "Route timeout."),
}


@dataclass(frozen=True)
class Route:
    """One repetition of one route. `points` are x, y in metres."""

    id: int
    repetition: int
    points: tuple[tuple[float, float], ...]

    @property
    def length(self) -> float:
        return sum(math.dist(a, b) for a, b in zip(self.points, self.points[1:], strict=False))


def driven_record(route: Route, index: int, version: str, seed: str) -> Record:
    """The record of a route that was driven; the same for the same arguments."""
    random = Random(f"{seed}/{route.id}/{route.repetition}")  # noqa: S311 - a play, no secret
    infractions = _no_infractions(version)
    at = "(x={:.3f}, y={:.3f}, z=0.1)".format(*random.choice(route.points))
    completion, status = 100.0, "Completed"
    if random.random() < 0.2:
        completion = random.uniform(15, 95)
        kind = random.choice(sorted(_ENDS))
        status, message = _ENDS[kind]
        infractions[kind].append(message.format(at=at))
    penalty = _penalty(random, infractions, at, completion * route.length / 100)
    if version != "1.0" and completion == 100 and not any(infractions.values()):
        status = "Perfect"
    driven = completion / 100 * route.length
    game = driven / random.uniform(3, 9)
    meta = {"route_length": route.length, "duration_game": game, "duration_system": game * random.uniform(1.2, 4)}
    scores = {"score_route": completion, "score_penalty": penalty, "score_composed": completion * penalty}
    return _record(route, index, version, status, infractions, scores, meta)


def crashed_record(route: Route, index: int, version: str, status: str) -> Record:
    """The record of a route that the evaluator could not drive."""
    scores = {"score_route": 0.0, "score_penalty": 0.0, "score_composed": 0.0}
    meta = {"route_length": route.length, "duration_game": 0.0, "duration_system": 0.0}
    return _record(route, index, version, status, _no_infractions(version), scores, meta)


def _no_infractions(version: str) -> dict[str, list[str]]:
    return {kind: [] for kind in _INFRACTIONS if version != "1.0" or kind not in _V2_ONLY}


def _penalty(random: Random, infractions: dict[str, list[str]], at: str, metres: float) -> float:
    """Fill in mishaps; the product of their factors."""
    penalty = 1.0
    for kind, (chance, factor, message) in _MISHAPS.items():
        if random.random() < chance and kind in infractions:
            infractions[kind].append(message.format(at=at))
            penalty *= factor
    share = random.uniform(0.5, 6)
    if random.random() < 0.1:
        off_road = f"about {metres * share / 100:.3f} meters ({share:.2f}% of the completed route)"
        infractions["outside_route_lanes"].append(f"Agent went outside its route lanes for {off_road}")
        penalty *= 1 - share / 100
    speed = random.uniform(40, 99)
    if random.random() < 0.3 and "min_speed_infractions" in infractions:
        message = f"Average speed is {speed:.2f}% of the surrounding traffic's one"
        infractions["min_speed_infractions"].append(message)
        penalty *= 1 - 0.3 * (1 - speed / 100)
    return penalty


def _record(
    route: Route,
    index: int,
    version: str,
    status: str,
    infractions: dict[str, list[str]],
    scores: dict[str, float],
    meta: dict[str, float],
) -> Record:
    if version == "1.0":
        return {
            "index": index,
            "route_id": f"RouteScenario_{route.id}",
            "status": status,
            "infractions": infractions,
            "scores": scores,
            "meta": meta,
        }
    return {
        "index": index,
        "route_id": f"RouteScenario_{route.id}_rep{route.repetition}",
        "status": status,
        "num_infractions": sum(map(len, infractions.values())),
        "infractions": infractions,
        "scores": _rounded(scores, lambda value: round(value, 6)),
        "meta": _rounded(meta, lambda value: round(value, 3)),
    }


def _rounded(values: dict[str, float], rounding: Callable[[float], float]) -> dict[str, float]:
    return {name: rounding(value) for name, value in values.items()}
