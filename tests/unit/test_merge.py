import copy
from typing import Any

import pytest

from evaluation.errors import InvalidCheckpoint, InvalidConfiguration
from evaluation.results.checkpoint import Checkpoint
from evaluation.results.merge import Part, merge
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_checkpoint, make_checkpoint, make_document, make_record

OUTSIDE = "Agent went outside its route lanes for about {} meters (4.28% of the completed route)"


def part(name: str, *routes: int, version: LeaderboardVersion = V2, **members: Any) -> Part:
    return name, make_checkpoint([RouteRun(route) for route in routes], version, **members)


def with_status(*statuses: str, version: LeaderboardVersion = V2, entry: str = "Started", sensors: Any = None) -> Part:
    records = [make_record(RouteRun(n), n, version, status=status) for n, status in enumerate(statuses)]
    return "a.json", as_checkpoint(make_document(records, entry=entry, sensors=sensors), version)


def refusal(parts: list[Part], routes: int, version: LeaderboardVersion = V2) -> str:
    with pytest.raises(InvalidCheckpoint) as caught:
        merge(parts, expand(range(routes), 1), version)
    return str(caught.value)


@pytest.mark.parametrize("version", [V1, V2])
def test_complete_set_is_finished(version: LeaderboardVersion) -> None:
    parts = [part("a.json", 0, 1, version=version), part("b.json", 2, version=version)]
    result = merge(parts, expand(range(3), 1), version)
    assert (result.complete, result.missing, result.routes_done) == (True, (), 3)
    assert result.document["entry_status"] == "Finished"
    assert result.document["eligible"] is True
    assert result.document["_checkpoint"]["progress"] == [3, 3]
    assert [record["index"] for record in result.document["_checkpoint"]["records"]] == [0, 1, 2]


@pytest.mark.parametrize("version", [V1, V2])
def test_nothing_driven_yet_is_a_start(version: LeaderboardVersion) -> None:
    result = merge([], expand(range(3), 1), version)
    assert (result.complete, result.routes_done) == (False, 0)
    assert result.document["_checkpoint"] == {"global_record": {}, "progress": [0, 3], "records": []}
    assert (result.document["entry_status"], result.document["eligible"]) == ("Started", False)


def test_first_and_last_route_are_missed_and_gaps_in_the_ids_are_not() -> None:
    expected = [RouteRun(route) for route in (11, 300, 7, 2048)]
    inner = make_checkpoint([RouteRun(11), RouteRun(300)])
    assert merge([("a.json", inner)], expected, V2).missing == (RouteRun(7), RouteRun(2048))
    both = [("a.json", inner), part("b.json", 7, 2048)]
    result = merge(both, expected, V2)
    assert result.complete
    ids = [record["route_id"] for record in result.document["_checkpoint"]["records"]]
    assert ids == [f"RouteScenario_{route}_rep0" for route in (7, 11, 300, 2048)]


def test_missing_repetition_is_missed() -> None:
    checkpoint = make_checkpoint([RouteRun(0, 0), RouteRun(0, 1), RouteRun(1, 0)], total=4)
    assert merge([("a.json", checkpoint)], expand([0, 1], 2), V2).missing == (RouteRun(1, 1),)


def test_input_stays_as_it_is() -> None:
    parts = [part("b.json", 2, 3), part("a.json", 0, 1)]
    before = copy.deepcopy(parts)
    merge(parts, expand(range(4), 1), V2)
    assert parts == before


def test_same_routes_twice_are_refused() -> None:
    assert refusal([part("a.json", 0, 1), part("b.json", 1)], 3).startswith(
        "b.json: _checkpoint.records[0].route_id names route 1, which a.json holds already"
    )


@pytest.mark.parametrize("version", [V1, V2])
def test_same_file_twice_is_refused(version: LeaderboardVersion) -> None:
    once = part("a.json", 0, version=version)
    assert "a.json holds already" in refusal([once, once], 3, version)


def test_route_that_was_not_sent_out_is_refused() -> None:
    assert refusal([part("a.json", 0, 9)], 3).startswith("a.json: _checkpoint.records[1].route_id names route 9, which")


def test_file_of_the_other_version_is_refused() -> None:
    assert refusal([part("a.json", 0), part("b.json", 1, version=V1)], 3).startswith("b.json: ")


def test_other_sensors_are_refused() -> None:
    names = [part("a.json", 0), part("b.json", 1, sensors=["carla_gnss", "carla_camera"])]
    assert refusal(names, 2).startswith("b.json: sensors differ from those of a.json")


def test_first_sensors_count_where_some_have_none() -> None:
    parts = [part("a.json", 0, sensors=[]), part("b.json", 1, sensors=["carla_imu"])]
    assert merge(parts, expand(range(2), 1), V2).document["sensors"] == ["carla_imu"]


def test_shards_with_more_routes_to_drive_than_expected_are_not_taken_for_complete() -> None:
    parts = [part("a.json", 0, 1), part("b.json", 2, total=5)]
    assert refusal(parts, 3).startswith("b.json: _checkpoint.progress[1] raises the routes of all files to 7, but 3 ")


