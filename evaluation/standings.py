"""The best submission of each team in a phase, from the ledger, in EvalAI's order and with the figures it was sent.

EvalAI ranks by the leaderboard's default label, the driving score, highest first; of equal scores the row that was
made last is first; each team, known by its name, is shown once. What EvalAI hides or shows by hand (flagged, private,
baselines, banned teams) the ledger does not know. Source: docs/evalai.md, "The leaderboard's order".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from evaluation.lifecycle.ledger_entry import LedgerEntry

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Standing:
    """One row. `score` is the driving score, 0 to 100; `metrics` are all by EvalAI's names. Times are UTC."""

    rank: int
    team: str
    submission: int
    score: float
    metrics: Mapping[str, float]
    submitted_at: datetime | None
    remarks: str


@dataclass(frozen=True)
class Rank:
    """Where a team stands in a phase by its best submission, which may be another one."""

    position: int
    teams: int
    best: int


def standings(entries: Iterable[LedgerEntry], phase: str) -> list[Standing]:
    """The phase's rows by rank, from 1."""
    scored = [(entry, entry.score) for entry in entries if entry.phase == phase]
    ranked = sorted(
        ((entry, score) for entry, score in scored if score is not None),
        key=lambda item: (item[1], item[0].ended_at or _LONG_AGO, item[0].submission),
        reverse=True,
    )
    best: dict[str, tuple[LedgerEntry, float]] = {}
    for entry, score in ranked:
        best.setdefault(entry.team_label, (entry, score))
    return [
        Standing(rank, team, entry.submission, score, entry.metrics, entry.submitted_at, entry.remarks)
        for rank, (team, (entry, score)) in enumerate(best.items(), 1)
    ]


def rank_of(entries: Iterable[LedgerEntry], entry: LedgerEntry) -> Rank | None:
    """Where the entry's team stands in its phase; None for a team without a score."""
    rows = standings(entries, entry.phase)
    own = next((row for row in rows if row.team == (entry.team_label)), None)
    return Rank(own.rank, len(rows), own.submission) if own else None
