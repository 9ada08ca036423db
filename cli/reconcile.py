"""`leaderboard reconcile` and `leaderboard explain`: what does not agree, and why a submission is where it is."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from cli.arguments import SubmissionId
from cli.progress_view import values_table
from deployments.installation import installation
from deployments.settings import load_settings
from flows.reconciler.explain_submission import explain_submission
from flows.reconciler.explanation import Explanation
from flows.reconciler.flow import Row, preview, reconcile_once
from flows.reconciler.model import Action
from flows.services import load_services

Flag = Annotated[bool, Parameter(negative=())]
NEEDS_A_PERSON = 3


def reconcile(*, dry_run: Flag = False, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Compare EvalAI, the ledger, Prefect's runs and the clusters' Jobs, and repair what is safe.

    The installation does the same automatically, every five minutes. A claim that seems abandoned is watched for as
    long as its lease (3 minutes) before it is taken over. Exit code 3 if something is left for an operator.

    Parameters
    ----------
    dry_run
        Only show what would be done.
    as_json
        Print JSON.
    """
    with installation(load_settings()):
        rows, seen = asyncio.run(_reconcile(dry_run))
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _show(rows, seen, dry_run)
    return NEEDS_A_PERSON if any(each["action"] == Action.NOTIFY_OPERATOR for each in rows) else 0


def explain(
    submission: SubmissionId, /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> int:
    """Show the stage of a submission, since when, what it waits for and what comes next. Exit code 1 if it is unknown.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    as_json
        Print JSON.
    """
    with installation(load_settings()):
        explained = asyncio.run(_explain(submission))
    if as_json:
        print(json.dumps(explained.lines, indent=2, ensure_ascii=False))
    else:
        Console(highlight=False).print(values_table(f"Submission {submission}", _values(explained)))
    return 0 if explained.known else 1


async def _reconcile(dry_run: bool) -> tuple[list[Row], int]:
    services = await load_services()
    return await (preview(services) if dry_run else reconcile_once(services))


async def _explain(submission: int) -> Explanation:
    return await explain_submission(await load_services(), submission)


def _values(explanation: Explanation) -> Mapping[str, object]:
    values: dict[str, object] = {}
    for label, text in explanation.lines:
        values[label] = f"{values[label]}\n{text}" if label in values else text
    return values


def _show(rows: Sequence[Mapping[str, str]], seen: int, dry_run: bool) -> None:
    screen = Console(highlight=False)
    if not rows:
        screen.print(f"{seen} submissions: everything agrees.")
        return
    table = Table("submission", "would do" if dry_run else "done", "finding")
    for each in rows:
        table.add_row(each["submission"], each["action"], each["finding"])
    screen.print(table)
    left = sum(each["action"] == Action.NOTIFY_OPERATOR for each in rows)
    screen.print(
        f"{seen} submissions: {len(rows) - left} {'to repair' if dry_run else 'repaired'}, {left} for an operator."
    )
