"""A route's record as a line of a log."""

from typing import Any

import pytest

from evaluation.results.records import INFRACTIONS, crashed_record
from evaluation.results.route_line import route_line
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion

V2 = LeaderboardVersion.V2
RUN = RouteRun(13)


def record(score: float, seconds: float, status: str = "Completed", **infractions: int) -> dict[str, Any]:
    made = crashed_record(RUN, 0, V2, status)
    made["scores"] = {"score_route": 100.0, "score_penalty": 1.0, "score_composed": score}
    made["meta"]["duration_system"] = seconds
    made["infractions"] |= {key: ["what happened"] * count for key, count in infractions.items()}
    return made


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            record(74.21, 371, collisions_vehicle=1),
            "route 13 driven: driving score 74.2, one collision with a vehicle, 6 min",
        ),
        (record(0, -1, "Started"), "route 13 begun: driving score 0.0, no infractions"),
        (record(100, 45), "route 13 driven: driving score 100.0, no infractions, 45 s"),
        (
            record(3.5, -1, "Failed - Agent got blocked", red_light=2, vehicle_blocked=1),
            "route 13 ended early (Agent got blocked): driving score 3.5, 2 red light infractions, one time blocked",
        ),
        (record(0, 60, "Failed"), "route 13 ended early (Failed): driving score 0.0, no infractions, 60 s"),
        (
            crashed_record(RUN, 0, V2),
            "route 13 quarantined: driving score 0, the simulator crashed on it again and again",
        ),
        (
            crashed_record(RUN, 0, V2, "Failed - Agent crashed"),
            "route 13 given up: driving score 0, the agent crashed on it again and again",
        ),
    ],
)
def test_score_infractions_and_duration_are_named_with_their_units(given: dict[str, Any], line: str) -> None:
    assert route_line(RUN, given, V2) == line


@pytest.mark.parametrize("version", list(LeaderboardVersion))
def test_every_kind_of_infraction_has_words(version: LeaderboardVersion) -> None:
    made = crashed_record(RouteRun(1, 2), 0, version, "Completed")
    made["infractions"] = {key: ["once"] for key in INFRACTIONS[version]}

    assert route_line(RouteRun(1, 2), made, version).count("one ") == len(INFRACTIONS[version])
