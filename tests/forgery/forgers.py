"""Ways to forge a submission. Each changes a true one to its team's advantage, or says that it cannot (None)."""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

from evaluation.pair.decisions import SIMULATION_CRASHED
from evaluation.pair.observations import Observations, SeenStart
from evaluation.verification.figures import KnownLengths
from tests.forgery.submissions import BEGIN, Document, Driven, observed

Forger = Callable[[Driven, Random], Driven | None]
_AGAIN = timedelta(minutes=20)


def _records(document: Document) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = document["_checkpoint"]["records"]
    return records


def _written(driven: Driven, index: int, document: Document) -> Driven:
    """As an evaluator that lies from the beginning writes it: the supervisor sees nothing else."""
    return driven.with_shard(index, document, observed(driven.expected[index], _records(document)))


def _changing(change: Callable[[dict[str, Any], Random], bool]) -> Forger:
    """Forge one record for which `change` finds something to gain."""

    def forge(driven: Driven, random: Random) -> Driven | None:
        places = [(i, j) for i, document in enumerate(driven.documents) for j in range(len(_records(document)))]
        random.shuffle(places)
        for index, position in places:
            document = copy.deepcopy(driven.documents[index])
            if change(_records(document)[position], random):
                return _written(driven, index, document)
        return None

    return forge


def _composed_alone(record: dict[str, Any], random: Random) -> bool:
    scores = record["scores"]
    if scores["score_composed"] > 95:
        return False
    scores["score_composed"] = random.choice([100.0, round(random.uniform(scores["score_composed"] + 1, 100), 6)])
    return True


def _penalty_forgiven(record: dict[str, Any], random: Random) -> bool:
    scores = record["scores"]
    if not 0 < scores["score_penalty"] < 0.97 or scores["score_route"] <= 0:
        return False
    scores["score_penalty"] = random.choice([1.0, round(random.uniform(scores["score_penalty"] + 0.01, 1), 6)])
    scores["score_composed"] = scores["score_route"] * scores["score_penalty"]
    return True


def _infractions_without_penalty(record: dict[str, Any], random: Random) -> bool:
    """One message is taken away, and the penalty is that of a perfect drive."""
    kinds = [
        kind
        for kind in ("collisions_vehicle", "collisions_pedestrian", "collisions_layout", "red_light")
        if len(record["infractions"][kind]) > 0
    ]
    if sum(len(record["infractions"][kind]) for kind in kinds) < 2:
        return False
    record["infractions"][random.choice(kinds)].pop()
    if "num_infractions" in record:
        record["num_infractions"] -= 1
    record["scores"]["score_penalty"] = 1.0
    record["scores"]["score_composed"] = record["scores"]["score_route"]
    return True


def _completed_halfway(record: dict[str, Any], random: Random) -> bool:
    if not 0 < record["scores"]["score_route"] < 100:
        return False
    record["status"] = "Completed"
    return True


def _flawless(record: dict[str, Any], infraction: str, message: str) -> bool:
    """The record of a drive without a penalty, but for one infraction that costs nothing."""
    if record["meta"]["route_length"] <= 0:
        return False
    record |= {**_better(record), "status": "Completed"}
    record["infractions"][infraction] = [message]
    if "num_infractions" in record:
        record["num_infractions"] = 1
    return True


def _unweighed_infraction(record: dict[str, Any], random: Random) -> bool:
    """Of a kind that no evaluator has, or under the spelling that this one does not use."""
    other = {"yield_emergency_vehicles_infractions"} if "scenario_timeouts" in record["infractions"] else set()
    kinds = sorted({"collisions_cyclist", "collisions_vehicles"} | (other - record["infractions"].keys()))
    return _flawless(record, random.choice(kinds), "Agent collided")


def _completed_although_ended(record: dict[str, Any], random: Random) -> bool:
    return _flawless(record, random.choice(["route_dev", "vehicle_blocked", "route_timeout"]), "It ended here")


def _off_road_for_nothing(record: dict[str, Any], random: Random) -> bool:
    """Many metres outside the lanes, which are next to nothing of what was driven."""
    metres = random.choice([500.0, 900.5, 12000.0])
    message = f"Agent went outside its route lanes for about {metres} meters (0.0% of the completed route)"
    return record["meta"]["route_length"] < 2000 and _flawless(record, "outside_route_lanes", message)


def _scored_without_set_up(record: dict[str, Any], random: Random) -> bool:
    if record["scores"]["score_route"] <= 0:
        return False
    record["status"] = "Failed - Agent couldn't be set up"
    return True


def _in_no_time(record: dict[str, Any], random: Random) -> bool:
    if record["scores"]["score_route"] <= 0:
        return False
    record["meta"] |= random.choice([{"duration_game": 0.0, "duration_system": 0.0}, {"duration_game": 0.0}])
    return True


def _too_fast(record: dict[str, Any], random: Random) -> bool:
    metres = record["meta"]["route_length"] * record["scores"]["score_route"] / 100
    if metres < 1:
        return False
    record["meta"]["duration_game"] = round(metres / random.uniform(60, 5000), 3)
    return record["meta"]["duration_game"] > 0


