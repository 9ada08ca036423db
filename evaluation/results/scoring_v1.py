"""How 1.0 turns records into one result: global record, values, entry status.

Nothing is rounded. Two faults of the official merge are not repeated: it compares a status by identity, which makes
every merged result Failed with all completed routes among its exceptions, and it drops a shard's Crashed or Rejected.
Source: docs/reference/results.md, "How 1.0 merges" and "Faults of the official merge".
"""

import math
from collections.abc import Sequence
from typing import Any

from evaluation.results.metrics import METRICS, Record, metric_values, total
from evaluation.results.records import INFRACTIONS, SENSORS_INVALID, SIMULATION_CRASHED
from evaluation.submission.model import LeaderboardVersion

LABELS = [metric.label for metric in METRICS[LeaderboardVersion.V1]]
_SCORES = ("score_composed", "score_penalty", "score_route")
_STANDSTILL = 1e-9  # km: a route driven for less has no rates. The official limit is 0, where rates become infinite.


def global_record(records: Sequence[Record]) -> dict[str, Any]:
    """The figures over one record or more, in the files' order and with their shards' indices, as 1.0 has it."""
    count = len(records)
    # Summed first, divided once: the published means are equal to the last bit only this way round.
    means = {key: total(record["scores"][key] for record in records) / count for key in _SCORES}
    failed = any(record["status"] != "Completed" for record in records)
    return {
        "index": -1,
        "route_id": -1,
        "status": "Failed" if failed else "Completed",
        "infractions": {key: _rate(records, key) for key in INFRACTIONS[LeaderboardVersion.V1]},
        "scores": means,
        "scores_std_dev": {key: _deviation([record["scores"][key] for record in records], means[key]) for key in means},
        "meta": _meta(records),
    }


def values(figures: Record) -> list[str]:
    return [f"{value:.3f}" for value in metric_values(figures, LeaderboardVersion.V1)]


def entry_status(records: Sequence[Record], shards: Sequence[str]) -> str:
    """Rejected or Crashed if any record or any shard's own entry status says so, Rejected first.

    Ours: the official merge forgets both. Otherwise "Finished", "with agent errors" where a status names the agent.
    """
    statuses = [record["status"] for record in records]
    if "Rejected" in shards or any(SENSORS_INVALID in status for status in statuses):
        return "Rejected"
    if "Crashed" in shards or any(SIMULATION_CRASHED in status for status in statuses):
        return "Crashed"
    return "Finished with agent errors" if any("Agent" in status for status in statuses) else "Finished"


def _deviation(scores: Sequence[float], mean: float) -> float | str:
    """The sample's standard deviation; the text NaN for a single score."""
    if len(scores) == 1:
        return "NaN"
    return math.sqrt(total(math.pow(score - mean, 2) for score in scores) / (len(scores) - 1))


def _rate(records: Sequence[Record], key: str) -> float:
    """The sum of the routes' own rates per kilometre, without the routes on which the car did not move."""
    rate = 0.0
    for record in records:
        kilometres = record["scores"]["score_route"] / 100 * record["meta"]["route_length"] / 1000
        if kilometres > _STANDSTILL:
            rate += len(record["infractions"][key]) / kilometres
    return rate


def _meta(records: Sequence[Record]) -> dict[str, Any]:
    exceptions = [
        [record["route_id"], record["index"], record["status"]] for record in records if record["status"] != "Completed"
    ]
    return {
        "total_length": total(record["meta"]["route_length"] for record in records),
        "duration_game": total(record["meta"]["duration_game"] for record in records),
        "duration_system": total(record["meta"]["duration_system"] for record in records),
        **({"exceptions": exceptions} if exceptions else {}),
    }