def test_without_expected_routes_nothing_is_merged() -> None:
    with pytest.raises(InvalidConfiguration):
        merge([part("a.json", 0)], [], V2)


def test_shards_that_have_not_begun_are_missing() -> None:
    template = make_document([])
    template["_checkpoint"]["progress"] = []
    parts = [part("a.json", 0, version=V1), ("b.json", as_checkpoint(template, V1))]
    assert merge(parts, expand(range(2), 1), V1).missing == (RouteRun(1),)


@pytest.mark.parametrize(
    ("statuses", "status", "entry", "eligible"),
    [
        (["Perfect", "Perfect"], "Perfect", "Finished", True),
        (["Perfect", "Completed"], "Completed", "Finished", True),
        (["Failed", "Completed"], "Failed", "Finished", True),
        (["Completed", "Failed - Agent crashed"], "Failed", "Finished", True),
        (["Completed", "Failed - Agent couldn't be set up"], "Failed", "Finished", True),
        (["Failed - Simulation crashed", "Completed"], "Failed", "Crashed", False),
        (["Failed - Agent's sensors were invalid", "Completed"], "Failed", "Rejected", False),
        (["Failed - Agent's sensors were invalid", "Failed - Simulation crashed"], "Failed", "Crashed", False),
        (["Failed - Simulation crashed", "Failed - Agent's sensors were invalid"], "Failed", "Rejected", False),
        (["Perfect", "Started"], "Started", "Invalid", False),
    ],
)
def test_v2_status_and_entry(statuses: list[str], status: str, entry: str, eligible: bool) -> None:
    document = merge([with_status(*statuses)], expand(range(2), 1), V2).document
    assert document["_checkpoint"]["global_record"]["status"] == status
    assert (document["entry_status"], document["eligible"]) == (entry, eligible)


def test_v2_result_without_sensors_is_invalid_and_still_scored() -> None:
    document = merge([with_status("Completed", sensors=[])], [RouteRun(0)], V2).document
    assert (document["entry_status"], document["eligible"]) == ("Invalid", False)
    assert document["values"][0] == "100.0"


@pytest.mark.parametrize(
    ("statuses", "shard", "entry", "eligible"),
    [
        (["Completed", "Completed"], "Started", "Finished", True),
        (["Completed", "Failed"], "Started", "Finished", True),
        (["Completed", "Failed - Agent timed out"], "Started", "Finished with agent errors", True),
        (["Failed - Simulation crashed", "Failed - Agent timed out"], "Started", "Crashed", False),
        (["Failed - Simulation crashed", "Failed - Agent's sensors were invalid"], "Started", "Rejected", False),
        (["Completed", "Completed"], "Crashed", "Crashed", False),
        (["Completed", "Completed"], "Rejected", "Rejected", False),
    ],
)
def test_v1_entry_keeps_what_the_shards_say(statuses: list[str], shard: str, entry: str, eligible: bool) -> None:
    document = merge([with_status(*statuses, version=V1, entry=shard)], expand(range(2), 1), V1).document
    assert (document["entry_status"], document["eligible"]) == (entry, eligible)


def test_single_route_has_no_deviation() -> None:
    v2 = merge([part("a.json", 0)], [RouteRun(0)], V2).document["_checkpoint"]["global_record"]["scores_std_dev"]
    v1 = merge([part("a.json", 0, version=V1)], [RouteRun(0)], V1).document["_checkpoint"]["global_record"]
    assert list(v2.values()) == [0, 0, 0]
    assert set(v1["scores_std_dev"].values()) == {"NaN"}


@pytest.mark.parametrize("version", [V1, V2])
def test_route_without_a_metre_divides_nothing_by_zero(version: LeaderboardVersion) -> None:
    meta = {"route_length": 0, "duration_game": -1, "duration_system": -1}
    scores = {"score_route": 5e-324, "score_penalty": 0, "score_composed": 0}
    crash = {"collisions_vehicle": ["crash"]}
    record = make_record(RouteRun(0), 0, version, meta=meta, scores=scores, infractions=crash)
    result = merge([("a.json", as_checkpoint(make_document([record]), version))], [RouteRun(0)], version)
    rates = result.document["_checkpoint"]["global_record"]["infractions"]
    assert rates["collisions_vehicle"] == (0.0 if version is V1 else 1000.0)


def test_v2_figures_by_hand() -> None:
    outside = {"outside_route_lanes": [OUTSIDE.format(5.1), OUTSIDE.format(99)], "red_light": ["a", "b"]}
    half = {"score_route": 50.0, "score_penalty": 0.5, "score_composed": 25.0}
    records = [make_record(RouteRun(0), 0, infractions=outside, scores=half), make_record(RouteRun(1), 1)]
    document = merge([("a.json", as_checkpoint(make_document(records)))], expand(range(2), 1), V2).document
    figures = document["_checkpoint"]["global_record"]
    assert figures["scores_mean"] == {"score_composed": 62.5, "score_route": 75.0, "score_penalty": 0.75}
    assert figures["scores_std_dev"] == {"score_composed": 53.033, "score_route": 35.355, "score_penalty": 0.354}
    assert figures["infractions"]["red_light"] == 1.333  # 2 in 1.5 km
    assert figures["infractions"]["outside_route_lanes"] == 0.005  # km, of the first message only
    assert figures["meta"] == {
        "total_length": 2000.0,
        "duration_game": 100.0,
        "duration_system": 200.0,
        "exceptions": [],
    }


