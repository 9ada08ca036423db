import math

import pytest

from evaluation.errors import InvalidCheckpoint
from evaluation.results.evalai_result import LABELS, accuracies, evalai_result, partial_result
from evaluation.results.merge import merge
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_checkpoint, make_checkpoint, make_document, make_record


@pytest.mark.parametrize(("version", "count"), [(V1, 12), (V2, 15)])
def test_result_names_every_metric_of_the_phase_as_a_plain_number(version: LeaderboardVersion, count: int) -> None:
    half = {"score_route": 50.0, "score_penalty": 0.5, "score_composed": 25.0}
    record = make_record(RouteRun(0), 0, version, scores=half, infractions={"red_light": ["one"]})
    checkpoint = as_checkpoint(make_document([record]), version)
    merged = merge([("a.json", checkpoint)], [RouteRun(0)], version)

    form = evalai_result(merged.document, version)

    figures = accuracies(merged.document, version)
    assert form == [{"split": "leaderboard", "show_to_participant": True, "accuracies": figures}]
    assert list(figures) == list(LABELS[version])
    assert len(figures) == count
    assert all(type(value) is float and math.isfinite(value) for value in figures.values())
    assert figures["Driving score"] == 25.0
    assert figures["Route completion"] == 50.0
    assert figures["Infraction penalty"] == 0.5
    assert figures["Red light infractions"] == 2.0


def test_labels_are_those_of_the_leaderboard() -> None:
    assert LABELS[V2] == (
        "Driving score",
        "Route completion",
        "Infraction penalty",
        "Collisions pedestrians",
        "Collisions vehicles",
        "Collisions layout",
        "Red light infractions",
        "Stop sign infractions",
        "Off-road infractions",
        "Route deviations",
        "Route timeouts",
        "Agent blocked",
        "Yield emergency vehicle infractions",
        "Scenario timeouts",
        "Min speed infractions",
    )
    assert LABELS[V1] == LABELS[V2][:12]


@pytest.mark.parametrize("version", [V1, V2])
def test_each_infraction_reaches_its_own_metric(version: LeaderboardVersion) -> None:
    kinds = {
        "collisions_pedestrian": "Collisions pedestrians",
        "collisions_vehicle": "Collisions vehicles",
        "collisions_layout": "Collisions layout",
        "stop_infraction": "Stop sign infractions",
        "route_dev": "Route deviations",
        "route_timeout": "Route timeouts",
        "vehicle_blocked": "Agent blocked",
        "yield_emergency_vehicle_infractions": "Yield emergency vehicle infractions",
        "scenario_timeouts": "Scenario timeouts",
        "min_speed_infractions": "Min speed infractions",
    }
    for key, label in list(kinds.items())[: 7 if version is V1 else None]:
        record = make_record(RouteRun(0), 0, version, infractions={key: ["one"]})
        merged = merge([("a", as_checkpoint(make_document([record]), version))], [RouteRun(0)], version)
        raised = {name for name, value in accuracies(merged.document, version).items() if value == 1.0}
        assert raised - {"Infraction penalty"} == {label}


@pytest.mark.parametrize("version", [V1, V2])
def test_incomplete_set_has_no_result_but_a_partial_one(version: LeaderboardVersion) -> None:
    half = {"score_route": 50.0, "score_penalty": 1.0, "score_composed": 50.0}
    second = make_record(RouteRun(1), 1, version, scores=half, infractions={"red_light": ["a", "b", "c"]})
    records = [make_record(RouteRun(0), 0, version), second]
    checkpoint = as_checkpoint(make_document(records, total=20), version)
    merged = merge([("a.json", checkpoint)], expand(range(20), 1), version)

    with pytest.raises(InvalidCheckpoint, match="2 of 20 routes"):
        evalai_result(merged.document, version)

    (split,) = partial_result(merged)
    figures = split["accuracies"]
    assert isinstance(figures, dict)
    assert list(figures) == list(LABELS[version])
    assert figures["Driving score"] == pytest.approx(7.5)  # 100 and 50, and 18 routes that count as 0 so far
    assert figures["Infraction penalty"] == pytest.approx(0.1)
    assert figures["Red light infractions"] == (2.0 if version is V2 else 6.0)  # per driven kilometre


@pytest.mark.parametrize("version", [V1, V2])
def test_partial_result_of_a_complete_set_is_the_result(version: LeaderboardVersion) -> None:
    merged = merge([("a.json", make_checkpoint([RouteRun(0)], version))], [RouteRun(0)], version)
    assert partial_result(merged) == evalai_result(merged.document, version)


def test_before_the_first_route_there_is_no_partial_result() -> None:
    assert partial_result(merge([], [RouteRun(0)], V2)) == []
