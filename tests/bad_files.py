"""Bad checkpoints of a shard that was sent routes 0, 1 and 2 of the Leaderboard 2.0, each with why it is refused.

`docs/bad-data.md` shows the same table; tests/unit/test_bad_checkpoints.py keeps the two equal.
"""

import json
from collections.abc import Callable
from typing import Any

from evaluation.routes import RouteRun, expand
from tests.result_files import V1, as_bytes, make_document, make_record

SENT = expand([0, 1, 2], 1)
FIRST_SCORES = "_checkpoint.records[0].scores"


def sound(count: int = 1) -> dict[str, Any]:
    """The shard's checkpoint after so many routes."""
    return make_document([make_record(run, index) for index, run in enumerate(SENT[:count])], total=len(SENT))


def _of(*routes: int, total: int = 3) -> bytes:
    return as_bytes(make_document([make_record(RouteRun(route), n) for n, route in enumerate(routes)], total=total))


def _with_record(**members: Any) -> bytes:
    document = sound()
    document["_checkpoint"]["records"][0] |= members
    return as_bytes(document)


def _with_scores(**scores: Any) -> bytes:
    return _with_record(scores={"score_route": 100.0, "score_penalty": 1.0, "score_composed": 100.0} | scores)


def _with_text(extra: str) -> bytes:
    return as_bytes(sound()).replace(b'"eligible"', f'{extra}, "eligible"'.encode())


def _renamed() -> bytes:
    document = sound()
    record = document["_checkpoint"]["records"][0]
    record["results"] = record.pop("scores")
    return as_bytes(document)


# kind -> its content, and the reason after the file's name; as far as the content is not Python's own words
BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut off": (lambda: as_bytes(sound())[:-40], "the file is not JSON, or was cut off"),
    "empty": (lambda: b"", "the file is empty"),
    "200 MB": (lambda: bytes(200_000_000), "the file has 200000000 bytes, more than 4194304"),
    "not JSON": (lambda: b"PK\x03\x04\x14\x00", "the file is not JSON, or was cut off"),
    "not UTF-8": (lambda: b"\xff\xfe{}", "the file is not JSON, or was cut off"),
    "JSON, but no object": (lambda: b"[]", "the file must be a JSON object, not a list of 0"),
    "a wrong type": (
        lambda: _with_scores(score_route="100"),
        f"{FIRST_SCORES}.score_route must be a number from 0 to 100, not '100'",
    ),
    "NaN": (lambda: _with_scores(score_route=float("nan")), "the file holds NaN, which is not a number"),
    "an infinite number": (lambda: _with_text('"extra": 1e999'), "the file holds 1e999, which is too large"),
    "an endless number": (lambda: _with_text(f'"extra": {"9" * 5000}'), "the file holds a number of 5000 digits"),
    "nested without end": (lambda: b"[" * 100_000, "the file is nested more than 32 levels deep"),
    "a key twice": (
        lambda: _with_text('"entry_status": "Finished"'),
        "the file has the key 'entry_status' twice in one object",
    ),
    "a score out of range": (
        lambda: _with_scores(score_composed=100.5),
        f"{FIRST_SCORES}.score_composed must be a number from 0 to 100, not 100.5",
    ),
    "a route that was not sent out": (
        lambda: _of(0, 7),
        "_checkpoint.records[1].route_id must be of route 1, which was sent out, not of route 7",
    ),
    "routes in another order": (
        lambda: _of(1, 0),
        "_checkpoint.records[0].route_id must be of route 0, which was sent out, not of route 1",
    ),
    "a route twice": (lambda: _of(0, 0), "_checkpoint.records[1].route_id names 'RouteScenario_0_rep0' twice"),
    "more routes than were sent out": (
        lambda: _of(0, 1, 2, 3, total=4),
        "_checkpoint.records must count the 3 routes that were sent out, not 4",
    ),
    "another number of routes to drive": (
        lambda: _of(0, total=20),
        "_checkpoint.progress[1] must count the 3 routes that were sent out, not 20",
    ),
    "the other version's file": (
        lambda: as_bytes(make_document([make_record(SENT[0], 0, V1)], total=3)),
        "_checkpoint.records[0].route_id must be RouteScenario_<id>_rep<k> in a file of 2.0, not 'RouteScenario_0'",
    ),
    "a newer format that renames a member": (_renamed, f"{FIRST_SCORES} is missing"),
    "a newer format with another status": (
        lambda: _with_record(status="Abandoned"),
        "_checkpoint.records[0].status must be Completed, Failed or Failed - <why>, not 'Abandoned'",
    ),
    "a newer format with another entry status": (
        lambda: json.dumps(sound() | {"entry_status": "Paused"}).encode(),
        "entry_status is unknown: 'Paused'",
    ),
}
