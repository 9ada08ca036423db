"""The result as EvalAI takes it: one split with one number for each metric of the phase.

Source: docs/reference/results.md, "What EvalAI is sent"; EvalAI refuses unknown metrics and all but numbers.
"""

from collections.abc import Mapping
from typing import Any

from evaluation.errors import InvalidCheckpoint
from evaluation.results.merge import Merged, global_record
from evaluation.results.metrics import METRICS, SCORES, Record, metric_values
from evaluation.submission.model import LeaderboardVersion

SPLIT = "leaderboard"
LABELS_V1 = tuple(metric.name for metric in METRICS[LeaderboardVersion.V1])
LABELS_V2 = tuple(metric.name for metric in METRICS[LeaderboardVersion.V2])
LABELS = {LeaderboardVersion.V1: LABELS_V1, LeaderboardVersion.V2: LABELS_V2}


def evalai_result(document: Mapping[str, Any], version: LeaderboardVersion) -> list[dict[str, object]]:
    """EvalAI's form of a merged file; raises InvalidCheckpoint if that is incomplete."""
    return _form(accuracies(document, version))


def accuracies(document: Mapping[str, Any], version: LeaderboardVersion) -> dict[str, float]:
    """The metrics by EvalAI's names, scores from 0 to 100 or 1, rates per kilometre; raises as `evalai_result`."""
    figures = document["_checkpoint"]["global_record"]
    if not figures:
        done, total = document["_checkpoint"]["progress"]
        raise InvalidCheckpoint("The result has no figures", f"{done} of {total} routes are there", "Resume it.")
    return _named(figures, version)


def partial_result(merged: Merged) -> list[dict[str, object]]:
    """The form of what is driven so far. Empty before the first route.

    In the three scores a route to come counts as 0: they only rise, so that a partial row never outranks a finished
    one. Infractions are per kilometre driven.
    """
    records = merged.document["_checkpoint"]["records"]
    if not records:
        return []
    driven = len(records) / (len(records) + len(merged.missing))
    metrics = _named(global_record(records, merged.version), merged.version)
    scores = {metric.name for metric in SCORES}
    return _form({name: value * driven if name in scores else value for name, value in metrics.items()})


def _form(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    return [{"split": SPLIT, "show_to_participant": True, "accuracies": dict(metrics)}]


def _named(figures: Record, version: LeaderboardVersion) -> dict[str, float]:
    values = (float(value) for value in metric_values(figures, version))
    return dict(zip(LABELS[version], values, strict=True))
