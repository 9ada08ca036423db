"""The submission ledger in memory. tests/contract/test_ledger_*.py hold it to the rules of blocks.ledger_table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from aws_api.dynamodb_values import decode, encode
from evaluation.errors import AlreadyClaimed, RequestRefused, ServiceUnavailable
from evaluation.lifecycle.ledger_entry import LedgerEntry, claim_key, read_entry
from evaluation.lifecycle.stages import Stage
from evaluation.ports import Claim, Row
from evaluation.submission.model import Submission

OF_THE_ATTEMPT = (
    "end-time",
    "outcome",
    "undelivered",
    "refused",
    "reason",
    "fault",
    "remarks",
    "report-resends",
    "forecast",
)
RESERVED = {
    "team-id", "submission-id", "claim-key", "claim-owner", "claimed-at", "claim-epoch", "claim-token", "lease-until",
    "lease-renewal", "attempt", "stage", "report-resends",
}  # fmt: skip


@dataclass
class FakeLedger:
    """One row per submission; `stages` are those that runs entered. A test may change rows behind its back."""

    rows: dict[int, dict[str, object]] = field(default_factory=dict)
    lease_seconds: int = 180
    stages: list[str] = field(default_factory=list)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    losing: bool = False  # the next write is done, and its answer is lost

    def claim(self, submission: Submission, owner: str, epoch: int = 1) -> Claim:
        row, key, token = self.rows.get(submission.pk, {}), claim_key(submission.rerun_resumed_at), uuid4().hex
        held_key, held_epoch = row.get("claim-key"), int(str(row.get("claim-epoch") or 1))
        takeover = (row.get("claim-owner"), held_key) == (owner, key) and not row.get("end-time")
        if (takeover and epoch < held_epoch) or (not takeover and held_key is not None and str(held_key) >= key):
            raise self._taken(submission.pk, row)
        now = self.now()
        if not takeover:
            row = {name: value for name, value in row.items() if name not in OF_THE_ATTEMPT}
            row |= {**_described(submission), "claim-owner": owner, "claim-key": key}
            row |= {"claimed-at": now, "start-time": now, "attempt": int(str(row.get("attempt") or 0)) + 1}
        row |= {"claim-epoch": epoch, "claim-token": token, "stage": Stage.CLAIMED.value, "stage-since": now}
        self._put(submission.pk, {**row, **self._lease()})
        attempt = int(str(row["attempt"]))
        return Claim(submission.pk, submission.team_pk, key, owner, attempt, epoch, token, takeover)

    def update(self, claim: Claim, values: Row) -> None:
        if reserved := sorted(RESERVED & values.keys()):
            raise RequestRefused(f"The ledger's own attributes cannot be written: {', '.join(reserved)}")
        self._write_held(claim, {name: value for name, value in values.items() if value is not None})
        for name in [name for name, value in values.items() if value is None]:
            self.rows[claim.submission].pop(name, None)

    def renew(self, claim: Claim, stage: Stage | None = None) -> None:
        self._write_held(claim, {"stage": stage.value, "stage-since": self.now()} if stage else {})
        if stage:
            self.stages.append(stage.value)

    def _write_held(self, claim: Claim, values: Row) -> None:
        row = self.rows.get(claim.submission, {})
        if row.get("claim-token") != claim.token:
            raise self._taken(claim.submission, row)
        self._put(claim.submission, {**row, **values, **self._lease()})

    def reopen(self, entry: LedgerEntry, decided: str | None = None) -> None:
        row = self.rows.get(entry.submission, {})
        same = (row.get("claim-owner"), row.get("claim-key"), row.get("claim-epoch", 1))
        if same != (entry.owner, entry.key, entry.epoch) or not (row.get("end-time") and row.get("outcome")):
            raise self._taken(entry.submission, row)
        open_row = {name: value for name, value in row.items() if name not in ("end-time", "claim-token")}
        change = {"outcome": decided} if decided else {"report-resends": entry.resends + 1}
        self._put(entry.submission, {**open_row, **change, **self._lease(), "lease-until": self.now()})

    def entries(self) -> Iterable[LedgerEntry]:
        return [entry for row in self.rows.values() if (entry := read_entry(row))]

    def row(self, team: int, submission: int) -> Row | None:
        row = self.rows.get(submission)
        return None if row is None else dict(row)

    def with_own_connection(self) -> "FakeLedger":
        return self

    def _lease(self) -> dict[str, object]:
        return {"lease-until": self.now() + timedelta(seconds=self.lease_seconds), "lease-renewal": uuid4().hex}

    def _put(self, pk: int, row: Row) -> None:
        self.rows[pk] = decode({name: encode(name, value) for name, value in row.items() if value is not None})
        if self.losing:
            self.losing = False
            raise ServiceUnavailable("The answer of the ledger was lost")

    @staticmethod
    def _taken(pk: int, row: Row) -> AlreadyClaimed:
        if "claim-owner" not in row:
            return AlreadyClaimed(f"The claim of submission {pk} is gone", "its row in the ledger was removed")
        if row.get("end-time"):
            return AlreadyClaimed(f"Submission {pk} was evaluated already, until {row['end-time']}")
        epoch, since = row.get("claim-epoch", 1), row.get("claimed-at")
        run = f"flow run {row['claim-owner']}" if epoch == 1 else f"epoch {epoch} of flow run {row['claim-owner']}"
        return AlreadyClaimed(f"Submission {pk} is evaluated by {run} since {since}")


def _described(submission: Submission) -> dict[str, object]:
    description = {
        "team-id": str(submission.team_pk),
        "submission-id": str(submission.pk),
        "team-name": submission.team_name,
        "challenge-id": str(submission.challenge_pk),
        "phase-id": str(submission.phase_pk),
        "phase": submission.phase.codename,
        "track": submission.phase.track,
        "cluster": submission.phase.cluster,
        "image": submission.image,
        "submitted-at": submission.submitted_at,
        "status": submission.status,
    }
    return {name: value for name, value in description.items() if value is not None}
