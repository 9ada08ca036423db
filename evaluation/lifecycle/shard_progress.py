"""What a person sees of a running submission: the backend's word and the pair's own, put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from evaluation.pair.protocol import PairProgress, failure_of
from evaluation.shards import ShardJob, ShardState, ShardStatus, ShardStatuses

# While its Job runs, the pair itself knows better than its backend what it is doing.
_PAIR_KNOWS_BETTER = frozenset({ShardState.STARTING, ShardState.DRIVING})


@dataclass(frozen=True)
class ShardProgress:
    """One row of the table of shards."""

    index: int
    state: ShardState
    routes_done: int
    routes_total: int
    detail: str
    since: datetime | None = None  # when the backend saw it enter this state
    pool: int = 0  # the submission's routes where pairs pull them: routes_total is what this one has claimed so far

    @property
    def row(self) -> dict[str, str]:
        return {
            "shard": str(self.index),
            "state": self.state.value,
            "since": f"{self.since.astimezone(UTC):%H:%M:%S} UTC" if self.since else "",
            "routes": f"{self.routes_done}/{self.routes_total}",
            "what it is doing": self.detail,
        }


def shard_progress(
    jobs: Sequence[ShardJob], statuses: ShardStatuses, progress: Mapping[int, PairProgress]
) -> list[ShardProgress]:
    """One view a shard, in order; a shard that has said nothing yet has done 0 routes."""
    return [_view(job, statuses, progress.get(job.shard.index)) for job in jobs]


def _view(job: ShardJob, statuses: ShardStatuses, reported: PairProgress | None) -> ShardProgress:
    status = statuses.get(job.shard.index)
    state = status.state if status else ShardState.WAITING
    detail = (str(status.failure) if status.failure else status.detail) if status else ""
    since = status.since if status else None
    if reported and state in _PAIR_KNOWS_BETTER:
        since = since if reported.state is state else None
        state, detail = reported.state, reported.detail
    if status and status.warning:
        detail = f"{detail}; {status.warning}"
    done, claimed = (reported.routes_done, reported.routes_total) if reported else (0, 0)
    every, pulled = len(job.expected), job.shard.pulled
    return ShardProgress(
        job.shard.index, state, done, claimed if pulled else every, detail, since, every if pulled else 0
    )


def explained(statuses: ShardStatuses, progress: Mapping[int, PairProgress]) -> dict[int, ShardStatus]:
    """The statuses, with the supervisor's own reason where a backend knows no more than the exit code."""
    return {index: _explained(status, progress.get(index)) for index, status in statuses.items()}


def _explained(status: ShardStatus, progress: PairProgress | None) -> ShardStatus:
    if status.failure is None or progress is None or not progress.exit_code:
        return status
    reason = failure_of(progress.exit_code, progress.detail)
    return replace(status, failure=reason) if reason.summary == status.failure.summary else status


def routes_done(views: Sequence[ShardProgress]) -> tuple[int, int]:
    """So many of so many routes of the submission."""
    total = max((view.pool for view in views), default=0) or sum(view.routes_total for view in views)
    return sum(view.routes_done for view in views), total


def percentage(views: Sequence[ShardProgress]) -> float:
    """Routes done of all routes, 0 to 100."""
    done, total = routes_done(views)
    return 100 * done / max(1, total)
