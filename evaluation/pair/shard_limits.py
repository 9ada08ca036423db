"""How long a shard may be in a state that it may never leave, and what follows: the same on every backend. Pure."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from evaluation.errors import Failure
from evaluation.pair.diagnosis import infrastructure_failure
from evaluation.shards import ENDED, ShardState, ShardStatus, ShardStatuses


@dataclass(frozen=True)
class ShardTimeouts:
    """Seconds; when one has passed, the shard has failed."""

    waiting_seconds: float = 24 * 3600.0  # for a node, or for a queue's admission
    stuck_seconds: float = 600.0  # an image that cannot be pulled, a container that cannot be created
    pulling_seconds: float = 2 * 3600.0  # images, volumes and private contents, as long as nothing complains
    overdue_seconds: float = 900.0  # after the shard's deadline, for the platform to end it
    warmup_seconds: float = 60.0  # of the simulator; no limit, but how long STARTING is shown


def lasts(since: datetime | None, now: datetime, seconds: float) -> bool:
    """Whether so many seconds have passed; False where `since` is not known."""
    return since is not None and now - since >= timedelta(seconds=seconds)


def failed(index: int, failure: Failure, since: datetime | None = None) -> ShardStatus:
    return ShardStatus(index, ShardState.FAILED, failure.summary, since, failure)


def within_limits(status: ShardStatus, now: datetime, timeouts: ShardTimeouts, cause: str = "") -> ShardStatus:
    """The status, or the failure that it has become by lasting too long; `cause` instead of the status's own detail."""
    if status.state is ShardState.WAITING and lasts(status.since, now, timeouts.waiting_seconds):
        summary = f"No node was scheduled within {timeouts.waiting_seconds / 3600:.3g} h"
    elif status.state is ShardState.PULLING and lasts(status.since, now, timeouts.pulling_seconds):
        summary = "The shard's containers did not start"
    else:
        return status
    return failed(status.index, infrastructure_failure(summary, cause or status.detail))


def overdue(
    index: int, started: datetime | None, deadline_seconds: float, now: datetime, timeouts: ShardTimeouts
) -> ShardStatus | None:
    """The failure of a shard that its platform should have ended at its deadline."""
    if not deadline_seconds or not lasts(started, now, deadline_seconds + timeouts.overdue_seconds):
        return None
    cause = f"its deadline of {deadline_seconds / 3600:.3g} hours has passed and its Job has not ended"
    return failed(index, infrastructure_failure("The shard did not end in its time", cause))


def running(index: int, started: datetime | None, now: datetime, timeouts: ShardTimeouts) -> ShardStatus:
    """The status of a shard whose containers all run, by the start of its simulator."""
    if started and not lasts(started, now, timeouts.warmup_seconds):
        return ShardStatus(index, ShardState.STARTING, "the simulator is warming up", started)
    return ShardStatus(index, ShardState.DRIVING, "the agent drives its routes", started)


def outdated(statuses: ShardStatuses, service: str, since: float) -> dict[int, ShardStatus]:
    """The last known states while the service does not answer; `since` in seconds since the epoch."""
    warning = f"{service} has not answered since {datetime.fromtimestamp(since, UTC):%H:%M:%S} UTC"
    return {
        index: status if status.state in ENDED else replace(status, warning=warning)
        for index, status in statuses.items()
    }
