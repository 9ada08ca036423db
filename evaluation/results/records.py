"""One route's record in a checkpoint: its format in both versions, and the check that a file keeps to it.

Source: docs/reference/results.md, "Records". Keys that the format does not know are kept and never read.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from evaluation.errors import InvalidCheckpoint
from evaluation.results.metrics import Record, spelled
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion

SIMULATION_CRASHED = "Simulation crashed"
SENSORS_INVALID = "Agent's sensors were invalid"
SETUP_FAILED = "Agent couldn't be set up"

_V1_INFRACTIONS = (
    "collisions_layout",
    "collisions_pedestrian",
    "collisions_vehicle",
    "red_light",
    "stop_infraction",
    "outside_route_lanes",
    "route_dev",
    "vehicle_blocked",
    "route_timeout",
)
_V2_INFRACTIONS = (
    *_V1_INFRACTIONS[:6],
    "min_speed_infractions",
    "yield_emergency_vehicle_infractions",
    "scenario_timeouts",
    *_V1_INFRACTIONS[6:],
)
INFRACTIONS = {LeaderboardVersion.V1: _V1_INFRACTIONS, LeaderboardVersion.V2: _V2_INFRACTIONS}
SCORES = {"score_route": 100.0, "score_penalty": 1.0, "score_composed": 100.0}  # each with its maximum; in file order
META = {"route_length": 0.0, "duration_game": -1.0, "duration_system": -1.0}  # each with its minimum; -1 is "unset"

_ROUTE_ID = re.compile(r"RouteScenario_(0|[1-9][0-9]{0,8})(?:_rep(0|[1-9][0-9]{0,8}))?")
_STATUS = {
    LeaderboardVersion.V1: re.compile(r"Completed|Failed( - .{1,200})?"),
    LeaderboardVersion.V2: re.compile(r"Completed|Perfect|Started|Failed( - .{1,200})?"),
}
_METRES = re.compile(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]{1,3})?", re.ASCII)  # as Python writes a float
_MOST = 1e9  # metres, seconds; beyond it a figure is no measurement
REMEDY = "Put the shard's last good checkpoint in its place, or drive the shard again."


def count_driven(records: Sequence[Record]) -> int:
    """How many of the routes the agent drove, if only for a moment: it was set up, and its sensors were allowed."""
    return sum(SENSORS_INVALID not in record["status"] and SETUP_FAILED not in record["status"] for record in records)


def refuse(source: str, field: str, problem: str, remedy: str = REMEDY) -> NoReturn:
    raise InvalidCheckpoint(f"{source}: {field} {problem}", remedy=remedy)


def shown(value: object) -> str:
    """A value for a one-line message: containers by their kind only, since they may be of any size."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def member(content: Mapping[str, Any], key: str, kind: type, source: str, field: str) -> Any:
    """The member of an object if it is there and of this JSON kind, else a refusal; booleans are no numbers."""
    if key not in content:
        refuse(source, f"{field}{key}", "is missing")
    value = content[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = {dict: "an object", list: "a list", str: "text", int: "a whole number", bool: "true or false"}
        refuse(source, f"{field}{key}", f"must be {kinds[kind]}, not {shown(value)}")
    return value


def texts(content: Mapping[str, Any], key: str, source: str, field: str) -> list[str]:
    values: list[str] = member(content, key, list, source, field)
    for position, value in enumerate(values):
        if not isinstance(value, str):
            refuse(source, f"{field}{key}[{position}]", f"must be text, not {shown(value)}")
    return values


def check_record(record: Record, position: int, version: LeaderboardVersion, source: str) -> None:
    """Check everything but the route id; raises InvalidCheckpoint that names `source` and the field."""
    field = f"_checkpoint.records[{position}]."
    index = member(record, "index", int, source, field)
    if index != position:
        refuse(source, f"{field}index", f"must be {position}, its place in the list, not {shown(index)}")
    status = member(record, "status", str, source, field)
    if not (_STATUS[version].fullmatch(status) and status.isprintable()):
        refuse(source, f"{field}status", f"must be Completed, Failed or Failed - <why>, not {shown(status)}")
    for key, most in SCORES.items():
        _number(member(record, "scores", dict, source, field), key, 0.0, most, source, f"{field}scores.")
    for key, least in META.items():
        _number(member(record, "meta", dict, source, field), key, least, _MOST, source, f"{field}meta.")
    _check_infractions(record, version, source, field)


def _number(content: Mapping[str, Any], key: str, least: float, most: float, source: str, field: str) -> None:
    value = content.get(key)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]  # a number by now; NaN compares false
        problem = f"must be a number from {least:g} to {most:g}, not {shown(value)}" if key in content else "is missing"
        refuse(source, f"{field}{key}", problem)


