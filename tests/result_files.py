"""Made-up checkpoints in the exact file format, for tests."""

import json
from typing import Any

from evaluation.results.checkpoint import Checkpoint
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.records import INFRACTIONS, route_id
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion

V1, V2 = LeaderboardVersion.V1, LeaderboardVersion.V2
SENSORS = ["carla_camera", "carla_gnss"]


def make_record(run: RouteRun, index: int = 0, version: LeaderboardVersion = V2, **changes: Any) -> dict[str, Any]:
    """A completed route; `changes` replace whole members, e.g. status or scores."""
    infractions: dict[str, list[str]] = {key: [] for key in INFRACTIONS[version]} | changes.pop("infractions", {})
    count = {"num_infractions": sum(map(len, infractions.values()))} if version is V2 else {}
    record: dict[str, Any] = {
        "index": index,
        "route_id": route_id(run, version),
        "status": "Completed",
        **count,
        "infractions": infractions,
        "scores": {"score_route": 100.0, "score_penalty": 1.0, "score_composed": 100.0},
        "meta": {"route_length": 1000.0, "duration_game": 50.0, "duration_system": 100.0},
    }
    return record | changes


def make_document(
    records: list[dict[str, Any]], total: int | None = None, sensors: list[str] | None = None, entry: str = "Started"
) -> dict[str, Any]:
    count = len(records)
    return {
        "_checkpoint": {
            "global_record": {},
            "progress": [count, count if total is None else total],
            "records": records,
        },
        "entry_status": entry,
        "eligible": False,
        "sensors": list(SENSORS if sensors is None else sensors),
        "values": [],
        "labels": [],
    }


def make_checkpoint(
    runs: list[RouteRun], version: LeaderboardVersion = V2, total: int | None = None, **members: Any
) -> Checkpoint:
    records = [make_record(run, index, version) for index, run in enumerate(runs)]
    return as_checkpoint(make_document(records, total, **members), version)


def as_checkpoint(document: dict[str, Any], version: LeaderboardVersion = V2, source: str = "a.json") -> Checkpoint:
    """Through the real reader, so that no test works on what could not come from a file."""
    return parse_checkpoint(render_document(document, version).encode(), source, version)


def as_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()
