"""progress.json: written by the supervisor, read by the flow and by the pod that replaces another."""

import json
from datetime import UTC, datetime

import pytest

from evaluation.pair.protocol import Counters, PairExitCode, PairProgress, parse_progress
from evaluation.routes import RouteRun
from evaluation.shards import ShardState

PROGRESS = PairProgress(
    attempt=2,
    state=ShardState.DRIVING,
    routes_done=3,
    routes_total=5,
    route=3,
    counters=Counters(2, 1, 1, {3: 1}, (RouteRun(1), RouteRun(2, 1))),
    exit_code=None,
    detail="driving route 3 (start 2)",
    updated_at=datetime(2026, 11, 21, 12, 0, 0, 5, UTC),
)


def test_progress_survives_the_way_through_a_file() -> None:
    failed = PairProgress(
        1, ShardState.FAILED, 0, 5, None, Counters(), PairExitCode.AGENT_HANGS, "", PROGRESS.updated_at
    )

    assert parse_progress(PROGRESS.render()) == PROGRESS
    assert parse_progress(failed.render().encode()) == failed


def test_the_file_reads_as_agreed() -> None:
    assert json.loads(PROGRESS.render()) == {
        "attempt": 2,
        "state": "driving",
        "routes_done": 3,
        "routes_total": 5,
        "route": 3,
        "counters": {
            "starts": 2,
            "agent_restarts": 1,
            "infrastructure_restarts": 1,
            "simulator_crashes": {"3": 1},
            "quarantined": [{"route": 1, "repetition": 0}, {"route": 2, "repetition": 1}],
            "evaluator_deaths": {},
            "given_up": [],
        },
        "exit_code": None,
        "detail": "driving route 3 (start 2)",
        "updated_at": "2026-11-21T12:00:00.000005Z",
    }


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"null", b'{"attempt": 1}', b"\xff"])
def test_what_is_no_progress_is_no_news(data: bytes) -> None:
    assert parse_progress(data) is None
