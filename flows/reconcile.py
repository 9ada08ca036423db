"""The reconciler: finds what every other part may have missed, mends what is safe, and names the rest to the hosts.

Prefect's events are a doorbell that may be missed; this flow, on a schedule, is why nothing depends on them.
"""

from collections.abc import Sequence

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed

from evaluation.errors import EvaluationError
from evaluation.reconciliation import Finding, Repair, judge, order
from flows.repairs import repair
from flows.site import Site, load_site
from flows.survey import Survey, survey

ATTENTION = "leaderboard.submission.needs-attention"  # an automation can send it to the hosts


@flow(name="reconcile", retries=2, retry_delay_seconds=20)
async def reconcile() -> State[None]:
    """Compare EvalAI, the ledger, Prefect's runs and the clusters' Jobs, and repair. The table is an artifact."""
    site = await load_site()
    seen = await survey(site)
    rows = await mend(site, seen, find(seen)) + blind_spots(seen)
    for each in rows:
        get_run_logger().warning("submission %s: %s: %s", each["submission"], each["repair"], each["finding"])
    if rows:
        await acreate_table_artifact(table=rows, key="reconciliation", description="What did not agree")
    repaired = sum(row["repair"] != Repair.TELL for row in rows)
    return Completed(message=f"{len(seen.views)} submissions: {repaired} repairs, {len(rows) - repaired} for a host.")


def find(seen: Survey) -> list[Finding]:
    """What is wrong, as a table's rows would have it."""
    return order(finding for view in seen.views for finding in judge(view, seen.taken_at))


async def mend(site: Site, seen: Survey, findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Repair one after the other: one that fails does not keep the next from its turn. Returns the table's rows."""
    rows = []
    for finding in findings:
        problem = ""
        try:
            await repair(site, seen, finding)
        except (EvaluationError, httpx.HTTPError) as error:
            problem = f"The repair failed: {error}"
        if problem or finding.repair is Repair.TELL:
            _tell(finding, problem)
        rows.append(row(finding, problem))
    return rows


def blind_spots(seen: Survey) -> list[dict[str, str]]:
    """What could not be asked: the comparison goes without it, and the next one has it again."""
    return [{"submission": "all", "repair": Repair.TELL.value, "finding": sentence} for sentence in seen.blind]


def row(finding: Finding, problem: str = "") -> dict[str, str]:
    """A finding for people."""
    said = " ".join(part for part in (finding.sentence, problem) if part)
    return {"submission": str(finding.submission), "repair": finding.repair.value, "finding": said}


def _tell(finding: Finding, problem: str) -> None:
    emit_event(
        ATTENTION,
        resource={
            "prefect.resource.id": f"leaderboard.submission.{finding.submission}",
            "prefect.resource.name": f"submission {finding.submission}",
        },
        payload={"finding": f"{finding.sentence} {problem}".strip()},
    )