def _simulator_too_fast(record: dict[str, Any], random: Random) -> bool:
    if record["meta"]["duration_game"] <= 1:
        return False
    record["meta"]["duration_system"] = round(record["meta"]["duration_game"] / random.uniform(12, 900), 3)
    return True


def _all_in_no_time(driven: Driven, random: Random) -> Driven | None:
    """Every route of a shard at once, with plausible durations: written within a minute of the simulator's start."""
    index = random.randrange(len(driven.documents))
    records, runs = _records(driven.documents[index]), driven.expected[index]
    if sum(record["meta"]["duration_system"] for record in records) < 150:
        return None
    seen = Observations().with_new_start(SeenStart(1, 1, BEGIN, BEGIN), runs)
    seen = seen.with_records(runs, records, BEGIN + timedelta(seconds=random.uniform(1, 60)))
    return driven.with_shard(index, driven.documents[index], seen)


def _before_the_simulator(driven: Driven, random: Random) -> Driven | None:
    """Records of a start whose simulator never became ready."""
    index = random.randrange(len(driven.documents))
    records, runs = _records(driven.documents[index]), driven.expected[index]
    if not any(record["meta"]["duration_system"] > 0 for record in records):
        return None
    seen = Observations().with_new_start(SeenStart(1, 1, BEGIN), runs)
    return driven.with_shard(
        index, driven.documents[index], seen.with_records(runs, records, BEGIN + timedelta(days=2))
    )


def _map_in_sensors_track(driven: Driven, random: Random) -> Driven | None:
    index = random.randrange(len(driven.documents))
    documents = copy.deepcopy(driven.documents)
    for document in documents:
        if "carla_opendrive_map" not in document["sensors"]:
            document["sensors"].append("carla_opendrive_map")
    forged = replace(driven, documents=documents, expectations=replace(driven.expectations, track="SENSORS"))
    return _written(forged, index, documents[index])


def _too_many_sensors(driven: Driven, random: Random) -> Driven | None:
    documents = copy.deepcopy(driven.documents)
    sensor = random.choice(["carla_camera", "carla_lidar", "carla_radar", "carla_gnss"])
    for document in documents:
        document["sensors"] += [sensor] * (driven.expectations.scoring.sensors[sensor] + 1)
    return replace(driven, documents=documents)


def _other_routes_length(driven: Driven, random: Random) -> Driven | None:
    """The host has driven the routes once; the forger gives a route the length of another one."""
    lengths = {
        run.route: record["meta"]["route_length"]
        for runs, document in zip(driven.expected, driven.documents, strict=True)
        for run, record in zip(runs, _records(document), strict=True)
    }
    known = replace(driven.expectations, lengths=KnownLengths(driven.expectations.lengths.file, lengths))

    def change(record: dict[str, Any], random: Random) -> bool:
        own = record["meta"]["route_length"]
        others = [length for length in lengths.values() if abs(length - own) > 0.02 and length > 0]
        if not others or record["scores"]["score_route"] <= 0:
            return False
        record["meta"]["route_length"] = random.choice(others)
        return True

    return _changing(change)(replace(driven, expectations=known), random)


