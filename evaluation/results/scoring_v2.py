"""How 2.x turns records into one result: global record, values, entry status.

Sums run in the order of the records and round where the official evaluator does: the output is equal to the last bit.
Source: docs/reference/results.md, "How 2.x merges".
"""

import math
from collections.abc import Sequence
from typing import Any

from evaluation.results.metrics import METRICS, Record, metric_values, spelled, total
from evaluation.results.records import INFRACTIONS, SENSORS_INVALID, SIMULATION_CRASHED, metres_outside
from evaluation.submission.model import LeaderboardVersion

LABELS = [metric.label for metric in METRICS[LeaderboardVersion.V2]]
_SCORES = ("score_composed", "score_route", "score_penalty")
_KEYS = ("index", "route_id", "status", "num_infractions", "infractions", "scores", "meta")


def in_file_order(record: Record, index: int) -> dict[str, Any]:
    """The record with its new index, keys in the official order, unknown ones last."""
    extras = {key: value for key, value in record.items() if key not in _KEYS}
    return {**{key: record[key] for key in _KEYS}, **extras, "index": index}


def global_record(records: Sequence[Record]) -> dict[str, Any]:
    """The figures over one record or more, which are sorted and reindexed already."""
    means = {key: round(total(record["scores"][key] / len(records) for record in records), 6) for key in _SCORES}
    return {
        "index": -1,
        "route_id": -1,
        "status": _status(records),
        "infractions": _infractions(records),
        "scores_mean": means,
        "scores_std_dev": {key: _deviation([record["scores"][key] for record in records], means[key]) for key in means},
        "meta": _meta(records),
    }


def values(figures: Record) -> list[str]:
    return [str(value) for value in metric_values(figures, LeaderboardVersion.V2)]


def entry_status(records: Sequence[Record], sensors: Sequence[str]) -> str:
    """Finished, Crashed, Rejected (the last record that says so decides) or Invalid."""
    if not sensors or any(record["status"] == "Started" for record in records):
        return "Invalid"
    entry = "Finished"
    for record in records:
        if SIMULATION_CRASHED in record["status"]:
            entry = "Crashed"
        elif SENSORS_INVALID in record["status"]:
            entry = "Rejected"
    return entry


def _status(records: Sequence[Record]) -> str:
    statuses = [record["status"] for record in records]
    if any("Failed" in status for status in statuses):
        return "Failed"
    return next((status for status in statuses if status != "Perfect"), "Perfect")


def _deviation(scores: Sequence[float], mean: float) -> float:
    """The sample's standard deviation about the rounded mean; integer 0 for a single score."""
    if len(scores) == 1:
        return 0
    return round(math.sqrt(total(math.pow(score - mean, 2) for score in scores) / (len(scores) - 1)), 3)


def _infractions(records: Sequence[Record]) -> dict[str, float]:
    """Rates per driven kilometre, but for the kilometres outside the lanes, which are absolute."""
    driven = total(record["meta"]["route_length"] / 1000 * record["scores"]["score_route"] / 100 for record in records)
    kilometres = max(driven, 0.001)
    rates: dict[str, float] = {}
    for plain in INFRACTIONS[LeaderboardVersion.V2]:
        key = spelled(plain, records[0]["infractions"])
        if key == "outside_route_lanes":
            rates[key] = round(total((metres_outside(record) or 0.0) / 1000 for record in records), 3)
        else:
            counts = (len(record["infractions"][spelled(plain, record["infractions"])]) for record in records)
            rates[key] = round(total(counts) / kilometres, 3)
    return rates


def _meta(records: Sequence[Record]) -> dict[str, Any]:
    return {
        "total_length": total(record["meta"]["route_length"] for record in records),
        "duration_game": total(record["meta"]["duration_game"] for record in records),
        "duration_system": total(record["meta"]["duration_system"] for record in records),
        "exceptions": [
            [record["route_id"], record["index"], record["status"]]
            for record in records
            if "Failed" in record["status"]
        ],
    }
