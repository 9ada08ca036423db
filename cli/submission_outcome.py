"""How a submission ended, on a terminal: the metrics or the reason, where to look, and one line for scripts."""

from collections.abc import Mapping
from typing import IO

from rich.console import Console

from cli.exit_codes import ExitCode
from cli.listing import show_values
from cli.submission_progress import Observer, Progress
from deployments.installation import Installation
from evaluation.lifecycle.ledger_entry import CLAIM_OWNER, STATUS
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.submission.model import SubmissionStatus


def show_outcome(console: Console, seen: Progress, metrics: Mapping[str, float], places: Mapping[str, str]) -> None:
    """The leaderboard row or the reason, what belongs beside the score, and where to look."""
    console.print()
    if seen.evalai is SubmissionStatus.FINISHED:
        values = [(name, f"{value:.3f}") for name, value in metrics.items()]
        show_values(console, f"Leaderboard row, {seen.phase}", values)
        if seen.remarks:
            console.print(seen.remarks, markup=False)
    else:
        console.print(seen.reason or "It never started.", markup=False)
    if places:
        console.print()
        show_values(console, "Where to look", list(places.items()))


def places_of(observer: Observer, target: Installation, seen: Progress) -> dict[str, str]:
    """What can be looked at of an installation that goes on: addresses that open, and commands."""
    ui, run = target.prefect_api_url.removesuffix("/api"), seen.row.get(CLAIM_OWNER, "")
    return {
        "Report": f"leaderboard report {seen.submission}",
        "Logs": f"leaderboard logs {seen.submission}",
        "Prefect": f"{ui}/runs/flow-run/{run}" if run else ui,
        "S3 folder": observer.folder(seen),
    }


def finish(file: IO[str], seen: Progress, metrics: Mapping[str, float], seconds: float) -> int:
    """Print the last line, in the form that scripts read; returns the exit code: 0 only for a full, finished result."""
    score = metrics.get("Driving score")
    words = [
        "HELD" if _held(seen) else seen.evalai.value.upper(),
        f"submission={seen.submission}",
        f"phase={seen.phase}",
        f"routes={seen.routes_done}/{seen.routes_total}",
        f"shards={len(seen.shards)}",
        f"driving_score={'none' if score is None else f'{score:.3f}'}",
        f"evalai={seen.evalai.value}",
        f"seconds={seconds:.0f}",
    ]
    print(*words, file=file, flush=True)
    return exit_code(seen, score is not None)


def exit_code(seen: Progress, scored: bool = True) -> ExitCode:
    """OK only for a full, finished result."""
    if seen.evalai is SubmissionStatus.FINISHED and scored and 0 < seen.routes_total == seen.routes_done:
        return ExitCode.OK
    return ExitCode.ATTENTION if _held(seen) else ExitCode.FAILED


def _held(seen: Progress) -> bool:
    return seen.row.get(STATUS) == OutcomeStatus.HELD
