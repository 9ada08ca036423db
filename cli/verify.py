"""`leaderboard verify`: why a result is held, and an operator's decision about it."""

import asyncio
import getpass

from rich.console import Console
from rich.markup import escape

from cli.arguments import Flag, Json, SubmissionId
from cli.exit_codes import ExitCode
from cli.listing import print_json
from deployments.installation import installation
from deployments.settings import load_settings
from evaluation.errors import RequestRefused
from evaluation.lifecycle.outcome import Outcome
from flows.held_results import KeptResult, kept_result, reject, release
from flows.provenance import check_provenance
from flows.services import load_services_for_person


def verify(
    submission: SubmissionId,
    /,
    *,
    release: Flag = False,
    reject: Flag = False,
    because: str = "",
    as_json: Json = False,
) -> int:
    """Show why a submission's result is held, and whether its files are as they were; release or reject it.

    Exit code 3 while it is held, and where a file or the signature of its provenance does not fit.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    release
        Publish the result all the same.
    reject
        End the submission as failed, without a score.
    because
        Why it is decided so: a sentence that the team reads, and that the provenance keeps.
    as_json
        Print JSON.
    """
    if release and reject:
        raise RequestRefused("A result is released or rejected, not both")
    decision = "release" if release else "reject" if reject else ""
    if bool(because.strip()) is not bool(decision):
        what = f"--{decision} needs a reason" if decision else "--because is the reason of a decision"
        remedy = f"Add --because and a sentence{'' if decision else ' to --release or --reject'}."
        raise RequestRefused(what, "the team and the provenance tell it", remedy)
    with installation(load_settings()):
        kept, decided, (provenance, right) = asyncio.run(_verify(submission, decision, because))
    shown = decided or kept.outcome
    if as_json:
        values: dict[str, object] = {
            "submission": submission,
            "held": kept.held and not decided,
            "outcome": shown.ending.value,
        }
        values |= {"sentence": shown.sentence, "reasons": list(shown.reasons)}
        print_json({**values, "provenance": provenance, "provenance_right": right})
    else:
        _show(kept, shown, provenance)
    return ExitCode.ATTENTION if (kept.held and not decided) or not right else ExitCode.OK


async def _verify(submission: int, decision: str, because: str) -> tuple[KeptResult, Outcome | None, tuple[str, bool]]:
    services = await load_services_for_person()
    kept = await kept_result(services, submission)
    act = {"release": release, "reject": reject}.get(decision)
    decided = await act(kept, getpass.getuser(), because) if act else None
    checked = "", True
    if kept.outcome.metrics:  # only a complete result has a provenance
        checked = await asyncio.to_thread(check_provenance, kept.cluster.artifacts, submission, services.provenance_key)
    return kept, decided, checked


def _show(kept: KeptResult, outcome: Outcome, provenance: str) -> None:
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(escape(outcome.sentence))
    for reason in outcome.reasons:
        screen.print(f"  - {escape(reason)}")
    for name, value in outcome.metrics.items() if kept.held else ():
        screen.print(f"  {escape(name)}: {value:.3f}")
    if provenance:
        screen.print(escape(provenance))
