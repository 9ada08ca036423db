"""Each check of a result, at its boundary: what fits exactly, and what does not fit any more."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from evaluation.errors import InvalidCheckpoint
from evaluation.pair.observations import Observations, SeenStart, parse_observations, record_digest
from evaluation.results.checkpoint import Checkpoint
from evaluation.results.records import crashed_record
from evaluation.routes import RouteRun, route_lengths
from evaluation.submission.model import LeaderboardVersion
from evaluation.verification.drives import DriveLimits, Drives, drives_again, drives_text
from evaluation.verification.figures import KnownLengths, check_figures
from evaluation.verification.scoring import SCORINGS, Scoring, scoring_of
from evaluation.verification.verify import Expectations, ShardEvidence, verify
from tests.result_files import V1, V2, as_checkpoint, make_document, make_record

RUNS = [RouteRun(3), RouteRun(4), RouteRun(5)]
BEGIN = datetime(2026, 11, 28, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STATIC, VEHICLE, PEDESTRIAN = "collisions_layout", "collisions_vehicle", "collisions_pedestrian"
OFF_ROAD, SLOW = "outside_route_lanes", "min_speed_infractions"
OUTSIDE = "Agent went outside its route lanes for about 20.0 meters (4.28% of the completed route)"
SLOWLY = "Average speed is 40.0% of the surrounding traffic's one"


def scored(
    penalty: float, infractions: dict[str, list[str]], route: float = 100.0, version: LeaderboardVersion = V2
) -> Any:
    scores = {"score_route": route, "score_penalty": penalty, "score_composed": route * penalty}
    return make_record(RUNS[0], version=version, infractions=infractions, scores=scores)


def problems(record: Any, scoring: Scoring, lengths: KnownLengths | None = None) -> list[str]:
    return [str(each) for each in check_figures(record, 3, "route 3", scoring, lengths or KnownLengths())]


PENALTIES = [
    ("1.0", {VEHICLE: ["a", "b"], STATIC: ["c"]}, 0.6 * 0.6 * 0.65),
    ("1.0", {OFF_ROAD: [OUTSIDE], "stop_infraction": ["s"]}, 0.8 * (1 - 0.0428)),
    ("2.0", {PEDESTRIAN: ["p"], "scenario_timeouts": ["t"]}, 0.35),
    ("2.0", {SLOW: [SLOWLY]}, 1 - 0.3 * 0.6),
    ("2.1", {VEHICLE: ["a", "b"], "red_light": ["r"]}, 1 / (1 + 0.7 + 0.7 + 0.4)),
    ("2.1", {OFF_ROAD: [OUTSIDE], SLOW: [SLOWLY]}, (1 - 0.0428) / (1 + 0.4 * 0.6)),
]


@pytest.mark.parametrize(("scoring", "infractions", "penalty"), PENALTIES)
def test_the_penalty_is_what_the_infractions_leave(
    scoring: str, infractions: dict[str, list[str]], penalty: float
) -> None:
    rules = SCORINGS[scoring]
    digits = 6 if rules.version is V2 else 15

    assert problems(scored(round(penalty, digits), infractions, version=rules.version), rules) == []
    [problem] = problems(scored(round(penalty + 0.0002, digits), infractions, version=rules.version), rules)
    assert f"its infractions leave {penalty:.6g} (scoring of {scoring})" in problem


def test_a_speed_above_the_traffics_makes_up_for_no_collision() -> None:
    fast = "Average speed is 900.0% of the surrounding traffic's one"

    assert problems(scored(0.6, {VEHICLE: ["a"], SLOW: [fast]}), scoring_of(V2)) == []
    assert problems(scored(1.0, {VEHICLE: ["a"], SLOW: [fast]}), scoring_of(V2)) != []


def test_a_forks_weights_replace_the_official_ones() -> None:
    record = scored(1.0, {"stop_infraction": ["s"]}, version=V1)

    assert problems(record, scoring_of(V1)) != []
    assert problems(record, scoring_of(V1).changed({"stop_infraction": 1.0}, {})) == []


def test_an_off_road_message_without_a_percentage_is_a_reason() -> None:
    [problem] = problems(scored(1.0, {OFF_ROAD: ["Agent went outside its route lanes"]}), scoring_of(V2))

    assert "its message names no percentage: 'Agent went outside" in problem


@pytest.mark.parametrize("percentage", ["50,0%", "1e-9%", "-0%", "٠%", "0% 50%", "0.%", "0 %"])
def test_a_percentage_that_the_evaluator_does_not_write_is_none(percentage: str) -> None:
    message = f"Agent went outside its route lanes for about 20.0 meters ({percentage} of the completed route)"

    [problem] = problems(scored(1.0, {OFF_ROAD: [message]}), scoring_of(V2))

    assert "its message names no percentage" in problem


def test_an_infraction_that_nobody_weighs_is_a_reason_until_a_fork_says_how() -> None:
    record = scored(1.0, {"collisions_cyclist": ["c"]})
    record["num_infractions"] = 1

    [problem] = problems(record, scoring_of(V2))

    assert "it has an infraction 'collisions_cyclist', which the scoring of 2.0 does not know" in problem
    assert problems(record, scoring_of(V2).changed({"collisions_cyclist": 1.0}, {})) == []


def test_an_infraction_counts_under_both_of_its_spellings() -> None:
    record = scored(0.7, {"yield_emergency_vehicle_infractions": ["y"]})
    early = {"yield_emergency_vehicles_infractions": ["y"]}

    assert problems(record, scoring_of(V2)) == []
    record["infractions"] |= early
    assert "its infractions leave 0.49" in problems(record, scoring_of(V2))[0]


STORIES = {
    "blocked": ({"status": "Completed"}, {"vehicle_blocked": ["b"]}, "is Completed, but vehicle_blocked ended it"),
    "no set-up": ({"status": "Failed - Agent couldn't be set up"}, {}, 'be set up", but score_route is 100.0'),
    "no sensors": ({"status": "Failed - Agent's sensors were invalid"}, {}, "but score_route is 100.0"),
    "too far": ({}, {OFF_ROAD: [OUTSIDE.replace("4.28", "0.0")]}, "no car drives so in 5.0 s of game time"),
    "no metres": ({}, {OFF_ROAD: [OUTSIDE.replace("20.0", "nan").replace("4.28", "0.0")]}, "no car drives so"),
}


@pytest.mark.parametrize("what", STORIES)
def test_a_status_and_messages_that_contradict_the_drive(what: str) -> None:
    changes, infractions, words = STORIES[what]
    record = scored(1.0, infractions, version=V1) | changes
    record["meta"] |= {"duration_game": 5.0, "route_length": 200.0}

    [problem] = problems(record, scoring_of(V1))

    assert words in problem


def test_a_short_route_may_be_completed_in_its_first_moments() -> None:
    record = make_record(RUNS[0])
    record["meta"] |= {"route_length": 12.0, "duration_game": 0.05, "duration_system": 0.1}

    assert problems(record, scoring_of(V2)) == []


def test_composed_is_route_times_penalty_within_the_rounding_of_2x() -> None:
    record = make_record(RUNS[0], infractions={VEHICLE: ["a"]}, status="Failed - Agent got blocked")
    scores = {"score_route": 33.333333, "score_penalty": 0.6}

    fits = record | {"scores": scores | {"score_composed": 20.00001}}
    differs = record | {"scores": scores | {"score_composed": 20.0001}}

    assert problems(fits, scoring_of(V2)) == []
    assert problems(differs, scoring_of(V2)) == [
        "route 3: score_composed is 20.0001, but 33.333333 x 0.6 (route x penalty) is 20."
    ]


@pytest.mark.parametrize("version", LeaderboardVersion)
@pytest.mark.parametrize("status", ["Failed - Simulation crashed", "Failed - Agent couldn't be set up", "Failed"])
def test_a_route_that_was_not_driven_is_believed(version: LeaderboardVersion, status: str) -> None:
    lengths = KnownLengths({3: 700.0}, {3: 777.0})

    assert problems(crashed_record(RUNS[0], 0, version, status), scoring_of(version), lengths) == []


TIMES = {
    "no game time": ({"duration_game": 0.0}, "driven in 0.0 s of game time and 100.0 s of system time"),
    "unset": ({"duration_game": -1.0, "duration_system": -1.0}, "driven in -1.0 s of game time"),
    "too fast": ({"duration_game": 19.0}, "1000 m in 19.0 s of game time are 53 m/s, more than 50 m/s"),
    "time-lapse": ({"duration_system": 4.0}, "50.0 s of game time in 4.0 s are 12 times real time, more than 10 times"),
}


@pytest.mark.parametrize("what", TIMES)
def test_times_that_no_car_and_no_simulator_reaches(what: str) -> None:
    changes, words = TIMES[what]
    record = make_record(RUNS[0])
    record["meta"] |= changes

    [problem] = problems(record, scoring_of(V2))

    assert words in problem


ROUTE_FILES = {
    V1: '<routes><route id="3"><waypoint x="0" y="0" z="0"/><waypoint x="600" y="800" z="0"/></route></routes>',
    V2: '<routes><route id="3"><waypoints><position x="0" y="0" z="0"/><position x="600" y="800" z="0"/></waypoints>'
    "</route></routes>",
}


@pytest.mark.parametrize(("version", "length", "fits"), [
    (V1, 1000.0, True), (V1, 1000.5, False), (V2, 1140.0, True), (V2, 700.0, False), (V2, 1800.0, False),
])  # fmt: skip
def test_a_route_is_as_long_as_its_file_says(version: LeaderboardVersion, length: float, fits: bool) -> None:
    lengths = KnownLengths(route_lengths(ROUTE_FILES[version], "routes.xml"))
    record = make_record(RUNS[0], version=version)
    record["meta"]["route_length"] = length

    found = problems(record, scoring_of(version), lengths)

    assert (found == []) is fits
    assert fits or f"route_length is {length} m, but by the route file it is" in found[0]


def test_the_hosts_own_drive_is_compared_exactly() -> None:
    known = KnownLengths({3: 900.0}, {3: 1000.25})

    [problem] = problems(make_record(RUNS[0]), scoring_of(V2), known)

    assert problem == "route 3: route_length is 1000.0 m, but by the host's own drive it is 1000.250 m."


def shard(records: list[dict[str, Any]], sensors: list[str] | None = None) -> Checkpoint:
    return as_checkpoint(make_document(records, sensors=sensors))


def good() -> list[dict[str, Any]]:
    return [make_record(run, index) for index, run in enumerate(RUNS)]


def started() -> Observations:
    return Observations().with_new_start(SeenStart(1, 1, BEGIN, BEGIN), RUNS)


def driven(records: list[dict[str, Any]], seen: Observations | None = None) -> Observations:
    """A record every two minutes: each claims 100 s."""
    seen = seen or started()
    for count in range(1, len(records) + 1):
        seen = seen.with_records(RUNS, records[:count], BEGIN + count * 2 * MINUTE)
    return seen


def reasons(
    records: list[dict[str, Any]],
    seen: Observations | None,
    track: str = "SENSORS",
    sensors: list[str] | None = None,
    limits: DriveLimits | None = None,
) -> list[str]:
    evidence = ShardEvidence(0, shard(records, sensors), seen)
    found = verify([evidence], Expectations(scoring_of(V2), track, limits=limits or DriveLimits()))
    return [str(reason) for reason in found]


def test_an_undisturbed_shard_has_no_reasons() -> None:
    assert reasons(good(), driven(good())) == []


@pytest.mark.parametrize(("track", "sensors", "words"), [
    ("SENSORS", ["carla_opendrive_map"], "carla_opendrive_map, which the track SENSORS does not allow"),
    ("SENSORS_QUALIFIER", ["carla_camera"] * 5, "carla_camera 5 times, and the track SENSORS_QUALIFIER allows 4"),
    ("MAP", ["carla_camera"] * 9, "carla_camera 9 times, and the track MAP allows 8"),
    ("MAP", ["carla_opendrive_map", "x_ray"], "x_ray, which no evaluator knows"),
])  # fmt: skip
def test_sensors_are_the_tracks(track: str, sensors: list[str], words: str) -> None:
    [reason] = reasons(good(), driven(good()), track, sensors)

    assert words in reason


def test_a_shard_that_nobody_saw_is_held() -> None:
    assert reasons(good(), None) == ["shard 0: no file says what its supervisor saw of it (observations.json)."]


def test_routes_cannot_have_taken_longer_than_their_simulator_was_there() -> None:
    records = good()
    at_once = started().with_records(RUNS, records, BEGIN + 3 * MINUTE)
    in_time = started().with_records(RUNS, records, BEGIN + 4.5 * MINUTE)

    assert reasons(records, in_time) == []
    assert reasons(records, at_once) == [
        "shard 0: route 3 to route 5: 300 s of system time are claimed, but the simulator had been there for 180 s."
    ]
    assert reasons(records, at_once, limits=DriveLimits(real_time=False)) == []


def test_a_record_that_changes_without_a_drive_is_held() -> None:
    before, after = good(), good()
    before[1] = make_record(RUNS[1], 1, status="Failed - Agent got blocked")
    seen = driven(before).with_records(RUNS, after, BEGIN + 30 * MINUTE)

    assert "route 4: its record was changed after it had been written, and it was not driven again." in reasons(
        after, seen
    )
    assert "route 4: its record is not the one that its supervisor saw." in reasons(before, seen)


def ended(seen: Observations, **how: Any) -> Observations:
    return seen.with_last_start(ended_at=BEGIN + 10 * MINUTE, **how)


def next_start(seen: Observations, number: int, unrecorded: list[RouteRun]) -> Observations:
    return seen.with_new_start(
        SeenStart(1, number, BEGIN + number * 15 * MINUTE, BEGIN + number * 15 * MINUTE), unrecorded
    )


CRASH = "Failed - Simulation crashed"


@pytest.mark.parametrize(("simulator_lost", "allowed", "held"), [(True, 0, False), (False, 0, True), (False, 1, False)])
def test_a_crash_that_the_evaluator_reports_is_believed_where_the_simulator_died(
    simulator_lost: bool, allowed: int, held: bool
) -> None:
    crashed = [*good()[:1], crashed_record(RUNS[1], 1, V2)]
    seen = ended(driven(crashed), simulator_lost=simulator_lost, how="the evaluator lost its simulator")
    seen = next_start(seen, 2, RUNS[1:])
    seen = seen.with_records(RUNS, good(), BEGIN + 60 * MINUTE)

    found = reasons(good(), seen, limits=DriveLimits(unconfirmed_crashes=allowed))

    assert bool(found) is held
    assert not held or "route 4: it was driven again after the evaluator had reported a crash" in found[0]
    assert drives_text(drives_again(seen)) == [
        "Routes driven more than once: 1",
        f"route 4: 2 drives (its record said '{CRASH}'; the evaluator lost its simulator)",
    ]


def test_an_evaluator_may_die_on_a_route_twice_and_not_more_over_all_attempts() -> None:
    seen = driven(good()[:1])
    for number in (2, 3):
        seen = next_start(ended(seen, charged_to_agent=True, how="the evaluator died"), number, RUNS[1:])
    twice = seen.with_records(RUNS, good(), BEGIN + 90 * MINUTE)
    resumed = ended(seen, charged_to_agent=True).with_new_start(
        SeenStart(2, 1, BEGIN + 80 * MINUTE, BEGIN + 80 * MINUTE), RUNS[1:]
    )
    more = resumed.with_records(RUNS, good(), BEGIN + 100 * MINUTE)

    assert reasons(good(), twice) == []
    [reason] = reasons(good(), more)
    assert reason.startswith("route 4: it was driven 4 times, over all attempts, because its evaluator ended or hung")


@pytest.mark.parametrize(("status", "held"), [("Completed", False), ("Failed - Agent couldn't be set up", True)])
def test_a_record_that_was_lost_with_its_pod_is_not_charged_to_the_agent(status: str, held: bool) -> None:
    """Three pods are evicted after the record was seen and before it was in S3; a failed set-up is driven anew."""
    seen = driven(good()[:1])
    for number in (2, 3, 4):
        seen = seen.with_records(RUNS, [*good()[:1], crashed_record(RUNS[1], 1, V2, status)], BEGIN + number * MINUTE)
        seen = next_start(seen, number, RUNS[1:])
    seen = seen.with_records(RUNS, good(), BEGIN + 90 * MINUTE)

    assert bool(reasons(good(), seen)) is held
    [_, again] = drives_text(drives_again(seen))
    assert again.startswith(f"route 4: 4 drives (its record said {status!r}; its pod was lost;")


def test_a_start_that_is_noted_twice_counts_once() -> None:
    seen = next_start(ended(driven(good()[:1])), 2, RUNS[1:])

    assert next_start(seen, 2, RUNS[1:]) == seen
    assert [each.run for each in seen.redrives] == [RUNS[1]]


def test_a_route_that_was_given_up_is_no_drive_again_of_the_next_one() -> None:
    given_up = [*good()[:1], crashed_record(RUNS[1], 1, V2)]
    seen = ended(driven(good()[:1]), interrupted=False)
    seen = seen.with_records(RUNS, given_up, BEGIN + 11 * MINUTE, by_supervisor=RUNS[1])
    seen = next_start(seen, 2, RUNS[2:])

    assert drives_again(seen) == []
    assert drives_text([]) == []


def test_routes_with_the_same_story_share_a_line() -> None:
    same = [Drives(RouteRun(route), 2, ("its pod was lost",)) for route in (0, 1, 2)]
    again = Drives(RouteRun(3), 3, ("its pod was lost", "the evaluator died"))

    assert drives_text([*same, again]) == [
        "Routes driven more than once: 4",
        "routes 0-2: 2 drives each (its pod was lost)",
        "route 3: 3 drives (its pod was lost; the evaluator died)",
    ]


def test_observations_come_back_from_their_file_and_a_broken_one_is_named() -> None:
    seen = next_start(ended(driven(good()[:1]), simulator_lost=True), 2, RUNS[1:])

    assert parse_observations(seen.render(), "file") == seen
    with pytest.raises(InvalidCheckpoint, match=r"s3://b/7/observations.json cannot be read"):
        parse_observations(b'{"events": [{"kind": "wish"}]}', "s3://b/7/observations.json")


def test_a_records_digest_is_that_of_its_content_whatever_the_order() -> None:
    record = make_record(RUNS[0])

    assert record_digest(dict(sorted(record.items())) | {"index": 9, "extra": 1}) == record_digest(record)
    assert record_digest(record | {"status": "Perfect"}) != record_digest(record)
