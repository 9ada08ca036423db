"""What EvalAI, the ledger, Prefect and the clusters say of every submission, side by side."""

import asyncio
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from prefect import get_client

from evaluation.errors import EvaluationError, InvalidConfiguration, ServiceUnavailable
from evaluation.lifecycle.ledger_entry import LedgerEntry, claim_key
from evaluation.lifecycle.stages import ReconcilerTimeouts
from evaluation.ports import ListedSubmission
from evaluation.submission.model import CLOSED, WAITING, SubmissionStatus
from flows.reconciler.decisions import needs_runs
from flows.reconciler.model import EvalAIRow, Lease, SubmissionSnapshot
from flows.reconciler.prefect_runs import runs_of
from flows.services import Cluster, Services, load_cluster
from flows.threads import in_evalai_thread

Watched = Mapping[int, Hashable]  # submission -> the last sign of life of a lease that has expired
# EvalAI is asked for what was submitted in this time, for what waits or runs there, and for what ended here lately.
LISTED = timedelta(days=7)
LATELY = timedelta(days=1)


Entries = dict[int, tuple[str, LedgerEntry]]  # with the name of the cluster whose table has the row


@dataclass(frozen=True)
class Snapshot:
    """Every submission that any of them knows, and the clusters by name."""

    views: tuple[SubmissionSnapshot, ...]
    clusters: Mapping[str, Cluster]
    taken_at: datetime
    unavailable: tuple[str, ...] = ()  # what did not answer or could not be read, one sentence each


@dataclass(frozen=True)
class _Answers:
    """What the systems said, before it is put together by submission."""

    listed: Mapping[int, EvalAIRow]
    evalai_answered: bool
    entries: Entries
    attempts: Collection[tuple[int, int]]


async def take_snapshot(
    services: Services, only: Collection[int] | None = None, expired: Watched | None = None
) -> Snapshot:
    """Ask everything about all submissions, or about some with all their runs.

    Costs six requests to EvalAI and one for each older submission that was resumed and ended lately, a read of each
    table, a listing of each cluster's Jobs, and one request to Prefect for each submission whose claim is not renewed.
    What does not answer is left out, and named; raises ServiceUnavailable where no ledger answers. `expired` is what
    flows.reconciler.lease_watching found out; without it no lease counts as expired, but as unclear where it seems so.
    """
    sources = _Sources()
    clusters = await sources.clusters(services)
    taken_at = datetime.now(UTC)
    # Jobs before the ledger: a claim is older than its Jobs, so that none of them can seem to have no claim.
    attempts = [pair for name, each in clusters.items() for pair in await sources.jobs(name, each)]
    entries = await sources.entries(clusters)
    since, also = (taken_at, only) if only else (taken_at - LISTED, _ended_lately(entries, taken_at))
    listed, evalai_answered = await sources.listed(services, since, also)
    if _has_unclaimed(listed, entries):  # it may have been claimed since the ledger was read
        entries |= await sources.entries(clusters)
    clusters = {name: clusters[name] for name in clusters if name not in sources.without_ledger}
    answers = _Answers(listed, evalai_answered, entries, attempts)
    now = datetime.now(UTC)  # not before the ledger was read: a lease that is longer than a new one would be unclear
    views = [replace(view, lease=_lease(view, now, expired)) for view in _views(services, clusters, answers, only)]
    async with get_client() as client:
        runs = await runs_of(client, [view.submission for view in views if only or needs_runs(view, taken_at)])
    views = [replace(view, runs=runs.get(view.submission, ())) for view in views]
    return Snapshot(tuple(views), clusters, taken_at, tuple(dict.fromkeys(sources.unavailable)))


def _ended_lately(entries: Entries, now: datetime) -> set[int]:
    """A late write may have undone their reports; EvalAI's list leaves out those that were submitted long ago."""
    return {pk for pk, (_, entry) in entries.items() if entry.ended_at and now - entry.ended_at <= LATELY}


def _has_unclaimed(listed: Mapping[int, EvalAIRow], entries: Entries) -> bool:
    return any(row.status not in CLOSED and pk not in entries for pk, row in listed.items())


def _lease(view: SubmissionSnapshot, now: datetime, expired: Watched | None) -> Lease:
    entry = view.entry
    if entry is None or not entry.open:
        return Lease.HELD
    if expired is not None:
        return Lease.EXPIRED if expired.get(entry.submission) == entry.sign_of_life else Lease.HELD
    return Lease.HELD if entry.seems_held(now, view.timeouts.lease) else Lease.UNCLEAR


