"""What a report is made of: what is kept of a submission in the ledger and in its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from evaluation.errors import InvalidCheckpoint
from evaluation.lifecycle.outcome import Outcome
from evaluation.pair.observations import Observations
from evaluation.pair.timeline import AttemptTimeline, timelines
from evaluation.pair.usage import Price, Seconds, total, usage_of
from evaluation.routes import RouteRun
from evaluation.standings import Rank
from evaluation.submission.model import LeaderboardVersion


class Audience(StrEnum):
    """TEAM: nothing of the installation, of its checks, or of secret routes beyond what EvalAI shows."""

    TEAM = "team"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Pair:
    """A shard: its routes in their order, and what its supervisor saw, if anything is kept of that."""

    index: int
    runs: tuple[RouteRun, ...]
    seen: Observations | None = None


@dataclass(frozen=True)
class Subject:
    """Who was evaluated, when. Times are UTC."""

    submission: int
    phase: str
    team: str
    version: LeaderboardVersion
    attempt: int
    image: str = ""
    image_digest: str = ""
    claimed_at: datetime | None = None  # this attempt
    run: str = ""  # id of the flow run that has the claim
    folder: str = ""  # s3://bucket/pk/
    logs: str = ""  # where the shards' output is


@dataclass(frozen=True)
class ReportSource:
    """Everything; what an audience may see of it is decided by `page.report_page`."""

    subject: Subject
    outcome: Outcome
    pairs: Sequence[Pair]
    made_at: datetime
    provenance: Mapping[str, Any] = field(default_factory=dict)  # the in-toto statement; empty where there is none
    signed_by: str = ""  # the id of the key
    rank: Rank | None = None  # of its team, when the page was made
    price: Price | None = None  # of a GPU hour

    @cached_property
    def attempts(self) -> list[AttemptTimeline]:
        """Where the pairs' time went, oldest attempt first."""
        seen = {pair.index: pair.seen for pair in self.pairs}
        return timelines(seen, self.subject.attempt, self.subject.claimed_at)

    @cached_property
    def used(self) -> Seconds:
        """By all attempts."""
        return total(usage_of(attempt).seconds for attempt in self.attempts)

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """The merged file's records. Raises InvalidCheckpoint where that cannot be read."""
        if not self.outcome.merged:
            return ()
        try:
            records: list[Mapping[str, Any]] = json.loads(self.outcome.merged)["_checkpoint"]["records"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidCheckpoint("The merged file of the kept outcome cannot be read", repr(error)[:200]) from error
        return records

    @property
    def runs(self) -> list[RouteRun]:
        """What was sent out, by route and repetition."""
        return sorted(run for pair in self.pairs for run in pair.runs)
