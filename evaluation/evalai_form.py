"""The result as EvalAI takes it: one split with one number for each metric of the phase.

Source: contracts/carla-results.md, section 4; EvalAI refuses unknown metrics and anything that is no number.
"""

from collections.abc import Mapping
from typing import Any

from evaluation.errors import InvalidCheckpoint
from evaluation.merge import Merged, global_record
from evaluation.metrics import METRICS, Record, metric_values
from evaluation.submission import Generation

SPLIT = "leaderboard"
LABELS_V1 = tuple(metric.name for metric in METRICS[Generation.V1])
LABELS_V2 = tuple(metric.name for metric in METRICS[Generation.V2])
LABELS = {Generation.V1: LABELS_V1, Generation.V2: LABELS_V2}


def evalai_result(document: Mapping[str, Any], generation: Generation) -> list[dict[str, object]]:
    """EvalAI's form of a merged file; raises InvalidCheckpoint if that is incomplete."""
    return _form(accuracies(document, generation))


def accuracies(document: Mapping[str, Any], generation: Generation) -> dict[str, float]:
    """The metrics by EvalAI's names, scores from 0 to 100 or 1, rates per kilometre; raises as `evalai_result`."""
    figures = document["_checkpoint"]["global_record"]
    if not figures:
        done, total = document["_checkpoint"]["progress"]
        raise InvalidCheckpoint("The result has no figures", f"{done} of {total} routes are there", "Resume it.")
    return _named(figures, generation)


def partial_result(merged: Merged) -> list[dict[str, object]]:
    """The form over the routes driven so far, as if these were all: means over them, rates over their kilometres.

    Routes to come do not count, not even as zero, so each figure can still rise or fall. Empty before the first route.
    """
    records = merged.document["_checkpoint"]["records"]
    return _form(_named(global_record(records, merged.generation), merged.generation)) if records else []


def _form(metrics: Mapping[str, float]) -> list[dict[str, object]]:
    return [{"split": SPLIT, "show_to_participant": True, "accuracies": dict(metrics)}]


def _named(figures: Record, generation: Generation) -> dict[str, float]:
    values = (float(value) for value in metric_values(figures, generation))
    return dict(zip(LABELS[generation], values, strict=True))
