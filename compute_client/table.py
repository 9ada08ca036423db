"""The table of jobs in DynamoDB: one row per job, the truth about what was asked, who computes it, what came out.

Key: `job_id`, a string. Times are seconds since 1970. The index `outbox` holds the jobs without an end, by what is
known of their message: `unsent`, `sent`, or `claimed` by a run.
Every change is one conditional write, so that two runs, or a run and its takeover, never both win.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from aws_api import ClientFactory
from aws_api.dynamodb_clock import DynamoDBClock
from compute_client.job import (
    Abandoned,
    AlreadyComputed,
    ClaimedJob,
    Held,
    JobError,
    JobResult,
    Lease,
    ResultStatus,
    UnknownJob,
    UnreadableJob,
    digest,
    require_id,
    to_json,
)
from compute_client.lease_watch import is_same_lease, last_sign_of_life, seems_silent, watch_silent_lease
from compute_client.payloads import INLINE_BODY, INLINE_RESULT, Contents
from compute_client.rows import Row, Rows, Values
from evaluation.errors import AlreadyClaimed, RequestRefused

OUTBOX = "outbox"
DAY = 24 * 3600
OPEN_SECONDS = 30 * DAY  # a job that is never finished is deleted; longer than SQS keeps any message (14 days)
LOST_SECONDS = 14 * DAY  # SQS keeps no message longer: one that was sent earlier no longer exists
UNSENT, SENT, CLAIMED = "unsent", "sent", "claimed"
# A lease that was given back, or that is still as it was when this process watched it.
_OVER = "lease_until <= :now AND (attribute_not_exists(lease_token) OR (lease_token = :seen AND lease_until = :last))"


class JobTable:
    """The jobs of one queue. `client` makes boto3's clients; `now` is DynamoDB's time: the machines' clocks differ."""

    def __init__(
        self,
        table: str,
        bucket: str | None,
        client: ClientFactory,
        *,
        lease_seconds: float = 120,
        most_attempts: int = 3,
        result_days: float = 7,
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.lease_seconds = lease_seconds
        self._most_attempts = most_attempts
        self._result_seconds = result_days * DAY
        self._contents = Contents(bucket, client)
        self._rows = Rows(table, client)
        self._now = now or DynamoDBClock(table, "job_id", client)
        self._sleep = sleep

    def submit(self, job_id: str, body: object, group: str) -> bool:
        """Record the job; True where its message has to be sent, also for one that was recorded without.

        Raises RequestRefused for a body that is not JSON, or where the id was used for another one.
        """
        text = to_json("The body", body)
        mark = digest(text)
        if (earlier := self._row(job_id)) is None:
            # The digest in the key: a second post of the id cannot replace what the first one asked for.
            where = self._contents.put("body", text, INLINE_BODY, f"bodies/{require_id(job_id)}/{mark}.json")
            earlier = self._put(job_id, mark, group, where)
        if earlier is None:
            return True
        if earlier["body_digest"] != mark:
            raise RequestRefused(f"The id {job_id} is taken", "it was posted before with another body")
        return earlier.get(OUTBOX) == UNSENT or self._has_lost_its_message(earlier, LOST_SECONDS)

    def _has_lost_its_message(self, row: Row, after_seconds: float) -> bool:
        """Whether the job has no end, no worker computes it, and its message was sent so long ago."""
        if ResultStatus(row["job_status"]).final or float(row.get("lease_until", 0)) > self._now():
            return False
        latest = max(float(row.get(name, row["submitted_at"])) for name in ("sent_at", "lease_until"))
        return latest <= self._now() - after_seconds

    def _put(self, job_id: str, mark: str, group: str, where: Mapping[str, str]) -> Row | None:
        """Write a new row; where there is one already, return it instead."""
        now = self._now()
        row = {
            "job_id": job_id,
            "job_status": ResultStatus.SUBMITTED,
            "body_digest": mark,
            "message_group": group,
            "attempts": 0,
            "submitted_at": now,
            OUTBOX: UNSENT,
            "unsent_since": now,
            "expires_at": int(now + OPEN_SECONDS),
            **where,
        }
        # DynamoDB takes days to remove what has expired.
        return self._rows.put(row, "attribute_not_exists(job_id) OR expires_at < :now", {":now": now})

    def sent(self, job_id: str) -> None:
        """The job's message is on the queue. Raises UnknownJob."""
        waiting, row = f"SET sent_at = :now, {OUTBOX} = :sent, unsent_since = :now", "job_status = :submitted"
        values = {":sent": SENT, ":submitted": ResultStatus.SUBMITTED}
        refusal, _ = self._update(job_id, waiting, row, values)
        if refusal:  # a run was quicker, and has claimed or even finished the job
            refusal, _ = self._update(job_id, "SET sent_at = :now", "attribute_exists(job_id)", {})
        if refusal is not None:
            raise _unknown(job_id)

    def unsent(self, older_seconds: float) -> Iterator[tuple[str, str]]:
        """(id, message group) of jobs that were recorded so long ago and whose message may never have been sent."""
        yield from self._in_outbox(UNSENT, older_seconds)

    def lost(self, older_seconds: float) -> Iterator[tuple[str, str]]:
        """(id, message group) of jobs that no worker computes and whose message was sent so long ago."""
        for state in (SENT, CLAIMED):
            for job_id, group in self._in_outbox(state, older_seconds):
                row = self._row(job_id)
                if row and self._has_lost_its_message(row, older_seconds):
                    yield job_id, group

    def _in_outbox(self, state: str, older_seconds: float) -> Iterator[tuple[str, str]]:
        condition = f"{OUTBOX} = :state AND unsent_since <= :then"
        for row in self._rows.query(OUTBOX, condition, {":state": state, ":then": self._now() - older_seconds}):
            if isinstance(group := row.get("message_group"), str):  # else it is no row of ours
                yield row["job_id"], group

    def read(self, job_id: str) -> JobResult:
        """How the job stands, with its result or error; raises UnknownJob."""
        row = self._known(job_id)
        status = ResultStatus(row["job_status"])
        try:
            if status is ResultStatus.SUCCESS:
                return JobResult(job_id, status, json.loads(self._contents.get("result", row)))
            error = JobError(**json.loads(row["error_json"])) if status is ResultStatus.FAILED else None
        except (KeyError, TypeError, ValueError) as wrong:
            raise UnreadableJob(job_id, f"its outcome cannot be read: {wrong!r:.120}") from wrong
        return JobResult(job_id, status, error=error)

    def status(self, job_id: str) -> ResultStatus:
        """Without its result; raises UnknownJob."""
        return ResultStatus(self._known(job_id)["job_status"])

    def claim(self, job_id: str, run_id: str) -> ClaimedJob:
        """Take the job for one run, or take it again: the token of an earlier claim is worth nothing then.

        Raises AlreadyComputed, Held (by another run), UnknownJob, or Abandoned where as many runs have died with it as
        may; the job has failed then. A lease that has ended is watched for a quarter of its time first: in an outage of
        DynamoDB no run can renew it.
        """
        refusal, row = self._take(job_id, run_id, {})
        if refusal is not None and seems_silent(refusal, self._now()):
            watch_silent_lease(refusal, partial(self._row, job_id), self.lease_seconds, self._now, self._sleep)
            silent = refusal
            refusal, row = self._take(job_id, run_id, silent)
            if refusal is not None and is_same_lease(refusal, silent):
                raise self._abandon(job_id, silent)
        if refusal is not None:
            raise self._not_claimed(job_id, refusal)
        place = {name: str(row[name]) for name in ("body_json", "body_key") if name in row}
        return ClaimedJob(Lease(job_id, str(row["lease_token"]), int(row["attempts"])), place)

    def _take(self, job_id: str, run_id: str, silent: Row) -> tuple[Row | None, Row]:
        """Claim in one write, also from the run whose lease is still as in `silent`; as Rows.update."""
        now = self._now()
        return self._update(
            job_id,
            "SET job_status = :running, run_id = :run, lease_token = :token, lease_until = :until, started_at = :now,"
            f" expires_at = :expires, attempts = attempts + :one, {OUTBOX} = :claimed, unsent_since = :now",
            "attempts < :most AND (job_status = :submitted"
            f" OR (job_status = :running AND (({_OVER}) OR run_id = :run)))",
            {
                ":run": run_id,
                ":token": uuid.uuid4().hex,
                ":one": 1,
                ":most": self._most_attempts,
                ":submitted": ResultStatus.SUBMITTED,
                ":running": ResultStatus.IN_PROGRESS,
                ":claimed": CLAIMED,
                ":seen": silent.get("lease_token", ""),
                ":last": silent.get("lease_until", 0),
                **self._lease(now),
            },
        )

    def body(self, job: ClaimedJob) -> str:
        """The claimed job's body, a JSON text; raises RequestRefused where it is gone."""
        return self._contents.get("body", job.place)

    def renew(self, lease: Lease) -> None:
        """Hold the lease for its time from now; raises AlreadyClaimed where it has passed on."""
        values = self._lease(self._now())
        self._write_held(lease, "SET lease_until = :until, expires_at = :expires", values)

    def silent_seconds(self, job_id: str, run_id: str) -> float:
        """For how long the run has not shown in the job's row that it lives; raises UnknownJob.

        A run that does not hold the job is silent since whatever happened to the job last.
        """
        return self._now() - last_sign_of_life(self._known(job_id), run_id, self.lease_seconds)

    def give_back(self, lease: Lease, counted: bool) -> None:
        """End the lease at once, so that another run may begin; `counted` among the runs that died with the job."""
        refund = "" if counted else ", attempts = attempts - :one"
        # Two seconds ago: other machines know DynamoDB's time to the second only.
        values = {":ended": self._now() - 2, **({} if counted else {":one": 1})}
        # Without its token the lease cannot be renewed by a late heartbeat.
        self._write_held(lease, f"SET lease_until = :ended{refund} REMOVE lease_token", values)

    def succeed(self, lease: Lease, result: str) -> None:
        """Keep the function's result, a JSON text; raises AlreadyClaimed, and RequestRefused for one that is too large.

        May be repeated with the same lease.
        """
        # The token in the key: a run that has lost its lease replaces no other run's result.
        key = f"results/{lease.job_id}/{lease.token}.json"
        self._finish(lease, ResultStatus.SUCCESS, self._contents.put("result", result, INLINE_RESULT, key))

    def fail(self, lease: Lease, error: JobError) -> None:
        """Keep the function's error; raises AlreadyClaimed. May be repeated with the same lease."""
        self._finish(lease, ResultStatus.FAILED, {"error_json": to_json("The error", vars(error.cut()))})

    def _finish(self, lease: Lease, status: ResultStatus, content: Mapping[str, str]) -> None:
        sets = ", ".join(f"{name} = :{name}" for name in content)
        self._write_held(
            lease,
            f"SET job_status = :status, finished_at = :now, expires_at = :expires, {sets}"
            f" REMOVE {OUTBOX}, unsent_since",
            {
                ":status": status,
                ":expires": int(self._now() + self._result_seconds),
                **{f":{name}": value for name, value in content.items()},
            },
        )

    def _not_claimed(self, job_id: str, row: Row) -> Exception:
        if not row:
            return _unknown(job_id)
        if ResultStatus(row["job_status"]).final:
            return AlreadyComputed(f"Job {job_id} was computed already", f"it is {row['job_status']}")
        left = float(row.get("lease_until", 0)) - self._now()
        if row["job_status"] == ResultStatus.IN_PROGRESS and (left > 0 or "lease_token" in row):
            return Held(f"Job {job_id} is being computed", f"by run {row['run_id']}", max(left, 0))
        return self._abandon(job_id, row)

    def _abandon(self, job_id: str, row: Row) -> Exception:
        """Fail a job that has cost all its attempts, where its row is still the one that was read."""
        summary, cause = f"{int(row['attempts'])} runs ended without a result", f"the last one was {row.get('run_id')}"
        error = JobError("Abandoned", f"{summary}, {cause}; see their logs")
        refusal, _ = self._update(
            job_id,
            "SET job_status = :failed, finished_at = :now, expires_at = :expires, error_json = :error"
            f" REMOVE {OUTBOX}, unsent_since",
            f"job_status = :running AND {_OVER} AND attempts >= :most",
            {
                ":seen": row.get("lease_token", ""),
                ":last": row.get("lease_until", 0),
                ":failed": ResultStatus.FAILED,
                ":running": ResultStatus.IN_PROGRESS,
                ":most": self._most_attempts,
                ":expires": int(self._now() + self._result_seconds),
                ":error": to_json("The error", vars(error)),
            },
        )
        if refusal is not None:
            return Held(f"Job {job_id} is being computed", "its run has renewed its lease", self.lease_seconds)
        return Abandoned(
            f"Job {job_id} is given up: {summary}", cause, "Correct the function, then post the job under a new id."
        )

    def _lease(self, now: float) -> dict[str, float]:
        return {":until": now + self.lease_seconds, ":expires": int(now + OPEN_SECONDS)}

    def _write_held(self, lease: Lease, update: str, values: Values) -> None:
        condition = "lease_token = :token AND job_status = :held"
        refusal, _ = self._update(
            lease.job_id, update, condition, {":token": lease.token, ":held": ResultStatus.IN_PROGRESS, **values}
        )
        if refusal is None:
            return
        # The answer to an earlier try of this very write may have been lost.
        if refusal.get("lease_token") == lease.token and refusal["job_status"] == values.get(":status"):
            return
        raise AlreadyClaimed(
            f"The lease of job {lease.job_id} has passed on", f"the job is {refusal.get('job_status', 'gone')} now"
        )

    def _known(self, job_id: str) -> Row:
        row = self._row(job_id)
        if row is None:
            raise _unknown(job_id)
        return row

    def _row(self, job_id: str) -> Row | None:
        row = self._rows.get(require_id(job_id))
        return row if row and row["expires_at"] >= self._now() else None

    def _update(self, job_id: str, update: str, condition: str, values: Values) -> tuple[Row | None, Row]:
        return self._rows.update(job_id, update, condition, {":now": self._now(), **values})


def _unknown(job_id: str) -> UnknownJob:
    return UnknownJob(f"There is no job {job_id}", "it was never posted to this table, or its result has expired")
