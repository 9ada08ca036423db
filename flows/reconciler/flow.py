"""The reconciler: finds what other parts may have missed, repairs what is safe, and notifies operators of the rest.

Events can be lost; this flow runs on a schedule, so nothing depends on them.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import Artifact, acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from evaluation.errors import EvaluationError
from flows.best_effort import best_effort
from flows.reconciler.actions import apply_action, mark_dead_reconciler_runs_crashed
from flows.reconciler.compute_runs import mark_dead_compute_runs_crashed
from flows.reconciler.decisions import find_discrepancies, order
from flows.reconciler.lease_watching import watch_unclear_leases
from flows.reconciler.model import Action, Finding, Lease, SubmissionSnapshot
from flows.reconciler.snapshot import Snapshot, take_snapshot
from flows.run_options import without_results
from flows.services import Services, load_services
from prefect_api.events import OutgoingEvent, prefect_events

NEEDS_ATTENTION = "leaderboard.submission.needs-attention"
TABLE = "reconciliation"
LONGEST_PASS_SECONDS = 1800.0  # the repairs included; another pass may begin meanwhile

Row = Mapping[str, str]  # of the table: submission, action, finding


@flow(
    name="reconcile",
    flow_run_name=lambda: f"reconcile {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
    retries=2,
    retry_delay_seconds=20,
    timeout_seconds=LONGEST_PASS_SECONDS,
    **without_results(),
)
async def reconcile() -> State[None]:
    """Compare EvalAI, the ledger, Prefect's runs and the clusters' Jobs, and repair. The table is an artifact."""
    await mark_dead_reconciler_runs_crashed(timedelta(seconds=LONGEST_PASS_SECONDS + 60))
    with best_effort("Dead runs of the compute client keep their slots for now"):
        await mark_dead_compute_runs_crashed()
    services = await load_services()
    rows, submissions = await reconcile_once(services)
    for each in rows:
        get_run_logger().warning("submission %s: %s: %s", each["submission"], each["action"], each["finding"])
    known = await _last_table()
    for_an_operator = [each for each in rows if each["action"] == Action.NOTIFY_OPERATOR]
    new = [each for each in for_an_operator if each not in known]
    unsent = await asyncio.to_thread(notify_operators, new) if new else []
    if rows or known:
        sent = [dict(each) for each in rows if each not in unsent]
        await acreate_table_artifact(table=sent, key=TABLE, description="What did not agree")
    repairs = len(rows) - len(for_an_operator)
    return Completed(message=f"{submissions} submissions: {repairs} repairs, {len(for_an_operator)} for an operator.")


async def reconcile_once(services: Services) -> tuple[list[Row], int]:
    """One pass; returns the table's rows and the number of submissions that were compared.

    Everything that no lease decides is repaired at once. Then the leases that seem to have ended are watched, which
    takes as long as a lease, and only those that were not renewed meanwhile are taken over.
    """
    seen = await take_snapshot(services)
    rows = await apply_actions(services, seen, find_all_discrepancies(seen)) + unavailable_sources(seen)
    expired = await watch_unclear_leases(seen)
    if expired is not None:
        after = await take_snapshot(services, [view.submission for view in seen.views if _is_unclear(view)], expired)
        rows += await apply_actions(services, after, find_all_discrepancies(after)) + unavailable_sources(after)
    return _without_repetitions(rows), len(seen.views)


def _without_repetitions(rows: Iterable[Row]) -> list[Row]:
    return [dict(items) for items in dict.fromkeys(tuple(row.items()) for row in rows)]


async def _last_table() -> list[Row]:
    """What the last pass found: operators are notified of each finding once."""
    last = await Artifact.aget(TABLE)
    return list(json.loads(last.data)) if last and isinstance(last.data, str) else []


def find_all_discrepancies(seen: Snapshot) -> list[Finding]:
    """What is wrong with the submissions whose lease is clear."""
    clear = [view for view in seen.views if not _is_unclear(view)]
    return order(finding for view in clear for finding in find_discrepancies(view, seen.taken_at))


async def preview(services: Services) -> tuple[list[Row], int]:
    """What a pass would do, if every lease that seems to have ended has ended."""
    seen = await take_snapshot(services)
    findings = find_all_discrepancies(seen)
    if unclear := {view.submission: view.entry.sign_of_life for view in seen.views if view.entry and _is_unclear(view)}:
        findings += find_all_discrepancies(await take_snapshot(services, list(unclear), unclear))
    return [row(finding) for finding in order(findings)] + unavailable_sources(seen), len(seen.views)


def _is_unclear(view: SubmissionSnapshot) -> bool:
    return view.lease is Lease.UNCLEAR


async def apply_actions(services: Services, seen: Snapshot, findings: Sequence[Finding]) -> list[Row]:
    """One action after the other: one that fails does not keep the next from its turn. Returns the table's rows."""
    rows = []
    for finding in findings:
        try:
            await apply_action(services, seen, finding)
            rows.append(row(finding))
        except (EvaluationError, httpx.HTTPError) as error:
            failed = f"The repair failed and is tried again: {error}"
            rows.append(
                {**row(finding), "finding": f"{finding.sentence} {failed}", "action": Action.NOTIFY_OPERATOR.value}
            )
    return rows


def unavailable_sources(seen: Snapshot) -> list[Row]:
    """What did not answer or could not be read: the comparison goes without it."""
    action = Action.NOTIFY_OPERATOR.value
    return [{"submission": "all", "action": action, "finding": sentence} for sentence in seen.unavailable]


def row(finding: Finding) -> Row:
    """A finding for people."""
    return {"submission": str(finding.submission), "action": finding.action.value, "finding": finding.sentence}


def notify_operators(rows: Sequence[Row]) -> list[Row]:
    """Send the event for the automation of `leaderboard setup --notify`; returns what Prefect did not take. Blocks.

    Before the table is kept: a run that dies in between notifies twice rather than never.
    """
    unsent = []
    with prefect_events() as publisher:
        for each in rows:
            submission = each["submission"]
            resource = (f"leaderboard.submission.{submission}", f"submission {submission}")
            try:
                publisher.publish(OutgoingEvent(NEEDS_ATTENTION, *resource, {"finding": each["finding"]}))
            except EvaluationError as error:
                get_run_logger().warning(
                    "Submission %s: operators are notified not now but in the next pass: %s", submission, error
                )
                unsent.append(each)
    return unsent
