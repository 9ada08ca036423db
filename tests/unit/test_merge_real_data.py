import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.errors import InvalidCheckpoint
from evaluation.results.checkpoint import Checkpoint
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.evalai_result import LABELS, accuracies
from evaluation.results.merge import Merged, global_record, merge
from evaluation.results.summary import summary_text
from tests.result_files import V1, V2
from tests.shared_data import DATA, needs_shared_data

pytestmark = needs_shared_data
CASES = DATA / "merge_cases"
RESULTS = DATA / "results"


def shards(case: str) -> list[tuple[str, Checkpoint]]:
    files = sorted((CASES / case).glob("partial_agent_results*.json"))
    return [(file.name, parse_checkpoint(file.read_bytes(), file.name)) for file in files]


def merged(parts: list[tuple[str, Checkpoint]]) -> Merged:
    return merge(parts, [run for _, part in parts for run in part.runs], parts[0][1].version)


def differences(ours: Any, theirs: Any, path: str = "") -> set[str]:
    """The paths of all members that differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = ours.keys() | theirs.keys()
        return {each for key in keys for each in differences(ours.get(key), theirs.get(key), f"{path}.{key}")}
    return set() if ours == theirs else {path}


@pytest.mark.parametrize("case", ["m20", "m220"])
def test_complete_v2_shards_give_the_official_file_byte_for_byte(case: str) -> None:
    result = merged(shards(case))
    assert result.complete
    assert render_document(result.document, V2).encode() == (CASES / case / "merged_master.json").read_bytes()


@pytest.mark.parametrize("case", ["m20", "m220"])
def test_order_of_v2_files_does_not_matter(case: str) -> None:
    assert merged(shards(case)[::-1]).document == merged(shards(case)).document


@pytest.mark.parametrize(("case", "official"), [("longest6", "merged.json"), ("o20", "merged_leaderboard-1.0.json")])
def test_complete_v1_shards_differ_from_the_official_file_in_its_fault_only(case: str, official: str) -> None:
    result = merged(shards(case))
    theirs = json.loads((CASES / case / official).read_bytes())

    # Both sets hold failed routes, so that even the faulty global status, always Failed, is right here.
    assert differences(result.document, theirs) == {"._checkpoint.global_record.meta.exceptions"}
    exceptions = theirs["_checkpoint"]["global_record"]["meta"]["exceptions"]
    expected = [exception for exception in exceptions if exception[2] != "Completed"]
    assert result.document["_checkpoint"]["global_record"]["meta"]["exceptions"] == expected
    theirs["_checkpoint"]["global_record"]["meta"]["exceptions"] = expected
    assert render_document(result.document, V1) == json.dumps(theirs, indent=4, sort_keys=True)


def test_v1_set_without_failed_route_is_completed() -> None:
    _, shard = shards("o20")[0]  # five routes, all completed; the official merge calls it Failed with five exceptions
    result = merged([("first", shard)])
    assert result.document["_checkpoint"]["global_record"]["status"] == "Completed"
    assert "exceptions" not in result.document["_checkpoint"]["global_record"]["meta"]
    assert result.document["entry_status"] == "Finished"


@pytest.mark.parametrize("case", ["m20", "m220", "o20", "longest6"])
@pytest.mark.parametrize("lost", [0, 3])
def test_set_without_one_shard_is_not_finished(case: str, lost: int) -> None:
    parts = shards(case)
    everything = [run for _, part in parts for run in part.runs]
    _, gone = parts.pop(lost)
    result = merge(parts, everything, gone.version)
    assert result.missing == gone.runs
    assert result.document["entry_status"] == "Started"
    assert result.document["eligible"] is False
    assert result.document["_checkpoint"]["global_record"] == {}
    assert result.document["values"] == result.document["labels"] == []
    assert result.document["_checkpoint"]["progress"] == [len(everything) - len(gone.runs), len(everything)]


@pytest.mark.parametrize("shard", range(4))
def test_published_v2_shard_is_recomputed_to_the_byte(shard: int) -> None:
    name = f"eval_bench2drive220_{shard}.json"
    data = (RESULTS / "simlingo-pdm_lite-2x-4shards" / name).read_bytes()
    published = json.loads(data)
    result = merged([(name, parse_checkpoint(data, name))]).document
    assert result["_checkpoint"]["global_record"] == published["_checkpoint"]["global_record"]
    members = ("values", "labels", "entry_status", "eligible", "sensors")
    assert [result[key] for key in members] == [published[key] for key in members]


def test_published_early_v2_result_is_recomputed() -> None:
    data = (RESULTS / "avd-20.json").read_bytes()
    published = json.loads(data)["_checkpoint"]["global_record"]
    checkpoint = parse_checkpoint(data, "avd-20.json")
    ours = merged([("avd-20.json", checkpoint)]).document["_checkpoint"]["global_record"]
    assert {**ours, "meta": published["meta"]} == published  # early 2.0 left the sums out of `meta`
    assert ours["meta"]["exceptions"] == published["meta"]["exceptions"]
    assert set(accuracies({"_checkpoint": {"global_record": ours}}, V2)) == set(LABELS[V2])


# Made by an evaluator before 1.0's last: it took score_route for a fraction: its rates are 100 times too low.
@pytest.mark.parametrize("name", ["transfuser-longest6-10.json", "transfuser-sample-10.json"])
def test_published_early_v1_result_has_our_scores(name: str) -> None:
    data = (RESULTS / name).read_bytes()
    published = json.loads(data)
    checkpoint = parse_checkpoint(data, name)
    ours = global_record(checkpoint.records, V1)
    theirs = published["_checkpoint"]["global_record"]
    assert ours["scores"] == pytest.approx(theirs["scores"], rel=1e-12)
    assert [f"{ours['scores'][key]:.3f}" for key in ("score_composed", "score_route", "score_penalty")] == published[
        "values"
    ][:3]
    rates = {key: 100 * rate for key, rate in theirs["infractions"].items()}
    assert ours["infractions"] == pytest.approx(rates, rel=1e-9)


def test_result_of_another_tool_is_refused_by_name() -> None:
    file = RESULTS / "simlingo-pdm_lite-2x-4shards" / "merged.json"
    with pytest.raises(InvalidCheckpoint, match=r"merged\.json: _checkpoint\.\S+ "):
        parse_checkpoint(file.read_bytes(), "merged.json")


@pytest.mark.parametrize(
    "file", sorted(DATA.glob("merge_cases/*/*.json")), ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_every_file_of_the_merge_cases_is_rendered_as_it_was_read(file: Path) -> None:
    checkpoint = parse_checkpoint(file.read_bytes(), file.name)
    assert render_document(checkpoint.document, checkpoint.version).encode() == file.read_bytes()
    assert summary_text(checkpoint.document, checkpoint.version, len(checkpoint.runs)).count("RouteScenario_") >= len(
        checkpoint.runs
    )