def test_v1_figures_by_hand() -> None:
    half = {"score_route": 50.0, "score_penalty": 0.5, "score_composed": 25.0}
    light = {"red_light": ["a", "b"]}
    first = make_record(RouteRun(1), 0, V1, infractions=light, scores=half, status="Failed - Agent timed out")
    second = make_record(RouteRun(0), 0, V1, infractions=light)
    parts = [
        ("a.json", as_checkpoint(make_document([first]), V1)),
        ("b.json", as_checkpoint(make_document([second]), V1)),
    ]
    document = merge(parts, expand(range(2), 1), V1).document
    figures = document["_checkpoint"]["global_record"]
    assert figures["scores"] == {"score_composed": 62.5, "score_route": 75.0, "score_penalty": 0.75}
    assert figures["infractions"]["red_light"] == 6.0  # 2 in 0.5 km and 2 in 1 km
    assert figures["meta"]["exceptions"] == [["RouteScenario_1", 0, "Failed - Agent timed out"]]  # the shard's index
    assert document["values"][6] == "6.000"
    assert len(document["values"]) == len(document["labels"]) == 12


def test_early_spelling_of_v2_is_kept() -> None:
    record = make_record(RouteRun(0))
    kept = record["infractions"]
    kept["yield_emergency_vehicles_infractions"] = kept.pop("yield_emergency_vehicle_infractions")
    document = merge([("a.json", as_checkpoint(make_document([record])))], [RouteRun(0)], V2).document
    assert "yield_emergency_vehicles_infractions" in document["_checkpoint"]["global_record"]["infractions"]


def seed(score: float, version: LeaderboardVersion = V1, routes: int = 2) -> Checkpoint:
    """A run of all routes with one seed of the traffic, each route with this driving score."""
    records = []
    for index in range(routes):
        record = make_record(RouteRun(index), index, version)
        records.append({**record, "scores": {**record["scores"], "score_composed": score}})
    return as_checkpoint(make_document(records, total=routes), version)


def test_runs_of_several_seeds_are_repetitions_of_1_0() -> None:
    merged = merge([("seed0.json", seed(100)), ("seed1.json", seed(60))], expand([0, 1], 2), V1)

    assert merged.complete
    assert merged.document["_checkpoint"]["progress"] == [4, 4]
    assert merged.document["values"][0] == "80.000"
    assert [record["scores"]["score_composed"] for record in merged.document["_checkpoint"]["records"]] == [
        100, 60, 100, 60,
    ]  # fmt: skip


def test_a_seed_without_its_last_route_lacks_that_repetition() -> None:
    merged = merge([("seed0.json", seed(100)), ("seed1.json", seed(60, routes=1))], expand([0, 1], 2), V1)

    assert merged.missing == (RouteRun(1, 1),)


def test_the_same_run_twice_is_no_second_seed() -> None:
    with pytest.raises(InvalidCheckpoint, match=r"b\.json: .* names route 0, which a\.json holds already"):
        merge([("a.json", seed(100)), ("b.json", seed(100))], expand([0, 1], 2), V1)


@pytest.mark.parametrize("version", [V1, V2])
def test_more_runs_than_repetitions_are_refused_and_how_seeds_are_merged_is_said(version: LeaderboardVersion) -> None:
    with pytest.raises(InvalidCheckpoint, match="runs of several seeds have to be driven as repetitions"):
        merge([("a.json", seed(100, version)), ("b.json", seed(60, version))], expand([0, 1], 1), version)


def test_v1_by_route_does_not_depend_on_which_file_holds_which_route() -> None:
    """The sum of these scores differs in its last bit by their order."""
    scores = {0: 0.1, 1: 0.2, 2: 0.7, 3: 33.3}

    def parts(*claims: tuple[int, ...]) -> list[Part]:
        return [
            (f"{n}.json", as_checkpoint(make_document([scored(*each) for each in enumerate(routes)]), V1))
            for n, routes in enumerate(claims)
        ]

    def scored(index: int, route: int) -> dict[str, Any]:
        values = {"score_route": 100.0, "score_penalty": 1.0, "score_composed": scores[route]}
        return make_record(RouteRun(route), index, V1, scores=values)

    expected = expand(range(4), 1)
    fixed = merge(parts((0, 1), (2, 3)), expected, V1)
    pulled = parts((3, 1), (2, 0))

    assert merge(pulled, expected, V1).document != fixed.document
    assert merge(pulled, expected, V1, sum_by_route=True).document == fixed.document