def _check_infractions(record: Record, version: LeaderboardVersion, source: str, field: str) -> None:
    infractions = member(record, "infractions", dict, source, field)
    for key in INFRACTIONS[version]:
        texts(infractions, spelled(key, infractions), source, f"{field}infractions.")
    if version is LeaderboardVersion.V1:
        return
    kept = sum(len(messages) for messages in infractions.values() if isinstance(messages, list))
    count = member(record, "num_infractions", int, source, field)
    if count != kept:
        refuse(source, f"{field}num_infractions", f"must be {kept}, the number of messages, not {shown(count)}")
    if metres_outside(record) is None:
        message = infractions["outside_route_lanes"][0]
        problem = f"must name the metres as its ninth word, not {shown(message)}"
        refuse(source, f"{field}infractions.outside_route_lanes[0]", problem)


def metres_outside(record: Record) -> float | None:
    """Metres outside the lanes: the ninth word of the first message, 0 without one; None where that is no distance."""
    messages = record["infractions"]["outside_route_lanes"]
    if not messages:
        return 0.0
    words = messages[0].split(" ")
    if len(words) <= 8 or not _METRES.fullmatch(words[8]):
        return None
    metres = float(words[8])
    return metres if metres <= _MOST else None


def runs_of(records: Sequence[object], version: LeaderboardVersion, source: str) -> tuple[RouteRun, ...]:
    """Which repetition of which route each record is of; raises InvalidCheckpoint.

    1.0 writes the same id for each repetition of a route: the k-th of them in the file is repetition k.
    """
    runs: dict[RouteRun, None] = {}  # in order
    seen: dict[int, int] = {}
    for position, record in enumerate(records):
        field = f"_checkpoint.records[{position}].route_id"
        if not isinstance(record, dict):
            refuse(source, f"_checkpoint.records[{position}]", f"must be an object, not {shown(record)}")
        route_id = record.get("route_id")
        match = _ROUTE_ID.fullmatch(route_id) if isinstance(route_id, str) else None
        if match is None or (match[2] is None) is not (version is LeaderboardVersion.V1):
            form = "RouteScenario_<id>" if version is LeaderboardVersion.V1 else "RouteScenario_<id>_rep<k>"
            refuse(source, field, f"must be {form} in a file of {version.value}, not {shown(route_id)}")
        route = int(match[1])
        run = RouteRun(route, seen.get(route, 0) if match[2] is None else int(match[2]))
        if run in runs:
            refuse(source, field, f"names {shown(route_id)} twice")
        seen[route] = seen.get(route, 0) + 1
        runs[run] = None
    return tuple(runs)


def route_id(run: RouteRun, version: LeaderboardVersion) -> str:
    """The id as the evaluator writes it."""
    return f"RouteScenario_{run.route}" + (f"_rep{run.repetition}" if version is LeaderboardVersion.V2 else "")


def crashed_record(
    run: RouteRun, index: int, version: LeaderboardVersion, status: str = f"Failed - {SIMULATION_CRASHED}"
) -> dict[str, Any]:
    """A record with nothing but zeros, as the evaluator would write one for a route that it never drove."""
    infractions: dict[str, list[str]] = {key: [] for key in INFRACTIONS[version]}
    count = {"num_infractions": 0} if version is LeaderboardVersion.V2 else {}
    return {
        "index": index,
        "route_id": route_id(run, version),
        "status": status,
        **count,
        "infractions": infractions,
        "scores": dict.fromkeys(SCORES, 0.0),
        "meta": dict.fromkeys(META, 0.0),
    }
