"""The figures of a result: EvalAI's name, the file's label, and where the global record holds each.

Source: docs/reference/results.md, "Metrics". 1.0 knows the first twelve only.
"""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from evaluation.submission.model import LeaderboardVersion

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    name: str  # EvalAI's
    label: str  # the result file's
    key: str  # in the global record's means or infractions


SCORES = (
    Metric("Driving score", "Avg. driving score", "score_composed"),
    Metric("Route completion", "Avg. route completion", "score_route"),
    Metric("Infraction penalty", "Avg. infraction penalty", "score_penalty"),
)
_COUNTED_BY_BOTH = (
    Metric("Collisions pedestrians", "Collisions with pedestrians", "collisions_pedestrian"),
    Metric("Collisions vehicles", "Collisions with vehicles", "collisions_vehicle"),
    Metric("Collisions layout", "Collisions with layout", "collisions_layout"),
    Metric("Red light infractions", "Red lights infractions", "red_light"),
    Metric("Stop sign infractions", "Stop sign infractions", "stop_infraction"),
    Metric("Off-road infractions", "Off-road infractions", "outside_route_lanes"),
    Metric("Route deviations", "Route deviations", "route_dev"),
    Metric("Route timeouts", "Route timeouts", "route_timeout"),
    Metric("Agent blocked", "Agent blocked", "vehicle_blocked"),
)
_COUNTED_BY_V2 = (
    Metric(
        "Yield emergency vehicle infractions",
        "Yield emergency vehicles infractions",
        "yield_emergency_vehicle_infractions",
    ),
    Metric("Scenario timeouts", "Scenario timeouts", "scenario_timeouts"),
    Metric("Min speed infractions", "Min speed infractions", "min_speed_infractions"),
)
METRICS = {
    LeaderboardVersion.V1: SCORES + _COUNTED_BY_BOTH,
    LeaderboardVersion.V2: SCORES + _COUNTED_BY_BOTH + _COUNTED_BY_V2,
}
EARLY_SPELLING = {"yield_emergency_vehicle_infractions": "yield_emergency_vehicles_infractions"}  # early 2.0


def spelled(key: str, infractions: Mapping[str, object]) -> str:
    """The key as this mapping spells it: early 2.0 wrote one of them differently."""
    early = EARLY_SPELLING.get(key, key)
    return early if key not in infractions and early in infractions else key


def metric_values(global_record: Record, version: LeaderboardVersion) -> list[float]:
    """The global record's figures, unformatted, in the order of METRICS."""
    means = global_record["scores" if version is LeaderboardVersion.V1 else "scores_mean"]
    infractions = global_record["infractions"]
    keys = [metric.key for metric in METRICS[version]]
    return [means[key] if key in means else infractions[spelled(key, infractions)] for key in keys]


def total(numbers: Iterable[float]) -> float:
    """Plain addition from left to right, as the official merge adds; since Python 3.12 `sum` compensates."""
    return reduce(operator.add, numbers, 0)
