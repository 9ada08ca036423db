"""`leaderboard reconcile` and `leaderboard explain`: what does not agree, and why a submission is where it is."""

import asyncio
from collections.abc import Mapping, Sequence

from rich.console import Console

from cli.arguments import Flag, Json, SubmissionId
from cli.exit_codes import ExitCode
from cli.listing import Column, Line, print_json, show_listing, show_values
from deployments.installation import installation
from deployments.settings import load_settings
from flows.reconciler.explain_submission import explain_submission
from flows.reconciler.explanation import Explanation
from flows.reconciler.flow import Row, preview, reconcile_once
from flows.reconciler.model import Action
from flows.services import load_services


def reconcile(*, dry_run: Flag = False, as_json: Json = False) -> int:
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
        print_json(rows)
    else:
        _show(rows, seen, dry_run)
    left = any(each["action"] == Action.NOTIFY_OPERATOR for each in rows)
    return ExitCode.ATTENTION if left else ExitCode.OK


def explain(submission: SubmissionId, /, *, as_json: Json = False) -> int:
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
        print_json(explained.described())
    else:
        show_values(Console(highlight=False), f"Submission {submission}", explained.lines)
    return ExitCode.OK if explained.known else ExitCode.FAILED


async def _reconcile(dry_run: bool) -> tuple[list[Row], int]:
    services = await load_services()
    return await (preview(services) if dry_run else reconcile_once(services))


async def _explain(submission: int) -> Explanation:
    return await explain_submission(await load_services(), submission)


def _show(rows: Sequence[Mapping[str, str]], seen: int, dry_run: bool) -> None:
    screen = Console(highlight=False)
    if not rows:
        screen.print(f"{seen} submissions: everything agrees.")
        return
    columns = (Column("submission", right=True), Column("would do" if dry_run else "done"))
    lines = [Line((each["submission"], each["action"]), each["finding"]) for each in rows]
    show_listing(screen, columns, lines, "finding")
    left = sum(each["action"] == Action.NOTIFY_OPERATOR for each in rows)
    screen.print(
        f"{seen} submissions: {len(rows) - left} {'to repair' if dry_run else 'repaired'}, {left} for an operator."
    )
