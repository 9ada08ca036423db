"""How each generation of CARLA's evaluator turns infractions into a penalty, and what a fork of it may change.

Source: docs/reference/results.md, "Penalty factors".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evaluation.results.metrics import EARLY_SPELLING, Record
from evaluation.results.records import INFRACTIONS
from evaluation.submission.model import LeaderboardVersion

_FACTORS = {  # of one infraction; off-road and minimum speed: of 0 %
    "collisions_pedestrian": 0.5,
    "collisions_vehicle": 0.6,
    "collisions_layout": 0.65,
    "red_light": 0.7,
    "stop_infraction": 0.8,
    "scenario_timeouts": 0.7,
    "yield_emergency_vehicle_infractions": 0.7,
    "min_speed_infractions": 0.7,
}
_COEFFICIENTS = {  # 2.1: 1 / (1 + their sum)
    "collisions_pedestrian": 1.0,
    "collisions_vehicle": 0.7,
    "collisions_layout": 0.6,
    "red_light": 0.4,
    "stop_infraction": 0.25,
    "scenario_timeouts": 0.4,
    "yield_emergency_vehicle_infractions": 0.4,
    "min_speed_infractions": 0.4,
}
OFF_ROAD, _MIN_SPEED = "outside_route_lanes", "min_speed_infractions"
_PERCENTAGE = re.compile(r"(?<![^\s(])([0-9]{1,12}(?:\.[0-9]{1,12})?)%")
_PLAIN = {early: key for key, early in EARLY_SPELLING.items()}
_ROUNDED_TO = 0.005  # per cent: messages have two digits, the evaluator computes with all
MAP = "carla_opendrive_map"
QUALIFIER = "_QUALIFIER"
_SENSORS_V1 = {"carla_camera": 4, "carla_lidar": 1, "carla_radar": 2}
_SENSORS_V2 = {"carla_camera": 8, "carla_lidar": 2, "carla_radar": 4}
_ONCE = {"carla_gnss": 1, "carla_imu": 1, "carla_opendrive_map": 1, "carla_speedometer": 1}


@dataclass(frozen=True)
class Scoring:
    """One evaluator's rules. `weights`: a factor for each infraction, or 2.1's coefficients where `additive`."""

    name: str
    version: LeaderboardVersion
    weights: Mapping[str, float]
    additive: bool
    sensors: Mapping[str, int]  # how many of each an agent may have
    qualifier_sensors: Mapping[str, int] = field(default_factory=dict)  # 2.1's tracks whose name ends with QUALIFIER

    def changed(self, weights: Mapping[str, float], sensors: Mapping[str, int]) -> "Scoring":
        """The rules of a fork of this evaluator."""
        return replace(self, weights={**self.weights, **weights}, sensors={**self.sensors, **sensors})

    def sensors_of(self, track: str) -> dict[str, int]:
        """How many of each sensor an agent may have in this track."""
        limits = self.qualifier_sensors if track.endswith(QUALIFIER) and self.qualifier_sensors else self.sensors
        return {sensor: most for sensor, most in limits.items() if sensor != MAP or track.startswith("MAP")}

    def penalty_range(self, record: Record) -> tuple[float, float]:
        """The least and the most that the infractions of a record leave, given that messages round percentages.

        Raises ValueError with a sentence for a message that names no percentage, or an infraction without a weight.
        """
        low = high = 1.0
        sum_low = sum_high = 0.0
        infractions: Mapping[str, Any] = record["infractions"]
        for kind, messages in infractions.items():
            key = _PLAIN.get(kind, kind)
            for message in self._known(key, messages):
                if key == OFF_ROAD:
                    percent = percentage(message)
                    low *= _share_left(percent + _ROUNDED_TO)
                    high *= _share_left(percent - _ROUNDED_TO)
                elif self.additive:
                    sum_low += self._coefficient(key, message, -_ROUNDED_TO)
                    sum_high += self._coefficient(key, message, _ROUNDED_TO)
                else:
                    low *= self._factor(key, message, -_ROUNDED_TO)
                    high *= self._factor(key, message, _ROUNDED_TO)
        return low / (1 + sum_high), high / (1 + sum_low)

    def _known(self, key: str, messages: object) -> list[str]:
        """The messages of an infraction that this evaluator reports, or that `weights` of a fork names."""
        if not messages:
            return []
        if not isinstance(messages, list) or not (key in INFRACTIONS[self.version] or key in self.weights):
            raise ValueError(f"it has an infraction {key[:40]!r}, which the scoring of {self.name} does not know")
        return [str(message) for message in messages]

    def _factor(self, key: str, message: str, shift: float) -> float:
        weight = self.weights.get(key, 1.0)
        return 1 - (1 - weight) * _missing_speed(message, -shift) if key == _MIN_SPEED and weight < 1 else weight

    def _coefficient(self, key: str, message: str, shift: float) -> float:
        weight = self.weights.get(key, 0.0)
        return weight * _missing_speed(message, shift) if key == _MIN_SPEED and weight else weight


def _share_left(percent: float) -> float:
    return min(1.0, max(0.0, 1 - percent / 100))


def _missing_speed(message: str, shift: float) -> float:
    """What is missing of the traffic's speed, 0 to 1; an evaluator reports no more than its whole speed."""
    return min(1.0, max(0.0, 1 - percentage(message) / 100 + shift / 100))


def percentage(message: str) -> float:
    """The one percentage that the message names; raises ValueError with a sentence."""
    found = _PERCENTAGE.findall(message)
    if len(found) != 1:
        raise ValueError(f"its message names no percentage: {message[:80]!r}")
    return float(found[0])


V1, V2 = LeaderboardVersion.V1, LeaderboardVersion.V2
_V1_FACTORS = {key: factor for key, factor in _FACTORS.items() if key in INFRACTIONS[V1]}
SCORINGS = {
    "1.0": Scoring("1.0", V1, _V1_FACTORS, False, _SENSORS_V1 | _ONCE),
    "2.0": Scoring("2.0", V2, _FACTORS, False, _SENSORS_V2 | _ONCE, _SENSORS_V1 | _ONCE),
    "2.1": Scoring("2.1", V2, _COEFFICIENTS, True, _SENSORS_V2 | _ONCE, _SENSORS_V1 | _ONCE),
}


def scoring_of(version: LeaderboardVersion, name: str | None = None) -> Scoring:
    """The rules of that name, by default those of the version (master scores as 2.0 does)."""
    return SCORINGS[name or version.value]