def _better(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a drive without a fault, right in itself."""
    clean = copy.deepcopy(record)
    clean["infractions"] = {kind: [] for kind in record["infractions"]}
    if "num_infractions" in clean:
        clean["num_infractions"] = 0
    clean["status"] = "Perfect" if "num_infractions" in clean else "Completed"
    clean["scores"] = {"score_route": 100.0, "score_penalty": 1.0, "score_composed": 100.0}
    length = clean["meta"]["route_length"] or 100.0
    clean["meta"] = {"route_length": length, "duration_game": length / 8, "duration_system": length / 4}
    if "num_infractions" in clean:
        clean["meta"] = {key: round(value, 3) for key, value in clean["meta"].items()}
    return clean


def _rerolled(how: Callable[[Driven, int, int, dict[str, Any]], tuple[Document, Observations]]) -> Forger:
    """The record of a bad drive gives way to a perfect one; `how` says what the supervisor saw of that."""

    def forge(driven: Driven, random: Random) -> Driven | None:
        bad = [
            (i, j)
            for i, document in enumerate(driven.documents)
            for j, record in enumerate(_records(document))
            if record["scores"]["score_composed"] < 95 and record["meta"]["route_length"] > 0
        ]
        if not bad:
            return None
        index, position = random.choice(bad)
        better = _better(_records(driven.documents[index])[position])
        return driven.with_shard(index, *how(driven, index, position, better))

    return forge


def _replace_record(document: Document, position: int, record: dict[str, Any]) -> Document:
    changed = copy.deepcopy(document)
    _records(changed)[position] = {**record, "index": position}
    return changed


def _overwritten(driven: Driven, index: int, position: int, better: dict[str, Any]) -> tuple[Document, Observations]:
    """The first record lay there, then the second, and nothing was driven in between."""
    document, seen = driven.documents[index], driven.seen[index] or Observations()
    changed = _replace_record(document, position, better)
    return changed, seen.with_records(driven.expected[index], _records(changed), BEGIN + timedelta(days=2))


def _slipped_in(driven: Driven, index: int, position: int, better: dict[str, Any]) -> tuple[Document, Observations]:
    """The file in S3 is another than what the supervisor saw."""
    return _replace_record(driven.documents[index], position, better), driven.seen[index] or Observations()


def _driven_again(
    driven: Driven, index: int, position: int, better: dict[str, Any], *, status: str, charged: bool, times: int
) -> tuple[Document, Observations]:
    """Starts that end while the route is driven, with or without a record that says why; the last one is kept."""
    runs, changed = driven.expected[index], _replace_record(driven.documents[index], position, better)
    records = _records(changed)
    seen = Observations().with_new_start(SeenStart(1, 1, BEGIN, BEGIN), runs)
    now = BEGIN + timedelta(days=2)
    seen = seen.with_records(runs, records[:position], now)
    for number in range(2, times + 2):
        if status:
            seen = seen.with_records(runs, [*records[:position], {**better, "status": status}], now + _AGAIN)
        seen = seen.with_last_start(ended_at=now + _AGAIN, charged_to_agent=charged, how="the evaluator ended")
        now += 2 * _AGAIN
        seen = seen.with_new_start(SeenStart(1, number, now, now), runs[position:])
    return changed, seen.with_records(runs, records, now + timedelta(days=2))


def _crash_claimed(driven: Driven, index: int, position: int, better: dict[str, Any]) -> tuple[Document, Observations]:
    return _driven_again(driven, index, position, better, status=SIMULATION_CRASHED, charged=False, times=1)


def _died_too_often(driven: Driven, index: int, position: int, better: dict[str, Any]) -> tuple[Document, Observations]:
    return _driven_again(driven, index, position, better, status="", charged=True, times=3)


def _in_another_order(driven: Driven, random: Random) -> Driven | None:
    """The records lie in the right order, but came in another."""
    index = random.randrange(len(driven.documents))
    runs, records = driven.expected[index], _records(driven.documents[index])
    if len(records) < 2:
        return None
    seen = Observations().with_new_start(SeenStart(1, 1, BEGIN, BEGIN), runs)
    pairs = list(zip(runs, records, strict=True))[::-1]
    for count in range(1, len(pairs) + 1):
        some = pairs[:count]
        moment = BEGIN + timedelta(days=count)
        seen = seen.with_records([run for run, _ in some], [record for _, record in some], moment)
    return driven.with_shard(index, driven.documents[index], seen)


def _nobody_saw_it(driven: Driven, random: Random) -> Driven | None:
    index = random.randrange(len(driven.documents))
    return driven.with_shard(index, driven.documents[index], None)


def _one_route_twice(driven: Driven, random: Random) -> Driven | None:
    """The best route's record takes the place of another route's, under the other's name or its own."""
    index = random.randrange(len(driven.documents))
    document = copy.deepcopy(driven.documents[index])
    records = _records(document)
    best = max(range(len(records)), key=lambda at: records[at]["scores"]["score_composed"])
    others = [at for at in range(len(records)) if at != best]
    if not others:
        return None
    at = random.choice(others)
    records[at] = {**copy.deepcopy(records[best]), "index": at}
    return _written(driven, index, document)


def _swapped_image(driven: Driven, random: Random) -> Driven | None:
    """After the first attempt the tag points to another image."""
    first, other = (f"sha256:{random.randrange(16**64):064x}" for _ in range(2))
    shards = range(len(driven.documents))
    some = [shard for shard in shards if random.random() < 0.5] or [0]
    images = {other: some, first: [shard for shard in shards if shard not in some]}
    return replace(driven, expectations=replace(driven.expectations, images=images, image_digest=first))


FORGERS: dict[str, Forger] = {
    "composed score beside its factors": _changing(_composed_alone),
    "penalty forgiven": _changing(_penalty_forgiven),
    "infraction and penalty removed": _changing(_infractions_without_penalty),
    "completed halfway": _changing(_completed_halfway),
    "an infraction that nobody weighs": _changing(_unweighed_infraction),
    "completed although it was ended": _changing(_completed_although_ended),
    "off the road for nothing": _changing(_off_road_for_nothing),
    "scored without a set-up": _changing(_scored_without_set_up),
    "driven in no time": _changing(_in_no_time),
    "faster than a car": _changing(_too_fast),
    "faster than a simulator": _changing(_simulator_too_fast),
    "a shard within a minute": _all_in_no_time,
    "driven without a simulator": _before_the_simulator,
    "the map in the track SENSORS": _map_in_sensors_track,
    "too many sensors": _too_many_sensors,
    "another route's length": _other_routes_length,
    "a record overwritten": _rerolled(_overwritten),
    "a record slipped in": _rerolled(_slipped_in),
    "re-rolled by a claimed crash": _rerolled(_crash_claimed),
    "re-rolled by deaths of the evaluator": _rerolled(_died_too_often),
    "written in another order": _in_another_order,
    "nobody saw it": _nobody_saw_it,
    "one route's record for another's": _one_route_twice,
    "another image": _swapped_image,
}
