"""`leaderboard report`: a submission's report as an HTML file."""

import asyncio
import sys
from pathlib import Path

from cli.arguments import Flag, SubmissionId
from cli.report_file import write_page
from deployments.installation import installation
from deployments.settings import load_settings
from evaluation.errors import RequestRefused
from evaluation.report_page.source import Audience
from flows.report_pages import FILES, made_page
from flows.services import load_services_for_person


def report(
    submission: SubmissionId, /, *, team: Flag = False, operator: Flag = False, output: Path | None = None
) -> None:
    """Write a submission's report as one HTML file, made anew from what is kept of it; prints the file's name.

    The same pages are in its S3 folder: report.html, and report-team.html for its team.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    team
        The page for the team: without places, checks and secret routes of the installation.
    operator
        The full page, for operators; so it is without either option.
    output
        The file, or - for the standard output; submission-ID-report.html (or -report-team.html) here if not given.
    """
    if team and operator:
        raise RequestRefused("A report is for the team or for operators, not both", "both options are given")
    audience = Audience.TEAM if team else Audience.OPERATOR
    with installation(load_settings()):
        page = asyncio.run(_page(submission, audience))
    if str(output) == "-":
        sys.stdout.buffer.write(page)
        return
    print(write_page(output or Path(f"submission-{submission}-{FILES[audience]}"), page))


async def _page(submission: int, audience: Audience) -> bytes:
    return await made_page(await load_services_for_person(), submission, audience)
