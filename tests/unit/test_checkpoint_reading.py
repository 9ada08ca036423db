import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.errors import InvalidCheckpoint
from evaluation.results import checkpoint_json
from evaluation.results.checkpoint import check_expected
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_bytes, make_checkpoint, make_document, make_record

Change = Callable[[dict[str, Any]], object]


def two_routes(version: LeaderboardVersion = V2) -> dict[str, Any]:
    return make_document([make_record(RouteRun(route), route, version) for route in (0, 1)], total=5)


def refusal(data: bytes, version: LeaderboardVersion | None = None) -> str:
    with pytest.raises(InvalidCheckpoint) as caught:
        parse_checkpoint(data, "shard-2.json", version)
    message = str(caught.value)
    assert message.startswith("shard-2.json: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("version", [V1, V2])
def test_sound_file_is_read_and_its_version_recognised(version: LeaderboardVersion) -> None:
    found = parse_checkpoint(as_bytes(two_routes(version)), "a.json")
    assert found.version is version
    assert found.runs == (RouteRun(0), RouteRun(1))
    assert (found.records_done, found.total, found.last_status) == (2, 5, "Completed")


@pytest.mark.parametrize(
    "data",
    [b"", b" \n", b"{}", b"[]", b"null", b"7", b'{"_checkpoint": {"reco', b"\xff\xfe{}", b"[" * 100_000, b"NaN"],
    ids=["empty", "blank", "no-members", "list", "null", "number", "cut-off", "no-utf-8", "nested", "nan"],
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    assert "Put the shard's last good checkpoint in its place" in refusal(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_numbers_that_are_none_are_refused_even_under_unknown_keys(number: str) -> None:
    data = as_bytes(two_routes()).replace(b'"eligible"', f'"extra": {number}, "eligible"'.encode())
    assert "shard-2.json: the file holds " in refusal(data)


def test_file_cut_off_anywhere_is_refused() -> None:
    data = as_bytes(two_routes())
    for length in range(0, len(data), 37):
        refusal(data[:length])


def test_too_large_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_json, "MAX_BYTES", 100)
    assert "more than 100" in refusal(as_bytes(two_routes()))


def test_deep_nesting_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"deeper": [deep]}
    assert "32 levels" in refusal(as_bytes(two_routes() | {"extra": deep}))


def put(*path: str | int, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        parent: Any = document
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = value

    return change


def without(*path: str | int) -> Change:
    def change(document: dict[str, Any]) -> None:
        parent: Any = document
        for key in path[:-1]:
            parent = parent[key]
        del parent[path[-1]]

    return change


FIRST = ("_checkpoint", "records", 0)
BROKEN: list[tuple[str, Change]] = [
    ("_checkpoint", without("_checkpoint")),
    ("_checkpoint", put("_checkpoint", value=[])),
    ("_checkpoint.records", without("_checkpoint", "records")),
    ("_checkpoint.global_record", put("_checkpoint", "global_record", value=None)),
    ("_checkpoint.progress", without("_checkpoint", "progress")),
    ("_checkpoint.progress", put("_checkpoint", "progress", value=[])),
    ("_checkpoint.progress", put("_checkpoint", "progress", value=[2])),
    ("_checkpoint.progress", put("_checkpoint", "progress", value=[3, 2])),
    ("_checkpoint.progress", put("_checkpoint", "progress", value=[1, 1])),
    ("_checkpoint.progress[0]", put("_checkpoint", "progress", value=[-1, 5])),
    ("_checkpoint.progress[0]", put("_checkpoint", "progress", value=[True, 5])),
    ("_checkpoint.progress[1]", put("_checkpoint", "progress", value=[2, 10**9])),
    ("_checkpoint.progress[1]", put("_checkpoint", "progress", value=[2, 5.0])),
    ("_checkpoint.records[0]", put(*FIRST, value="Completed")),
    ("_checkpoint.records[0].index", put(*FIRST, "index", value=1)),
    ("_checkpoint.records[0].index", put(*FIRST, "index", value=-1)),
    ("_checkpoint.records[0].index", put(*FIRST, "index", value=False)),
    ("_checkpoint.records[0].status", without(*FIRST, "status")),
    ("_checkpoint.records[0].status", put(*FIRST, "status", value="Won")),
    ("_checkpoint.records[0].status", put(*FIRST, "status", value="Failed - \u001b[31mred")),
    ("_checkpoint.records[0].status", put(*FIRST, "status", value="Failed - \ud800")),
    ("_checkpoint.records[0].scores", put(*FIRST, "scores", value=[])),
    ("_checkpoint.records[0].scores.score_route", without(*FIRST, "scores", "score_route")),
    ("_checkpoint.records[0].scores.score_route", put(*FIRST, "scores", "score_route", value=100.1)),
    ("_checkpoint.records[0].scores.score_composed", put(*FIRST, "scores", "score_composed", value=-1)),
    ("_checkpoint.records[0].scores.score_penalty", put(*FIRST, "scores", "score_penalty", value=True)),
    ("_checkpoint.records[0].scores.score_penalty", put(*FIRST, "scores", "score_penalty", value="1.0")),
    ("_checkpoint.records[0].meta.route_length", put(*FIRST, "meta", "route_length", value=-1)),
    ("_checkpoint.records[0].meta.duration_game", put(*FIRST, "meta", "duration_game", value=-2)),
    ("_checkpoint.records[0].meta.duration_system", put(*FIRST, "meta", "duration_system", value=10**400)),
    ("_checkpoint.records[0].infractions.red_light", without(*FIRST, "infractions", "red_light")),
    ("_checkpoint.records[0].infractions.red_light", put(*FIRST, "infractions", "red_light", value=0)),
    ("_checkpoint.records[0].infractions.red_light[0]", put(*FIRST, "infractions", "red_light", value=[0])),
    ("_checkpoint.records[0].num_infractions", put(*FIRST, "num_infractions", value=1)),
    ("_checkpoint.records[0].num_infractions", without(*FIRST, "num_infractions")),
    ("_checkpoint.records[0].route_id", without(*FIRST, "route_id")),
    ("_checkpoint.records[0].route_id", put(*FIRST, "route_id", value=0)),
    ("_checkpoint.records[0].route_id", put(*FIRST, "route_id", value="RouteScenario_x_rep0")),
    ("_checkpoint.records[1].route_id", put("_checkpoint", "records", 1, "route_id", value="RouteScenario_1")),
    ("_checkpoint.records[1].route_id", put("_checkpoint", "records", 1, "route_id", value="RouteScenario_00_rep0")),
    ("entry_status", without("entry_status")),
    ("entry_status", put("entry_status", value="Winner")),
    ("eligible", put("eligible", value=1)),
    ("eligible", without("eligible")),
    ("sensors", put("sensors", value="carla_camera")),
    ("sensors[0]", put("sensors", value=[None])),
    ("sensors", put("sensors", value=["carla camera\n"])),
    ("values[0]", put("values", value=[1.0])),
    ("labels", put("labels", value=None)),
]


@pytest.mark.parametrize(("field", "change"), BROKEN, ids=[f"{n}-{field}" for n, (field, _) in enumerate(BROKEN)])
def test_broken_member_is_refused_by_name(field: str, change: Change) -> None:
    document = two_routes()
    change(document)
    assert refusal(as_bytes(document)).startswith(f"shard-2.json: {field} ")


@pytest.mark.parametrize(
    "message", ["Off", "Agent went outside its route lanes for about many meters", "a b c d e f g h nan"]
)
def test_distance_outside_the_lanes_must_be_readable(message: str) -> None:
    document = make_document([make_record(RouteRun(0), infractions={"outside_route_lanes": [message]})])
    assert "infractions.outside_route_lanes[0]" in refusal(as_bytes(document))


@pytest.mark.parametrize(("wanted", "written"), [(V1, V2), (V2, V1)])
def test_file_of_the_other_version_is_refused(wanted: LeaderboardVersion, written: LeaderboardVersion) -> None:
    message = refusal(as_bytes(two_routes(written)), wanted)
    assert message.startswith("shard-2.json: _checkpoint.records[0].route_id ")
    assert f"in a file of {wanted.value}" in message


def test_v1_template_is_a_start_without_total() -> None:
    template = make_document([]) | {"entry_status": "", "eligible": ""}
    template["_checkpoint"]["progress"] = []
    found = parse_checkpoint(render_document(template, V1).encode(), "a.json")
    assert (found.version, found.total, found.records_done, found.last_status) == (V1, None, 0, None)
    assert "_checkpoint.progress" in refusal(as_bytes(template), V2)


def test_v1_numbers_the_repetitions_of_a_repeated_id() -> None:
    document = make_document([make_record(RouteRun(4), index, V1) for index in range(3)])
    assert parse_checkpoint(as_bytes(document), "a.json").runs == expand([4], 3)


def test_unknown_keys_are_kept() -> None:
    record = make_record(RouteRun(0)) | {"town_name": "Town13", "weather": {"id": 7}}
    found = parse_checkpoint(as_bytes(make_document([record]) | {"extra": [1]}), "a.json")
    assert found.records == [record]
    assert found.document["extra"] == [1]


def test_progress_may_lag_behind_the_records() -> None:
    document = two_routes()  # 1.0 writes a record first and its progress after; a crash can come in between
    document["_checkpoint"]["progress"] = [1, 5]
    assert parse_checkpoint(as_bytes(document), "a.json").records_done == 2


SENT = expand([0, 1, 2], 1)


def test_shard_that_drove_the_first_of_its_routes_fits() -> None:
    found = make_checkpoint(list(SENT[:2]), total=3)
    check_expected(found, SENT, "a.json")
    assert found.runs == SENT[:2]


@pytest.mark.parametrize(
    ("runs", "total", "field"),
    [
        ([RouteRun(0), RouteRun(7)], 3, "_checkpoint.records[1].route_id"),
        ([RouteRun(1), RouteRun(0)], 3, "_checkpoint.records[0].route_id"),
        ([RouteRun(0, 1)], 3, "_checkpoint.records[0].route_id"),
        ([*SENT, RouteRun(3)], 4, "_checkpoint.records"),
        ([RouteRun(0)], 20, "_checkpoint.progress[1]"),
    ],
    ids=["stranger", "order", "repetition", "too-many", "total"],
)
def test_shard_that_drove_something_else_is_refused(runs: list[RouteRun], total: int, field: str) -> None:
    with pytest.raises(InvalidCheckpoint) as caught:
        check_expected(make_checkpoint(runs, total=total), SENT, "a.json")
    assert str(caught.value).startswith(f"a.json: {field} ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("RouteScenario_0_rep0"),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [each for key, child in items for each in paths_of(child, (*path, key))]


def parses_or_refuses(data: bytes, version: LeaderboardVersion | None = None) -> None:
    """Whatever is accepted can be written and read again; whatever is not raises InvalidCheckpoint in one line."""
    message, again = "", None
    try:
        found = parse_checkpoint(data, "a.json", version)
        again = parse_checkpoint(render_document(found.document, found.version).encode(), "b.json").runs
    except InvalidCheckpoint as error:
        message = str(error)
    if message:
        assert message.startswith("a.json: ")
        assert len(message.splitlines()) == 1
    else:
        assert again == found.runs


@settings(max_examples=150)
@given(data=st.data(), replacement=JSON, version=st.sampled_from([None, V1, V2]), written=st.sampled_from([V1, V2]))
def test_any_member_replaced_by_anything(
    data: st.DataObject, replacement: Any, version: LeaderboardVersion | None, written: LeaderboardVersion
) -> None:
    document = two_routes(written)
    put(*data.draw(st.sampled_from(paths_of(document))), value=replacement)(document)
    parses_or_refuses(json.dumps(document).encode(), version)


@settings(max_examples=100)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(data: bytes) -> None:
    parses_or_refuses(data)


@settings(max_examples=100)
@given(st.data())
def test_any_byte_of_a_sound_file_changed(data: st.DataObject) -> None:
    sound = bytearray(as_bytes(two_routes()))
    sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    parses_or_refuses(bytes(sound))


def written_size(document: dict[str, Any], version: LeaderboardVersion) -> int:
    return len(render_document(document, version).encode())


@pytest.mark.parametrize("version", [V1, V2])
def test_the_limit_holds_for_what_would_be_written(
    version: LeaderboardVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"é": ["true", 1e15, False, None, 'a, [b] {c} \\ " :', [], {}, [[1, 2], {"x": [3]}]], "plain": 7}
    records = [make_record(RouteRun(route), route, version) for route in range(3)]
    document = make_document(records, total=3) | {"extra": extra}
    compact = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    size = written_size(document, version)
    assert size > 2 * len(compact)

    monkeypatch.setattr(checkpoint_json, "MAX_BYTES", size + 100)  # room for numbers that could grow
    parse_checkpoint(compact, "shard.json", version)
    monkeypatch.setattr(checkpoint_json, "MAX_BYTES", size - 1)
    with pytest.raises(InvalidCheckpoint, match="when it is written with indentation, more than"):
        parse_checkpoint(compact, "shard.json", version)


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 26 + ",".join(["0"] * 1_900_000) + "]" * 26,  # each 0 takes a line of its own, with 120 spaces
        "[" + ",".join(["[]"] * 1_300_000) + "]",
        "[" * 1_000_000,
        '"' * 3_900_000,
        '"' + '\\"' * 1_900_000,
    ],
    ids=["deep list", "empty lists", "only brackets", "only quotes", "text without an end"],
)
def test_what_grows_when_it_is_written_or_costs_much_to_read_is_refused_before_it_is_built(bomb: str) -> None:
    data = as_bytes(two_routes()).replace(b'"eligible"', f'"extra": {bomb}, "eligible"'.encode())
    assert len(data) < checkpoint_json.MAX_BYTES

    tracemalloc.start()
    try:
        refusal(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 200 * 1024 * 1024  # the supervisor's container has 512 MiB
