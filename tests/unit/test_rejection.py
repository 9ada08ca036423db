"""What may be called finished, and what may not although every route has its record."""

import pytest

from evaluation.errors import Fault
from evaluation.results.merge import Merged, merge
from evaluation.results.rejection import rejection
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_checkpoint, make_document, make_record

SETUP, SENSORS = "Failed - Agent couldn't be set up", "Failed - Agent's sensors were invalid"


def merged(
    *statuses: str, version: LeaderboardVersion = V2, sensors: tuple[str, ...] = ("carla_gnss",), expected: int = 0
) -> Merged:
    runs = [RouteRun(route) for route in range(expected or len(statuses))]
    records = []
    for index, status in enumerate(statuses):
        record = make_record(runs[index], index, version)
        zeros = {} if status == "Completed" else {"scores": dict.fromkeys(record["scores"], 0.0)}
        records.append({**record, "status": status, **zeros})
    document = {**make_document(records, total=len(runs)), "sensors": list(sensors)}
    return merge([("a.json", as_checkpoint(document, version))], runs, version)


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("sensors", [(), ("carla_gnss",)])
def test_a_set_up_that_fails_on_every_route_is_the_teams_failure(
    version: LeaderboardVersion, sensors: tuple[str, ...]
) -> None:
    failure = rejection(merged(SETUP, SETUP, version=version, sensors=sensors))

    assert failure
    assert (failure.summary, failure.fault) == ("The agent could not be set up", Fault.TEAM)
    assert failure.cause == "the evaluator reported it on 2 of 2 routes"


@pytest.mark.parametrize("version", [V1, V2])
def test_a_set_up_that_fails_on_one_route_counts_0_there(version: LeaderboardVersion) -> None:
    assert rejection(merged("Completed", SETUP, version=version)) is None


@pytest.mark.parametrize("version", [V1, V2])
def test_invalid_sensors_are_the_teams_failure(version: LeaderboardVersion) -> None:
    failure = rejection(merged("Completed", SENSORS, version=version))

    assert failure
    assert (failure.summary, failure.fault) == ("The agent's sensors are invalid", Fault.TEAM)
    assert "RouteScenario_1" in failure.cause


@pytest.mark.parametrize("version", [V1, V2])
def test_a_quarantined_route_is_scored_0_in_a_finished_result(version: LeaderboardVersion) -> None:
    assert rejection(merged("Completed", "Failed - Simulation crashed", version=version)) is None


@pytest.mark.parametrize(
    ("statuses", "sensors", "why"),
    [(("Completed", "Started"), ("carla_gnss",), "Started"), (("Completed",), (), "sensors")],
)
def test_an_invalid_result_is_no_score_and_not_the_teams_fault(
    statuses: tuple[str, ...], sensors: tuple[str, ...], why: str
) -> None:
    failure = rejection(merged(*statuses, sensors=sensors))

    assert failure
    assert failure.fault is Fault.INFRASTRUCTURE
    assert why in failure.cause


def test_an_incomplete_result_is_for_others_to_judge() -> None:
    assert rejection(merged(SETUP, expected=2)) is None
