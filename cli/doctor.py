"""`leaderboard doctor`: what is there, what is not, and what to do."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from rich.console import Console
from rich.text import Text

from cli.arguments import Json
from cli.exit_codes import ExitCode
from cli.listing import print_json
from deployments.installation import installation
from deployments.settings import load_settings
from doctor.aws_checks import aws_checks
from doctor.cluster_checks import cluster_checks
from doctor.context import DoctorContext
from doctor.evalai_checks import evalai_checks
from doctor.findings import CheckStatus, Finding, run_checks
from doctor.prefect_checks import prefect_checks
from doctor.progress_checks import progress_checks
from doctor.queue_checks import queue_checks

_COLOURS = {CheckStatus.OK: "green", CheckStatus.PROBLEM: "bold red", CheckStatus.NOT_CHECKED: "yellow"}


def doctor(*, as_json: Json = False) -> int:
    """Check an installation: Prefect, AWS, queue, clusters, EvalAI. Exit code 1 if there is a problem.

    Asks the embedded stack where one is up, else the installation of PREFECT_API_URL. Changes nothing. A line is OK,
    PROBLEM or NOT CHECKED, and says what to do.

    Parameters
    ----------
    as_json
        Print JSON: a list of subject, status, detail and remedy.
    """
    settings = load_settings()
    with (
        installation(settings) as chosen,
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings={"timeout": 15}) as client,
    ):
        findings = diagnose(DoctorContext(settings, chosen, client))
        if as_json:
            seen = list(findings)
            print_json([asdict(finding) for finding in seen])
        else:
            seen = _show(f"This is {chosen}.", findings)
    problem = any(finding.status is CheckStatus.PROBLEM for finding in seen)
    return ExitCode.FAILED if problem else ExitCode.OK


def diagnose(context: DoctorContext) -> Iterator[Finding]:
    """Every finding about the installation, as soon as it is made."""
    for checks in (prefect_checks, progress_checks, aws_checks, queue_checks, cluster_checks, evalai_checks):
        yield from run_checks(checks(context))


def _show(title: str, findings: Iterable[Finding]) -> list[Finding]:
    screen, seen = Console(highlight=False), list[Finding]()
    screen.print(title, markup=False, soft_wrap=True)
    for finding in findings:
        seen.append(finding)
        line = Text(str(finding))
        line.stylize(_COLOURS[finding.status], 0, len(finding.status))
        screen.print(line, soft_wrap=True)
    statuses = [finding.status for finding in seen]
    screen.print(", ".join(f"{statuses.count(status)} {status}" for status in CheckStatus), highlight=False)
    return seen
