"""Finds out which of the leases that seem to have ended have ended: by watching them, not by anybody's clock."""

import asyncio
from asyncio import sleep
from collections.abc import Hashable, Iterable, Mapping
from time import monotonic

from prefect.logging import get_logger

from evaluation.errors import EvaluationError
from evaluation.lifecycle.lease_watch import LeaseWatch
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry
from evaluation.ports import SubmissionLedger
from flows.reconciler.model import Lease
from flows.reconciler.snapshot import Snapshot, Watched

MOST_LEASES = 3  # so many leases long at most: where the ledger keeps failing, the next pass goes on


async def watch_unclear_leases(seen: Snapshot) -> Watched | None:
    """Watch every lease that the snapshot calls unclear for its whole time; None where there is none.

    Returns the last sign of life of each that was never renewed while it was watched, by submission.
    """
    unclear: dict[str, list[LedgerEntry]] = {}
    for view in seen.views:
        if view.entry and view.lease is Lease.UNCLEAR:
            unclear.setdefault(view.cluster, []).append(view.entry)
    if not unclear:
        return None
    found = await asyncio.gather(*(_watch(seen.clusters[name].ledger, each) for name, each in unclear.items()))
    return {submission: sign for each in found for submission, sign in each.items()}


async def _watch(ledger: SubmissionLedger, entries: Iterable[LedgerEntry]) -> Watched:
    first = {entry.submission: entry.sign_of_life for entry in entries}
    teams = {entry.submission: entry.team for entry in entries}
    watch = LeaseWatch(ledger.lease_seconds, first, monotonic())
    deadline = monotonic() + MOST_LEASES * ledger.lease_seconds
    while watch.undecided and monotonic() < deadline:
        await sleep(watch.pause)
        try:
            watch.read(await asyncio.to_thread(_signs, ledger, teams), monotonic())
        except EvaluationError as error:
            get_logger(__name__).warning("The leases cannot be watched now, and their time begins again: %s", error)
            watch.failed(monotonic())
    return {submission: first[submission] for submission in watch.expired}


def _signs(ledger: SubmissionLedger, teams: Mapping[int, int]) -> dict[int, Hashable]:
    """Of the claims that are still open."""
    rows = {submission: read_entry(ledger.row(team, submission)) for submission, team in teams.items()}
    return {submission: entry.sign_of_life for submission, entry in rows.items() if entry and entry.open}
