"""Bad checkpoints and what follows: the table of docs/bad-data.md, and a fuzz of reading and merging."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from evaluation.errors import InvalidCheckpoint
from evaluation.pair.protocol import parse_progress
from evaluation.results.checkpoint import Checkpoint, check_expected
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.evalai_result import accuracies, evalai_result, partial_result
from evaluation.results.merge import Merged, merge
from evaluation.results.records import SCORES
from evaluation.results.summary import summary_text
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion
from tests.bad_files import BAD_FILES, SENT, sound
from tests.result_files import V1, V2, as_bytes, make_document, make_record

PAGE = Path(__file__).resolve().parents[2] / "docs/bad-data.md"


def taken(data: bytes, expected: tuple[RouteRun, ...] = SENT, version: LeaderboardVersion = V2) -> Checkpoint:
    """As the supervisor and the flow take a shard's file."""
    checkpoint = parse_checkpoint(data, "shard.json", version)
    check_expected(checkpoint, expected, "shard.json")
    return checkpoint


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_with_its_reason_and_what_to_do(kind: str) -> None:
    content, reason = BAD_FILES[kind]

    with pytest.raises(InvalidCheckpoint) as refused:
        taken(content())

    sentence = str(refused.value)
    assert sentence.startswith(f"shard.json: {reason}")
    assert sentence.endswith("Put the shard's last good checkpoint in its place, or drive the shard again.")
    assert sentence.isprintable()
    assert len(sentence) < 400


@pytest.mark.parametrize("kind", BAD_FILES)
def test_the_page_says_so(kind: str) -> None:
    assert f"\n| {kind} | `{BAD_FILES[kind][1]}` |\n" in PAGE.read_text("utf-8")


def test_a_newer_format_that_only_adds_is_taken_and_nothing_of_it_is_lost() -> None:
    document = sound(3) | {"version": 3, "hardware": {"gpu": "A10G"}}
    document["_checkpoint"]["records"][0] |= {"weather": [1, 2]}

    merged = merge([("shard.json", taken(as_bytes(document)))], SENT, V2)

    assert merged.complete
    assert merged.document["_checkpoint"]["records"][0]["weather"] == [1, 2]


def test_two_shards_with_the_same_route_are_not_merged() -> None:
    parts = [(name, taken(as_bytes(sound()))) for name in ("a.json", "b.json")]

    with pytest.raises(InvalidCheckpoint, match=r"^b.json: .*names route 0, which a.json holds already"):
        merge(parts, SENT + expand([3, 4, 5], 1), V2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"attempt": Infinity}',
        b'{"attempt": 1e999}',
        b"[]" + b" " * 2_000_000,
        "{\ud800".encode(errors="surrogatepass"),
    ],
    ids=["empty", "no-members", "nested", "infinite", "too-large-a-number", "2-MB", "no-utf-8"],
)
def test_progress_that_is_none_is_no_news(data: bytes) -> None:
    assert parse_progress(data) is None


# ---- whatever two shards hand in: a result that can be published, or InvalidCheckpoint ----

NASTY = st.sampled_from(
    [
        *(
            0.5,
            1,
            33.3,
            100.0,
            None,
            True,
            -1,
            0,
            10**30,
            10**400,
            1e308,
            -0.0,
            5e-324,
            float("nan"),
            float("inf"),
            "",
            "NaN",
            "1e9",
        ),
        *("\ud800", "\x00", "Failed - " + "x" * 300, "RouteScenario_1_rep0", "RouteScenario_2_rep0"),
    ]
)
# Made anew for each draw: what was drawn is changed below, and one list for all would soon hold itself.
CONTAINERS = (
    st.builds(list) | st.builds(dict) | st.builds(lambda: ["Agent went outside its route lanes for about 1e308 meters"])
)
JSON = st.recursive(
    NASTY | CONTAINERS | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def members(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a document with each of its keys or positions."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from members(inner)


@st.composite
def handed_in(draw: st.DrawFn, runs: tuple[RouteRun, ...], version: LeaderboardVersion) -> bytes:
    """A shard's file, sound or with members replaced, taken away or added, or with bytes changed; or anything."""
    if draw(st.integers(0, 19)) == 19:
        return draw(st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()))
    count = draw(st.sampled_from([len(runs), len(runs), len(runs) - 1]))
    document = make_document([make_record(run, n, version) for n, run in enumerate(runs[:count])], len(runs))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        places = list(members(document))
        container, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "remove":
                del container[key]
            case "add" if isinstance(container, list):
                container.insert(key, draw(JSON))
            case "add":
                container[draw(st.text(max_size=5))] = draw(JSON)
            case _:
                container[key] = draw(JSON)
    data = bytearray(json.dumps(document).encode())
    if draw(st.integers(0, 9)) == 9:
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=400)
@given(data=st.data(), version=st.sampled_from([V1, V2]))
def test_whatever_two_shards_hand_in_is_published_soundly_or_refused(
    data: st.DataObject, version: LeaderboardVersion
) -> None:
    sent = [expand([0, 1], 1), expand([2], 1)]
    files = [data.draw(handed_in(runs, version)) for runs in sent]
    refusal = ""
    try:
        parts = [(f"{n}.json", taken(content, sent[n], version)) for n, content in enumerate(files)]
        merged = merge(parts, sent[0] + sent[1], version)
    except InvalidCheckpoint as error:
        refusal = str(error)
    if refusal:
        event("refused")
        assert refusal.isprintable()
    else:
        event("merged, complete" if merged.complete else "merged, incomplete")
        assert_sound(merged, sent[0] + sent[1], parts)


def assert_sound(merged: Merged, sent: tuple[RouteRun, ...], parts: list[tuple[str, Checkpoint]]) -> None:
    """Exactly the expected routes, every figure finite and in its range, and everything that is published of it."""
    text = render_document(merged.document, merged.version)  # refuses NaN
    again = parse_checkpoint(text.encode(), "merged.json", merged.version)
    driven = {run for _, part in parts for run in part.runs}
    assert again.runs == tuple(run for run in sent if run in driven)
    assert merged.missing == tuple(run for run in sent if run not in driven)
    for record in again.records:
        assert all(0 <= record["scores"][key] <= most for key, most in SCORES.items())
    summary_text(merged.document, merged.version, len(sent), merged.missing).encode()
    published = [*partial_result(merged)] if merged.routes_done else []
    if merged.complete:
        figures = accuracies(merged.document, merged.version)
        assert all(map(math.isfinite, figures.values()))
        assert 0 <= figures["Driving score"] <= 100
        assert 0 <= figures["Route completion"] <= 100
        assert 0 <= figures["Infraction penalty"] <= 1
        published += evalai_result(merged.document, merged.version)
    json.dumps(published, allow_nan=False)
