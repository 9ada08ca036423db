"""One route's record as a line for people: `route 13 driven: driving score 74.2, one collision with a vehicle, 6 min`.

Minutes and seconds are the machine's (duration_system), not the game's.
"""

from collections.abc import Iterator

from evaluation.results.metrics import Record, spelled
from evaluation.results.quarantine import is_given_up, is_quarantined
from evaluation.results.records import INFRACTIONS
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion

_WORDS = {  # the record's key -> one of them, several
    "collisions_pedestrian": ("collision with a pedestrian", "collisions with pedestrians"),
    "collisions_vehicle": ("collision with a vehicle", "collisions with vehicles"),
    "collisions_layout": ("collision with the layout", "collisions with the layout"),
    "red_light": ("red light infraction", "red light infractions"),
    "stop_infraction": ("stop sign infraction", "stop sign infractions"),
    "outside_route_lanes": ("off-road infraction", "off-road infractions"),
    "min_speed_infractions": ("minimum speed infraction", "minimum speed infractions"),
    "yield_emergency_vehicle_infractions": (
        "failure to yield to an emergency vehicle",
        "failures to yield to emergency vehicles",
    ),
    "scenario_timeouts": ("scenario timeout", "scenario timeouts"),
    "route_dev": ("route deviation", "route deviations"),
    "vehicle_blocked": ("time blocked", "times blocked"),
    "route_timeout": ("route timeout", "route timeouts"),
}
_FAILED = "Failed - "


def route_line(run: RouteRun, record: Record, version: LeaderboardVersion) -> str:
    """What became of the route: its score of 100, its infractions, how long it took. For a checked record."""
    if is_quarantined(record):
        return f"{run} quarantined: driving score 0, the simulator crashed on it again and again"
    if is_given_up(record):
        return f"{run} given up: driving score 0, the agent crashed on it again and again"
    status = str(record["status"])
    ended = f"ended early ({status.removeprefix(_FAILED)})" if status.startswith("Failed") else "driven"
    ended = "begun" if status == "Started" else ended  # 2.x only: its drive has no end yet
    infractions = list(_infractions(record, version)) or ["no infractions"]
    parts = [f"driving score {record['scores']['score_composed']:.1f}", *infractions, *_duration(record)]
    return f"{run} {ended}: {', '.join(parts)}"


def _infractions(record: Record, version: LeaderboardVersion) -> Iterator[str]:
    kept = record["infractions"]
    for key in INFRACTIONS[version]:
        count = len(kept.get(spelled(key, kept), ()))
        if count:
            one, several = _WORDS[key]
            yield f"one {one}" if count == 1 else f"{count} {several}"


def _duration(record: Record) -> list[str]:
    seconds = record["meta"]["duration_system"]
    if seconds <= 0:  # -1 and 0 are "unset"
        return []
    return [f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"]
