import copy

import pytest

from evaluation.errors import InvalidCheckpoint
from evaluation.results.checkpoint import check_expected
from evaluation.results.checkpoint_writing import append_quarantined, empty_document, render_document
from evaluation.results.merge import merge
from evaluation.results.records import INFRACTIONS
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_checkpoint, make_document, make_record

SENT = expand([3, 4, 5], 1)


@pytest.mark.parametrize("version", [V1, V2])
def test_quarantined_route_is_a_record_with_zero_scores_after_which_the_shard_goes_on(
    version: LeaderboardVersion,
) -> None:
    before = make_document([make_record(SENT[0], 0, version)], total=3, entry="Crashed")
    untouched = copy.deepcopy(before)

    after = as_checkpoint(append_quarantined(before, SENT[1], version), version)

    check_expected(after, SENT, "a.json")
    assert before == untouched
    assert after.statuses == ("Completed", "Failed - Simulation crashed")
    assert after.records[0] == before["_checkpoint"]["records"][0]
    assert set(after.records[1]["scores"].values()) == {0.0}
    assert after.document["_checkpoint"]["progress"] == [2, 3]
    assert after.entry_status == "Started"  # 2.x would repeat the last route of a Crashed one
    assert after.next_record == 2
    assert after.sensors == before["sensors"]


def test_quarantined_record_has_the_exact_form_of_v2() -> None:
    record = append_quarantined(empty_document(3), SENT[0], V2)["_checkpoint"]["records"][0]
    assert list(record) == ["index", "route_id", "status", "num_infractions", "infractions", "scores", "meta"]
    assert list(record["infractions"]) == list(INFRACTIONS[V2])
    assert list(record["scores"]) == ["score_route", "score_penalty", "score_composed"]
    assert list(record["meta"]) == ["route_length", "duration_game", "duration_system"]
    assert record["route_id"] == "RouteScenario_3_rep0"


def test_quarantined_record_has_the_exact_form_of_v1() -> None:
    record = append_quarantined(empty_document(3), SENT[0], V1)["_checkpoint"]["records"][0]
    assert set(record) == {"index", "route_id", "status", "infractions", "scores", "meta"}
    assert set(record["infractions"]) == set(INFRACTIONS[V1])
    assert record["route_id"] == "RouteScenario_3"


@pytest.mark.parametrize("version", [V1, V2])
def test_evaluators_own_record_of_the_route_is_replaced(version: LeaderboardVersion) -> None:
    half_driven = make_record(SENT[1], 1, version, status="Failed - Simulation crashed")
    document = make_document([make_record(SENT[0], 0, version), half_driven], total=3, entry="Crashed")
    after = as_checkpoint(append_quarantined(document, SENT[1], version), version)
    assert after.runs == SENT[:2]
    assert after.records[1]["scores"]["score_route"] == 0.0


def test_last_repetition_of_a_v1_route_is_not_taken_for_the_next() -> None:
    document = make_document([make_record(RouteRun(3), 0, V1)], total=2)
    after = as_checkpoint(append_quarantined(document, RouteRun(3, 1), V1), V1)
    assert after.runs == expand([3], 2)
    assert after.statuses == ("Completed", "Failed - Simulation crashed")


def test_v1_template_needs_the_total() -> None:
    template = make_document([], total=3)
    template["_checkpoint"]["progress"] = []
    with pytest.raises(InvalidCheckpoint, match="progress"):
        append_quarantined(template, SENT[0], V1)
    assert append_quarantined(template, SENT[0], V1, total=3)["_checkpoint"]["progress"] == [1, 3]


def test_full_checkpoint_takes_no_further_record() -> None:
    document = make_document([make_record(SENT[0])], total=1)
    with pytest.raises(InvalidCheckpoint, match="RouteScenario_4_rep0"):
        append_quarantined(document, SENT[1], V2)


def test_set_with_a_quarantined_route_is_complete_and_counts_it_as_zero() -> None:
    document = make_document([make_record(SENT[0])], total=2)
    checkpoint = as_checkpoint(append_quarantined(document, SENT[1], V2))
    merged = merge([("a.json", checkpoint)], SENT[:2], V2)
    assert merged.complete
    assert merged.document["_checkpoint"]["global_record"]["scores_mean"]["score_composed"] == 50.0


@pytest.mark.parametrize(
    ("version", "entry", "done", "records", "following"),
    [
        (V2, "Started", 2, 2, 2),
        (V2, "Crashed", 2, 2, 1),  # repeats the route on which the simulator crashed
        (V2, "Crashed", 0, 0, 0),
        (V2, "Started", 3, 2, 2),
        (V1, "Crashed", 1, 2, 1),  # writes its progress after the record, which the next start replaces
    ],
)
def test_next_record_is_where_the_evaluator_resumes(
    version: LeaderboardVersion, entry: str, done: int, records: int, following: int
) -> None:
    document = make_document([make_record(SENT[n], n, version) for n in range(records)], total=3, entry=entry)
    document["_checkpoint"]["progress"][0] = done
    assert as_checkpoint(document, version).next_record == following


def test_v2_file_has_the_evaluators_key_order_and_no_final_newline() -> None:
    text = render_document(empty_document(5), V2)
    assert text.startswith(
        '{\n    "_checkpoint": {\n        "global_record": {},\n        "progress": [\n            0,'
    )
    assert text.endswith('    "sensors": [],\n    "values": [],\n    "labels": []\n}')


def test_v1_file_has_sorted_keys() -> None:
    text = render_document(empty_document(5), V1)
    assert text.endswith('    "labels": [],\n    "sensors": [],\n    "values": []\n}')
