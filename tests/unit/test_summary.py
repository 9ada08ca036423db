import pytest

from evaluation.results.checkpoint_writing import append_quarantined
from evaluation.results.evalai_result import LABELS
from evaluation.results.merge import Merged, merge
from evaluation.results.summary import summary_text
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_checkpoint, make_checkpoint, make_document, make_record


def text_of(merged: Merged, total: int) -> str:
    return summary_text(merged.document, merged.version, total)


@pytest.mark.parametrize("version", [V1, V2])
def test_complete_result_in_words(version: LeaderboardVersion) -> None:
    checkpoint = make_checkpoint(list(expand([0, 1], 1)), version)
    text = text_of(merge([("a.json", checkpoint)], expand([0, 1], 1), version), 2)
    lines = text.splitlines()
    assert lines[0] == f"CARLA Leaderboard {version.value}: Finished"
    assert "Sensors: carla_camera, carla_gnss" in lines
    assert "Routes completed: 2 of 2" in lines
    assert "Game time / system time: 0.500 (10.0 FPS)" in lines
    assert all(label in text for label in LABELS[version])
    assert [line.split() for line in lines[-2:]] == [
        [str(index), checkpoint.records[index]["route_id"], "Completed", "0.500"] for index in (0, 1)
    ]
    assert "INCOMPLETE" not in text


@pytest.mark.parametrize("version", [V1, V2])
def test_incomplete_result_says_so_and_shows_figures_so_far(version: LeaderboardVersion) -> None:
    checkpoint = make_checkpoint([RouteRun(0)], version, total=20)
    text = text_of(merge([("a.json", checkpoint)], expand(range(20), 1), version), 20)
    assert "Routes completed: 1 of 20" in text
    assert "INCOMPLETE: 19 are missing" in text
    assert "100.000" in text


def test_missing_routes_are_named_where_they_are_known() -> None:
    merged = merge([("a.json", make_checkpoint([RouteRun(0)], total=2))], expand(range(20), 1), V2)
    assert "Missing: 1-19\n" in summary_text(merged.document, V2, 20, merged.missing)


def test_crash_that_the_evaluator_scored_is_no_quarantine() -> None:
    record = make_record(RouteRun(0), status="Failed - Simulation crashed")
    merged = merge([("a.json", as_checkpoint(make_document([record])))], [RouteRun(0)], V2)
    assert "Quarantined" not in text_of(merged, 1)


@pytest.mark.parametrize("version", [V1, V2])
def test_result_without_a_route_is_still_readable(version: LeaderboardVersion) -> None:
    text = text_of(merge([], [RouteRun(0)], version), 1)
    assert "Routes completed: 0 of 1" in text
    assert "Sensors: none recorded" in text
    assert "Game time / system time: unknown" in text
    assert "No metrics yet" in text


@pytest.mark.parametrize(("game", "system"), [(-1, -1), (0.0, 0.0), (-1, 5.0), (5.0, 0.0), (5.0, -1)])
def test_durations_that_were_never_set_give_no_ratio(game: float, system: float) -> None:
    meta = {"route_length": 1000.0, "duration_game": game, "duration_system": system}
    records = [make_record(RouteRun(0), 0, meta=meta), make_record(RouteRun(1), 1)]
    checkpoint = as_checkpoint(make_document(records))
    lines = text_of(merge([("a.json", checkpoint)], expand([0, 1], 1), V2), 2).splitlines()
    assert "Game time / system time: 0.500 (10.0 FPS)" in lines  # of the other route
    assert lines[-2].split()[-1] == "-"


def test_quarantined_routes_are_named() -> None:
    document = append_quarantined(make_document([make_record(RouteRun(0))], total=2), RouteRun(5), V2)
    merged = merge([("a.json", as_checkpoint(document))], [RouteRun(0), RouteRun(5)], V2)
    text = text_of(merged, 2)
    assert "Quarantined and scored 0, because the simulator crashed" in text
    assert "again: RouteScenario_5_rep0 (up to 50 points of the driving score).\n" in text


@pytest.mark.parametrize("status", ["Failed - Agent couldn't be set up", "Failed - Agent's sensors were invalid"])
@pytest.mark.parametrize("version", [V1, V2])
def test_routes_that_have_a_record_and_no_drive_are_counted(version: LeaderboardVersion, status: str) -> None:
    records = [make_record(RouteRun(0), 0, version), make_record(RouteRun(1), 1, version, status=status)]
    text = summary_text(make_document(records), version, 2, scored=False)

    assert "Routes completed: 2 of 2\nNot driven, although recorded: 1 (the agent could not be set up, or" in text


def test_routes_that_were_driven_again_are_counted_and_named() -> None:
    checkpoint = make_checkpoint([RouteRun(0)])
    redriven = ["Routes driven more than once: 1", "route 0: 2 drives (the simulator died)"]
    text = summary_text(checkpoint.document, V2, 1, redriven=redriven)

    assert "\n\nRoutes driven more than once: 1\nroute 0: 2 drives (the simulator died)\n" in text
    assert "more than once" not in summary_text(checkpoint.document, V2, 1)
