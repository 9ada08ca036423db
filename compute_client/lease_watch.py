"""Whether a run whose lease has ended is dead, seen by one observer who reads its row again and again.

In an outage of DynamoDB no lease can be renewed, and two readings with an outage between them look like silence. So
the row is watched for as long as a run that lives takes to renew its lease, and DynamoDB has to answer all the time.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from compute_client.job import Held, ResultStatus

if TYPE_CHECKING:
    from compute_client.rows import Row

# Parts of the lease's time. A run whose renewal failed tries again after a twelfth, and boto3 gives up within another.
WATCHED = 1 / 4
POLL = 1 / 120
ANSWERED = 1 / 24  # a slower answer may hide an outage


def watch_silent_lease(
    row: "Row",
    read: "Callable[[], Row | None]",
    lease_seconds: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Return where nothing has changed in `row` in the time of `WATCHED`; raises Held where it cannot be known.

    Blocks. Returns at once where the row changes: what is asked of it then says why. Raises what `read` raises.
    """
    began = seen = now()
    while seen - began < lease_seconds * WATCHED:
        sleep(lease_seconds * POLL)
        asked = now()
        if not is_same_lease(read(), row):
            return
        seen = now()
        if seen - asked > lease_seconds * ANSWERED:
            cause = f"DynamoDB took {seen - asked:.1f} s to say whether run {row.get('run_id')} lives"
            raise Held(f"Job {row['job_id']} may still be computed", cause, lease_seconds)


def is_same_lease(row: "Row | None", other: "Row") -> bool:
    """Whether the same run holds the job, and has not renewed its lease in between."""
    return row is not None and all(row.get(name) == other.get(name) for name in ("lease_token", "lease_until"))


def seems_silent(row: "Row", now: float) -> bool:
    """Whether a run has the job, and its lease has ended."""
    return (
        row.get("job_status") == ResultStatus.IN_PROGRESS
        and "lease_token" in row
        and float(row.get("lease_until", 0)) <= now
    )


def last_sign_of_life(row: "Row", run_id: str, lease_seconds: float) -> float:
    """When the run showed last that it lives: by its lease, or by whatever happened to the job last."""
    latest = max(float(row.get(name, 0)) for name in ("submitted_at", "started_at", "finished_at"))
    if row.get("run_id") == run_id and "lease_until" in row:
        latest = max(latest, float(row["lease_until"]) - lease_seconds)
    return latest
