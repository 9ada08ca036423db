"""The ledger's row of a submission: its attributes' names, and what they say of the claim."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from evaluation.lifecycle.forecast import Forecast, read_forecast
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.lifecycle.stages import Stage
from evaluation.moments import parse_moment
from evaluation.pair.usage import AttemptUsage, read_usage
from evaluation.results.metrics import METRICS, SCORES
from evaluation.submission.model import LeaderboardVersion

TEAM, SUBMISSION = "team-id", "submission-id"
CHALLENGE, PHASE_ID, PHASE, CLUSTER, IMAGE = "challenge-id", "phase-id", "phase", "cluster", "image"
TEAM_NAME, IMAGE_DIGEST = "team-name", "image-digest"  # the digest: of what the first attempt ran; a resume uses it
IMAGES = "images"  # every digest that a pod of any attempt ran -> the shards where it was seen
CLAIM_KEY, CLAIM_OWNER, CLAIMED_AT, ATTEMPT = "claim-key", "claim-owner", "claimed-at", "attempt"
CLAIM_EPOCH, CLAIM_TOKEN, LEASE_UNTIL = "claim-epoch", "claim-token", "lease-until"
LEASE_RENEWAL = "lease-renewal"  # another value at each renewal: comparing two of them needs no clock
STAGE, STAGE_SINCE = "stage", "stage-since"
STATUS, REASON, FAULT = "status", "reason", "fault"
REMARKS = "remarks"  # what belongs beside the score: quarantined routes, restarts
FORECAST = "forecast"  # place in a queue and expected times, then the true ones (evaluation.lifecycle.forecast)
USAGE = "usage"  # GPU seconds of each attempt, by its number (evaluation.pair.usage)
ROUTES_DONE, ROUTES_TOTAL = "routes-done", "routes-total"
SUBMITTED_AT = "submitted-at"
OUTCOME = "outcome"  # key of the kept outcome in the artifact store, from the moment it is decided
UNDELIVERED = "undelivered"  # why the report has not reached EvalAI yet
REFUSED = "refused"  # EvalAI understood the report and refused it: an operator has to act
RESENDS = "report-resends"  # how often the reconciler reopened this attempt to send its report again
END_TIME = "end-time"  # from the moment an evaluation has ended until a resume

_IDS = (SUBMISSION, TEAM, CHALLENGE, PHASE_ID, ATTEMPT)  # of every row that this system has claimed


def claim_key(rerun_resumed_at: datetime | None) -> str:
    """`2026-11-21T01:37:57.537792Z`: UTC and of fixed width, so that text order is time order; "" for a first run.

    EvalAI sends UTC; a time without a zone is read as UTC.
    """
    if rerun_resumed_at is None:
        return ""
    moment = rerun_resumed_at if rerun_resumed_at.tzinfo else rerun_resumed_at.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class LedgerEntry:
    """A row that has been claimed. Rows of the original system have no claim and are no entries. Times are UTC."""

    submission: int
    team: int
    challenge: int
    phase_pk: int
    cluster: str
    phase: str  # its codename
    team_name: str
    key: str
    owner: str
    epoch: int
    attempt: int
    claimed_at: datetime | None
    lease_until: datetime | None
    stage: Stage | None
    stage_since: datetime | None
    ended_at: datetime | None
    status: str
    reason: str
    outcome: str | None
    undelivered: str
    refused: bool
    image: str | None
    renewal: str = ""
    resends: int = 0
    submitted_at: datetime | None = None
    remarks: str = ""
    routes_done: int = 0
    routes_total: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)  # by EvalAI's names, of the last result
    usage: tuple[AttemptUsage, ...] = ()
    forecast: Forecast | None = None  # of this attempt
    unreadable: str = ""  # attributes that cannot be read; nothing is decided on such a row

    @property
    def open(self) -> bool:
        return self.ended_at is None

    @property
    def team_label(self) -> str:
        """The team's name; rows of before names were kept have its id only."""
        return self.team_name or f"team {self.team}"

    @property
    def score(self) -> float | None:
        """The driving score, 0 to 100, of what has finished."""
        return self.metrics.get(SCORES[0].name) if self.status == OutcomeStatus.FINISHED else None

    @property
    def sign_of_life(self) -> tuple[int, str, datetime | None]:
        """What every renewal and every takeover changes: two equal ones show no renewal in between."""
        return self.epoch, self.renewal, self.lease_until

    def seems_held(self, now: datetime, lease: timedelta) -> bool:
        """Whether the lease runs, if the holder's clock and `now` agree; a hint that decides nothing.

        A lease that ends later than one made at this moment shows that the clocks differ: then there is no hint.
        """
        return self.open and self.lease_until is not None and now < self.lease_until <= now + lease

    def time_in_stage(self, lease: timedelta) -> timedelta | None:
        """From the stage's begin to the last renewal: both times are of the holder's clock."""
        if self.stage_since is None or self.lease_until is None:
            return None
        return self.lease_until - lease - self.stage_since


