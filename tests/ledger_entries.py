"""Entries of the ledger, as its rows would give them."""

from dataclasses import replace
from typing import Any

from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry

_ROW = {
    "team-id": "3", "challenge-id": "1", "phase-id": "2", "attempt": 1, "claim-owner": "run", "status": "finished",
    "phase": "leaderboard-20-SENSORS", "cluster": "leaderboard-20", "team-name": "Rockets",
    "claimed-at": "2026-01-05T09:00:00+00:00", "end-time": "2026-01-05T10:00:00+00:00",
}  # fmt: skip


def ledger_entry(submission: int, **changes: Any) -> LedgerEntry:
    """A finished one without metrics, with these fields changed."""
    found = read_entry({"submission-id": str(submission), **_ROW})
    assert found is not None
    return replace(found, **changes)