class _Sources:
    """Asks one system after the other; one that does not answer is named and left out."""

    def __init__(self) -> None:
        self.unavailable: list[str] = []
        self.without_ledger: set[str] = set()

    async def clusters(self, services: Services) -> dict[str, Cluster]:
        clusters = {}
        for name in services.phases.clusters:
            try:
                clusters[name] = await load_cluster(name)
            except InvalidConfiguration as error:
                self._left_out(name, f"The blocks of {name} cannot be loaded: {error}")
        return clusters

    async def listed(
        self, services: Services, since: datetime, also: Collection[int]
    ) -> tuple[Mapping[int, EvalAIRow], bool]:
        """EvalAI's list, and whether it answered."""
        try:
            rows, unreadable = await in_evalai_thread(_listed, services, since, also)
        except EvaluationError as error:
            self.unavailable.append(f"EvalAI's list is missing: {error}")
            return {}, False
        self.unavailable += unreadable
        return {row.pk: row for row in rows}, True

    async def jobs(self, name: str, cluster: Cluster) -> Collection[tuple[int, int]]:
        try:
            return await cluster.backend.running()
        except EvaluationError as error:
            self.unavailable.append(f"The Jobs of {name} cannot be listed: {error}")
            return ()

    async def entries(self, clusters: Mapping[str, Cluster]) -> Entries:
        """Every claimed row; raises ServiceUnavailable where not one ledger can be read."""
        found: Entries = {}
        for name, cluster in clusters.items():
            try:
                rows = await asyncio.to_thread(_entries, cluster)
            except EvaluationError as error:
                self._left_out(name, f"The ledger of {name} cannot be read: {error}")
                continue
            found |= {entry.submission: (name, entry) for entry in rows if entry.submission}
            self.unavailable += [
                f"A row in the ledger of {name} cannot be read: {entry.unreadable}. Correct or remove it."
                for entry in rows
                if not entry.submission
            ]
        if self.without_ledger.issuperset(clusters):
            raise ServiceUnavailable("Nothing can be compared without a ledger", " ".join(self.unavailable))
        return found

    def _left_out(self, name: str, why: str) -> None:
        self.without_ledger.add(name)
        self.unavailable.append(f"{why} Its submissions are not compared.")


def _entries(cluster: Cluster) -> list[LedgerEntry]:
    return list(cluster.ledger.entries())


def _listed(services: Services, since: datetime, also: Collection[int]) -> tuple[list[EvalAIRow], Sequence[str]]:
    """The rows, and a sentence for each row that cannot be read."""
    challenge = services.phases.challenge_pk
    if challenge is None:
        raise InvalidConfiguration(
            "EvalAI's submissions cannot be listed",
            "the block evalai does not name the challenge",
            "Set LEADERBOARD_CHALLENGE_PK and run `leaderboard setup`.",
        )
    rows = services.evalai.submissions(challenge, since, also)
    return [_evalai_row(row) for row in rows], rows.unreadable


def _evalai_row(row: ListedSubmission) -> EvalAIRow:
    since = row.rerun_resumed_at or row.submitted_at
    status = SubmissionStatus.CANCELLED if row.withdrawn else row.status
    return EvalAIRow(row.pk, row.phase_pk, status, since, claim_key(row.rerun_resumed_at))


def _views(
    services: Services, clusters: Mapping[str, Cluster], answers: _Answers, only: Collection[int] | None
) -> Iterable[SubmissionSnapshot]:
    known = {*answers.listed, *answers.entries, *(submission for submission, _ in answers.attempts)}
    for pk in sorted(known if only is None else only):
        shown, (table, entry) = answers.listed.get(pk), answers.entries.get(pk, ("", None))
        try:
            name = table or _cluster_of(services, shown)
            unroutable = ""
        except InvalidConfiguration as error:  # a phase that is not ours must not hide all the others
            name, unroutable = "", str(error)
        if name and name not in clusters:
            continue  # its ledger is not readable, so whether it is claimed is unknown
        cluster = clusters[name or next(iter(clusters))]
        yield SubmissionSnapshot(
            submission=pk,
            shown=shown,
            entry=entry,
            timeouts=ReconcilerTimeouts(timedelta(seconds=cluster.ledger.lease_seconds)),
            shard_deadline_seconds=cluster.settings.shard_deadline_seconds,
            attempts=frozenset(attempt for submission, attempt in answers.attempts if submission == pk),
            unroutable=unroutable,
            cluster=table,
            evalai_answered=answers.evalai_answered,
        )


def _cluster_of(services: Services, shown: EvalAIRow | None) -> str:
    """The cluster of a submission that no ledger has; "" where it is unknown.

    Raises InvalidConfiguration for one that waits in a phase which is not ours.
    """
    if shown is None:
        return ""
    try:
        return services.phases.phase(shown.phase_pk).cluster
    except InvalidConfiguration:
        if shown.status in WAITING:
            raise
        return ""
