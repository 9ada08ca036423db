"""The stand-ins' records, checkpoints and demo routes: as the real evaluator's, and the same every time."""

import json
from pathlib import Path
from typing import Any

import pytest

import local_jobs
from evaluation.errors import ImageRefused
from evaluation.results.checkpoint import check_expected
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.routes import expand, parse_route_xml
from evaluation.submission.model import LeaderboardVersion
from local_jobs.demo_images import BEHAVIOURS, require_known
from local_jobs.standin_agent import Checkpoint, read_routes
from local_jobs.standin_records import Record, Route, crashed_record, driven_record

ROUTE_FILES = {
    LeaderboardVersion.V1: Path(local_jobs.__file__).parent / "routes" / "leaderboard-10.xml",
    LeaderboardVersion.V2: Path(local_jobs.__file__).parent / "routes" / "leaderboard-20.xml",
}
VERSIONS = list(LeaderboardVersion)


def drive(tmp_path: Path, version: LeaderboardVersion, seed: str, repetitions: int = 2) -> bytes:
    """The checkpoint of a shard that drives all 20 routes."""
    path = tmp_path / f"checkpoint-{seed}.json"
    routes = read_routes(str(ROUTE_FILES[version]), "0-19", repetitions)
    checkpoint = Checkpoint(path, version.value, len(routes), resume=False)
    for index, route in enumerate(routes):
        checkpoint.add(driven_record(route, index, version.value, seed))
    return path.read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_demo_routes_are_twenty_in_carlas_form(version: LeaderboardVersion) -> None:
    path = ROUTE_FILES[version]

    assert parse_route_xml(path.read_bytes(), path.name) == tuple(range(20))
    assert all(400 < route.length < 10_000 for route in read_routes(str(path), "0-19", 1))


@pytest.mark.parametrize("seed", ["0", "1", "2"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_drive_leaves_a_sound_checkpoint_of_its_version(
    tmp_path: Path, version: LeaderboardVersion, seed: str
) -> None:
    data = drive(tmp_path, version, seed)

    checkpoint = parse_checkpoint(data, "checkpoint.json", version)
    check_expected(checkpoint, expand(range(20), 2), "checkpoint.json")
    assert render_document(checkpoint.document, version).encode() == data
    statuses = {record["status"] for record in checkpoint.records}
    assert "Completed" in statuses
    assert any(status.startswith("Failed - Agent") for status in statuses)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_seed_gives_the_same_drive_and_another_seed_another(
    tmp_path: Path, version: LeaderboardVersion
) -> None:
    assert drive(tmp_path, version, "1") == drive(tmp_path, version, "1")
    assert drive(tmp_path, version, "1") != drive(tmp_path, version, "2")


@pytest.mark.parametrize("version", VERSIONS)
def test_scores_fit_infractions_and_completion(tmp_path: Path, version: LeaderboardVersion) -> None:
    for record in json.loads(drive(tmp_path, version, "3"))["_checkpoint"]["records"]:
        scores = record["scores"]
        assert scores["score_composed"] == pytest.approx(scores["score_route"] * scores["score_penalty"], abs=1e-4)
        harmless = ("route_dev", "vehicle_blocked", "route_timeout")
        costly = [kind for kind, messages in record["infractions"].items() if messages and kind not in harmless]
        assert (scores["score_penalty"] < 1) == bool(costly)
        assert (scores["score_route"] < 100) == record["status"].startswith("Failed")
        assert (record["status"] == "Perfect") <= (not any(record["infractions"].values()))


def test_a_2x_record_is_rounded_and_ordered_as_the_evaluators() -> None:
    record = driven_record(Route(3, 1, ((0, 0), (0, 100.123456))), 4, "2.0", "0")

    assert list(record) == ["index", "route_id", "status", "num_infractions", "infractions", "scores", "meta"]
    assert record["route_id"] == "RouteScenario_3_rep1"
    assert record["meta"]["route_length"] == 100.123
    assert record["num_infractions"] == sum(map(len, record["infractions"].values()))


def test_a_1x_record_has_nine_kinds_of_infractions_and_no_repetition_in_its_id() -> None:
    record: Record = crashed_record(Route(3, 1, ((0, 0), (3, 4))), 4, "1.0", "Failed - Agent crashed")

    assert record["route_id"] == "RouteScenario_3"
    assert len(record["infractions"]) == 9
    assert record["meta"]["route_length"] == 5


def test_a_resumed_checkpoint_goes_on_after_its_records(tmp_path: Path) -> None:
    drive(tmp_path, LeaderboardVersion.V2, "0")

    resumed = Checkpoint(tmp_path / "checkpoint-0.json", "2.0", 40, resume=True)
    fresh = Checkpoint(tmp_path / "checkpoint-0.json", "2.0", 40, resume=False)

    assert (len(resumed.records), len(fresh.records)) == (40, 0)


@pytest.mark.parametrize("tag", sorted(BEHAVIOURS))
def test_the_catalogue_is_known_with_and_without_a_registry(tag: str) -> None:
    require_known(f"demo/agent:{tag}")
    require_known(f"registry.example:5000/demo/agent:{tag}")


@pytest.mark.parametrize("image", ["demo/agent", "demo/agent:other", "evil-demo/agent:steady", "agent:steady", "", ":"])
def test_every_other_image_is_refused(image: str) -> None:
    with pytest.raises(ImageRefused):
        require_known(image)


def test_the_route_list_is_read_as_the_evaluators_subset() -> None:
    routes: list[Any] = read_routes(str(ROUTE_FILES[LeaderboardVersion.V2]), "3-5,9", 2)

    assert [(route.id, route.repetition) for route in routes][:4] == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert [route.id for route in routes[-2:]] == [9, 9]