def read_entry(row: Mapping[str, object] | None) -> LedgerEntry | None:
    """The row as an entry; None where there is no row, or where no run has ever claimed it."""
    if row is None or CLAIM_OWNER not in row:
        return None

    def text(name: str) -> str:
        return str(row.get(name) or "")

    return LedgerEntry(
        submission=_whole(row, SUBMISSION),
        team=_whole(row, TEAM),
        challenge=_whole(row, CHALLENGE),
        phase_pk=_whole(row, PHASE_ID),
        cluster=text(CLUSTER),
        phase=text(PHASE),
        team_name=text(TEAM_NAME),
        key=text(CLAIM_KEY),
        owner=text(CLAIM_OWNER),
        epoch=_whole(row, CLAIM_EPOCH, 1),
        attempt=_whole(row, ATTEMPT),
        claimed_at=_time(row.get(CLAIMED_AT)),
        lease_until=_time(row.get(LEASE_UNTIL)),
        stage=Stage(text(STAGE)) if text(STAGE) in set(Stage) else None,
        stage_since=_time(row.get(STAGE_SINCE)),
        ended_at=_time(row.get(END_TIME)),
        status=text(STATUS),
        reason=text(REASON),
        outcome=text(OUTCOME) or None,
        undelivered=text(UNDELIVERED),
        refused=bool(row.get(REFUSED)),
        image=text(IMAGE) or None,
        renewal=text(LEASE_RENEWAL),
        resends=_whole(row, RESENDS),
        submitted_at=_time(row.get(SUBMITTED_AT)),
        remarks=text(REMARKS),
        routes_done=_whole(row, ROUTES_DONE),
        routes_total=_whole(row, ROUTES_TOTAL),
        metrics=dict(_metrics(row)),
        usage=read_usage(row.get(USAGE)),
        forecast=read_forecast(row.get(FORECAST)),
        unreadable="; ".join(f"{name} is {row.get(name)!r:.60}" for name in _IDS if not _is_whole(row.get(name))),
    )


def _metrics(row: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """In EvalAI's order."""
    for metric in METRICS[LeaderboardVersion.V2]:
        value = row.get(metric.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield metric.name, float(value)


def images_of(row: Mapping[str, object]) -> dict[str, list[int]]:
    """Digest -> shards, sorted: what earlier runs saw of the submission's images; without what makes no sense."""
    images = row.get(IMAGES)
    if not isinstance(images, Mapping):
        return {}
    return {
        str(digest): sorted(shard for shard in shards if isinstance(shard, int))
        for digest, shards in sorted(images.items())
        if isinstance(shards, list | tuple)
    }


_DIGITS = 30  # of a number; Python itself refuses to read one of some thousands


def _is_whole(value: object) -> bool:
    return (text := str(value)).isascii() and text.isdigit() and len(text) <= _DIGITS


def _whole(row: Mapping[str, object], name: str, otherwise: int = 0) -> int:
    value = row.get(name)
    return int(str(value)) if _is_whole(value) else otherwise


def _time(value: object) -> datetime | None:
    try:
        return parse_moment(value)
    except ValueError:
        return None
