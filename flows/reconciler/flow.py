"""The reconciler: finds what every other part may have missed, mends what is safe, and names the rest to the hosts.

Events can be lost; this flow runs on a schedule, so nothing depends on them.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import Artifact, acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from evaluation.errors import EvaluationError
from flows.reconciler.actions import apply_action, mark_dead_reconciler_runs_crashed
from flows.reconciler.decisions import find_discrepancies, order
from flows.reconciler.model import Action, Finding
from flows.reconciler.snapshot import Snapshot, take_snapshot
from flows.services import Services, load_services
from prefect_api.events import OutgoingEvent, prefect_events

NEEDS_ATTENTION = "leaderboard.submission.needs-attention"
TABLE = "reconciliation"
LONGEST_LOOK_SECONDS = 1800.0  # the repairs included; another look may begin meanwhile

Row = Mapping[str, str]  # of the table: submission, repair, finding


@flow(name="reconcile", retries=2, retry_delay_seconds=20, timeout_seconds=LONGEST_LOOK_SECONDS)
async def reconcile() -> State[None]:
    """Compare EvalAI, the ledger, Prefect's runs and the clusters' Jobs, and repair. The table is an artifact."""
    services = await load_services()
    await mark_dead_reconciler_runs_crashed(timedelta(seconds=LONGEST_LOOK_SECONDS + 60))
    seen = await take_snapshot(services)
    rows = await apply_actions(services, seen, find_all_discrepancies(seen)) + unavailable_sources(seen)
    for each in rows:
        get_run_logger().warning("submission %s: %s: %s", each["submission"], each["action"], each["finding"])
    known = await _last_table()
    for_a_host = [each for each in rows if each["action"] == Action.NOTIFY_OPERATOR]
    new = [each for each in for_a_host if each not in known]
    untold = await asyncio.to_thread(notify_operators, new) if new else []
    if rows or known:
        told = [dict(each) for each in rows if each not in untold]
        await acreate_table_artifact(table=told, key=TABLE, description="What did not agree")
    return Completed(
        message=f"{len(seen.views)} submissions: {len(rows) - len(for_a_host)} repairs, {len(for_a_host)} for a host."
    )


async def _last_table() -> list[Row]:
    """What the last look found: nobody is told the same twice."""
    last = await Artifact.aget(TABLE)
    return list(json.loads(last.data)) if last and isinstance(last.data, str) else []


def find_all_discrepancies(seen: Snapshot) -> list[Finding]:
    """What is wrong, as a table's rows would have it."""
    return order(finding for view in seen.views for finding in find_discrepancies(view, seen.taken_at))


async def apply_actions(services: Services, seen: Snapshot, findings: Sequence[Finding]) -> list[Row]:
    """Action one after the other: one that fails does not keep the next from its turn. Returns the table's rows."""
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
    """What could not be asked: the comparison goes without it, and the next one has it again."""
    return [
        {"submission": "all", "action": Action.NOTIFY_OPERATOR.value, "finding": sentence} for sentence in seen.blind
    ]


def row(finding: Finding) -> Row:
    """A finding for people."""
    return {"submission": str(finding.submission), "action": finding.action.value, "finding": finding.sentence}


def notify_operators(rows: Sequence[Row]) -> list[Row]:
    """Ring for the automation that `leaderboard setup --notify` makes; returns what Prefect did not take. Blocks.

    Before the table is kept: a run that dies in between tells twice rather than never.
    """
    untold = []
    with prefect_events() as publisher:
        for each in rows:
            submission = each["submission"]
            resource = (f"leaderboard.submission.{submission}", f"submission {submission}")
            try:
                publisher.publish(OutgoingEvent(NEEDS_ATTENTION, *resource, {"finding": each["finding"]}))
            except EvaluationError as error:
                get_run_logger().warning(
                    "Submission %s: nobody is told now, but at the next look: %s", submission, error
                )
                untold.append(each)
    return untold
