from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.errors import EvaluationError
from evaluation.results.checkpoint import Checkpoint
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.merge import Merged, Part, merge
from evaluation.results.records import INFRACTIONS
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_checkpoint, make_document, make_record

STATUSES = ("Completed", "Failed", "Failed - Agent got blocked", "Failed - Agent timed out")


@st.composite
def drives(draw: st.DrawFn, version: LeaderboardVersion) -> dict[RouteRun, dict[str, Any]]:
    """Records of all repetitions of some routes, with random results."""
    runs = expand(draw(st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True)), draw(st.integers(1, 2)))
    return {run: draw(results(run, version)) for run in runs}


@st.composite
def results(draw: st.DrawFn, run: RouteRun, version: LeaderboardVersion) -> dict[str, Any]:
    share = st.floats(0, 1, allow_nan=False)
    route, penalty = 100 * draw(share), draw(share)
    kinds = draw(st.lists(st.sampled_from([key for key in INFRACTIONS[version] if "lanes" not in key]), max_size=4))
    infractions = {key: ["message"] * kinds.count(key) for key in kinds}
    scores = {"score_route": route, "score_penalty": penalty, "score_composed": route * penalty}
    meta = {"route_length": 5000 * draw(share), "duration_game": draw(share), "duration_system": -1}
    status = draw(st.sampled_from(STATUSES))
    return make_record(run, 0, version, infractions=infractions, scores=scores, meta=meta, status=status)


def files(groups: list[list[dict[str, Any]]], version: LeaderboardVersion) -> list[Part]:
    return [
        (f"{n}.json", as_checkpoint(make_document([{**r, "index": i} for i, r in enumerate(group)]), version))
        for n, group in enumerate(groups)
    ]


def by_route(records: dict[RouteRun, dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """1.0 gives a route's repetitions one id, so that a shard holds all of them."""
    routes = dict.fromkeys(run.route for run in records)
    return [[record for run, record in records.items() if run.route == route] for route in routes]


def split(data: st.DataObject, groups: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    shards: list[list[dict[str, Any]]] = [[] for _ in range(4)]
    for group in groups:
        shards[data.draw(st.integers(0, 3))].extend(group)
    return data.draw(st.permutations(shards))


VERSIONS = st.sampled_from([V1, V2])


@settings(max_examples=80)
@given(data=st.data(), version=VERSIONS)
def test_any_partition_in_any_order_equals_the_whole(data: st.DataObject, version: LeaderboardVersion) -> None:
    records = data.draw(drives(version))
    expected = data.draw(st.permutations(list(records)))
    whole = merge(files([[r for group in by_route(records) for r in group]], version), expected, version)
    parts = merge(files(split(data, by_route(records)), version), expected, version)
    assert parts.complete
    assert reread(parts).runs == tuple(sorted(records))
    if version is V2:  # 1.0 sums in the files' order, without rounding
        assert render_document(parts.document, V2) == render_document(whole.document, V2)
        return
    assert parts.document["_checkpoint"]["records"] == whole.document["_checkpoint"]["records"]
    ours, theirs = (result.document["_checkpoint"]["global_record"] for result in (parts, whole))
    assert ours["scores"] == pytest.approx(theirs["scores"])
    assert ours["infractions"] == pytest.approx(theirs["infractions"])


def reread(result: Merged) -> Checkpoint:
    return parse_checkpoint(render_document(result.document, result.version).encode(), "merged.json", result.version)


@settings(max_examples=80)
@given(data=st.data(), version=VERSIONS)
def test_set_that_lacks_anything_is_never_finished(data: st.DataObject, version: LeaderboardVersion) -> None:
    records = data.draw(drives(version))
    last = max(run.repetition for run in records)
    lost = {run for run in records if run.repetition == last and data.draw(st.booleans())}
    kept = {run: record for run, record in records.items() if run not in lost}
    result = merge(files(split(data, by_route(kept)), version), list(records), version)
    document = result.document
    assert set(result.missing) == lost
    assert document["_checkpoint"]["progress"] == [len(records) - len(lost), len(records)]
    assert document["entry_status"].startswith("Finished") is not bool(lost)
    assert document["eligible"] is not bool(lost)
    assert bool(document["_checkpoint"]["global_record"]) is not bool(lost)
    assert reread(result).runs == tuple(sorted(kept))


@settings(max_examples=60)
@given(data=st.data())
def test_any_files_merge_or_are_refused(data: st.DataObject) -> None:
    """No other exception, and a complete result has exactly the expected routes."""
    version = data.draw(VERSIONS)
    runs = st.lists(st.builds(RouteRun, st.integers(0, 3)), max_size=3, unique=True)
    groups = [[make_record(run, 0, version) for run in data.draw(runs)] for _ in range(data.draw(st.integers(0, 3)))]
    expected = expand(range(data.draw(st.integers(0, 4))), 1)
    result = None
    try:
        result = merge(files(groups, version), expected, version)
    except EvaluationError:
        routes = sorted(record["route_id"] for group in groups for record in group)
        assert not expected or len(set(routes)) < len(routes) or len(expected) < 4
    if result and result.complete:
        assert reread(result).runs == expected
