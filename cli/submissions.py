"""The commands about submissions, for any installation: status, watch, result, cancel, resume."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console

from cli.arguments import WAIT_SECONDS, Flag, Json, SubmissionId, WaitSeconds
from cli.exit_codes import ExitCode
from cli.listing import print_json
from cli.observers import Challenge, load_challenge, observer_of, while_it_lasts
from cli.progress_view import show_progress, watch_live
from cli.submission_list import ONLY_THE_LEDGER, from_ledger, gather, show_list
from cli.submission_outcome import exit_code, finish, places_of, show_outcome
from cli.submission_progress import Observer, in_time
from deployments.installation import Installation, installation
from deployments.settings import load_settings
from evaluation.errors import DeadlineExceeded, RequestRefused, ServiceUnavailable
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.submission.model import CLOSED
from flows.held_results import KeptResult, kept_result
from flows.services import load_services_for_person

SHOWN = 20  # submissions of `status`, unless --all


def screen() -> Console:
    return Console(highlight=False)


def status(submission: SubmissionId | None = None, /, *, all_: Flag = False, as_json: Json = False) -> None:
    """Show the latest submissions with their scores, or one submission with its shards.

    Without an id: status, driving score, routes, and the reason or what belongs beside the score (quarantined routes,
    restarts). Costs one request to EvalAI.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    all_
        All that the ledger knows, not only the latest 20.
    as_json
        Print JSON.
    """
    with installation(load_settings()) as target:
        challenge = load_challenge()
        if submission is not None:
            _show_one(challenge, target, submission, as_json)
            return
        lines, problem = gather(challenge, datetime.now(UTC))
    if problem:
        print(problem, file=sys.stderr)
    chosen = lines if all_ else lines[:SHOWN]
    if as_json:
        print_json([line.described() for line in chosen])
    else:
        show_list(screen(), chosen, len(lines))


def _show_one(challenge: Challenge, target: Installation, submission: int, as_json: bool) -> None:
    try:
        seen = observer_of(challenge, target).snapshot(submission)
    except ServiceUnavailable as outage:
        _show_from_ledger(challenge, submission, outage, as_json)
        return
    if as_json:
        print_json({**seen.described(), "ledger": dict(sorted(seen.row.items()))})
    else:
        show_progress(screen(), seen)


def _show_from_ledger(challenge: Challenge, submission: int, outage: ServiceUnavailable, as_json: bool) -> None:
    """What is known while EvalAI does not answer; raises that where no ledger knows the submission."""
    line = from_ledger(challenge, submission)
    if line is None:
        raise outage
    print(f"{ONLY_THE_LEDGER} {outage}", file=sys.stderr)
    if as_json:
        print_json(line.described())
    else:
        show_list(screen(), [line], 1)


def watch(submission: SubmissionId, /, *, wait_seconds: WaitSeconds = WAIT_SECONDS, as_json: Json = False) -> int:
    """Follow a submission until its end: a bar for each shard, then the result or the reason.

    Plain lines where the output is no terminal. Exit code 0: finished; 1: failed or cancelled; 3: held; 124:
    --wait-seconds are over; 130: Ctrl-C. The submission goes on in any case.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    wait_seconds
        How long to watch at most.
    as_json
        Print a JSON object for each change, one a line; the last one is the end.
    """
    with observed() as (target, challenge):
        return follow_to_end(target, observer_of(challenge, target), submission, wait_seconds, as_json)


@contextmanager
def observed() -> Iterator[tuple[Installation, Challenge]]:
    with installation(load_settings()) as target:
        yield target, load_challenge()


def follow_to_end(
    target: Installation, observer: Observer, submission: int, seconds: float, as_json: bool = False
) -> int:
    """Watch, then show how it ended; returns the exit code."""
    began, console = time.monotonic(), screen()
    goes_on = f"It goes on: `leaderboard watch {submission}`"
    try:
        snapshots = while_it_lasts(observer.follow(submission), target, load_settings())
        limited = in_time(snapshots, seconds, "--wait-seconds allow no more", f"{goes_on}.")
        seen = watch_live(console, limited, as_json)
    except DeadlineExceeded as error:
        print(error, file=sys.stderr)
        return ExitCode.TIME_IS_UP
    except KeyboardInterrupt:
        print(f"\nSubmission {submission} is no longer watched. {goes_on}", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if as_json:
        return exit_code(seen)
    metrics = observer.result(submission, seen.phase) if seen.row else {}
    show_outcome(console, seen, metrics, places_of(observer, target, seen))
    return finish(console.file, seen, metrics, time.monotonic() - began)


def result(submission: SubmissionId, /, *, as_json: Json = False) -> int:
    """Show a submission's result: every metric, what belongs beside the score, or why there is none.

    Exit code 0: finished; 1: failed or cancelled; 3: held, or without an outcome yet.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    as_json
        Print JSON.
    """
    with installation(load_settings()):
        kept = asyncio.run(_kept(submission))
    outcome, entry = kept.outcome, kept.entry
    if entry.open:
        what = f"Submission {submission} is being evaluated again"
        raise RequestRefused(what, f"this is attempt {entry.attempt}", f"See `leaderboard status {submission}`.")
    if as_json:
        values: dict[str, object] = {
            "submission": submission,
            "status": outcome.ending.value,
            "metrics": dict(outcome.metrics),
        }
        values |= {"routes_done": outcome.routes_done, "routes_total": outcome.routes_total}
        values |= {"reason": outcome.sentence, "fault": outcome.fault, "remarks": list(outcome.remarks)}
        print_json(values)
    else:
        print(outcome.sentence)
        print(f"\n{outcome.summary}" if outcome.summary else "", end="")
    return _CODES.get(outcome.ending, ExitCode.FAILED)


_CODES = {OutcomeStatus.FINISHED: ExitCode.OK, OutcomeStatus.HELD: ExitCode.ATTENTION}


async def _kept(submission: int) -> KeptResult:
    return await kept_result(await load_services_for_person(), submission)


def cancel(submission: SubmissionId, /) -> None:
    """Cancel a submission at EvalAI. Its flow run sees that, and stops the shards. One that has ended is refused.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    """
    with observed() as (_, challenge):
        row = challenge.client.submission_row(submission)
        if row.withdrawn or row.status in CLOSED:
            ended = "cancelled" if row.withdrawn else row.status.value
            remedy = f"`leaderboard result {submission}` shows it; a result is hidden at EvalAI, by flagging it."
            raise RequestRefused(f"Submission {submission} cannot be cancelled", f"it is {ended} already", remedy)
        challenge.client.cancel(challenge.pk, submission)
    print(f"EvalAI has submission {submission} as cancelled. Its flow run stops the shards when it sees that.")


def resume(submission: SubmissionId, /, *, wait: Flag = False, wait_seconds: WaitSeconds = WAIT_SECONDS) -> int:
    """Resume a failed submission from its checkpoints, as a challenge host does at EvalAI.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    wait
        Follow it to its end, as `watch` does, with its exit codes.
    wait_seconds
        How long --wait waits at most.
    """
    with observed() as (target, challenge):
        challenge.client.resume(submission)
        if not wait:
            print(f"EvalAI has submission {submission} as resuming: its message is on the queue.")
            return ExitCode.OK
        return follow_to_end(target, observer_of(challenge, target), submission, wait_seconds)
