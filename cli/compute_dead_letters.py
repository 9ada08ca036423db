"""`leaderboard compute dead` and `redrive`: the dead letters of a queue of jobs, and their way back."""

from datetime import UTC
from typing import Annotated

from cyclopts import Parameter

from blocks import document_names
from blocks.dead_letters import DeadLetter, DeadLetters
from cli.arguments import Json
from cli.compute import Flag, Name, load_jobs
from cli.listing import print_json
from compute_client.job import ResultStatus, UnknownJob, read_message
from deployments.installation import installation
from deployments.settings import load_settings
from evaluation.errors import InvalidMessage
from services.compute_backlog import Jobs


def dead(*, jobs: Name = document_names.COMPUTE, as_json: Json = False) -> None:
    """Show the queue's dead letters: which job, how it stands, since when, and why its message was set aside.

    Parameters
    ----------
    as_json
        Print JSON.
    """
    with installation(load_settings()):
        found = load_jobs(jobs)
        with DeadLetters(found.queue) as letters:
            rows = [_row(found, letter) for letter in letters]
            unseen = letters.unseen()
    if as_json:
        print_json({"dead_letters": rows, "unseen": unseen})
        return
    for row in rows:
        print(f"{row['message_id']} since {row['since']}: {row['about']}: {row['reason'] or 'no reason'}")
    if unseen:
        print(f"About {unseen} more are held by another command: try again in two minutes.")


def _row(jobs: Jobs, letter: DeadLetter) -> dict[str, object]:
    since = letter.since.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    about = {"job": job_of(letter), "about": describe(jobs, letter), "reason": letter.reason}
    return {"message_id": letter.message_id, "since": since, **about}


def redrive(
    letter: Annotated[str | None, Parameter(help="A message's id, or a job's; all if not given.")] = None,
    /,
    *,
    dry_run: Annotated[bool, Flag] = False,
    jobs: Name = document_names.COMPUTE,
) -> int:
    """Send dead letters back to the queue. Exit code 1 if one is refused: its job is unknown, or has its end.

    Parameters
    ----------
    dry_run
        Only say what would happen.
    """
    refused = 0
    with installation(load_settings()):
        found = load_jobs(jobs)
        with DeadLetters(found.queue) as letters:
            for each in letters:
                if letter not in (None, each.message_id, job_of(each)):
                    continue
                fate = "refused" if not _is_open(found, each) else "would be sent" if dry_run else "sent"
                if fate == "sent":
                    letters.send_back(each)
                refused += fate == "refused"
                print(f"{fate}: {each.message_id}: {describe(found, each)}")
    return 1 if refused else 0


def job_of(letter: DeadLetter) -> str | None:
    """The job's id; None for a message that names none."""
    try:
        return read_message(letter.received.body)
    except InvalidMessage:
        return None


def describe(jobs: Jobs, letter: DeadLetter) -> str:
    """The job and how it stands, for people."""
    job_id = job_of(letter)
    if job_id is None:
        return "names no job"
    status = _status(jobs, job_id)
    return f"job {job_id} is {status}" if status else f"job {job_id} is not in the table"


def _is_open(jobs: Jobs, letter: DeadLetter) -> bool:
    job_id = job_of(letter)
    status = _status(jobs, job_id) if job_id else None
    return status is not None and not status.final


def _status(jobs: Jobs, job_id: str) -> ResultStatus | None:
    try:
        return jobs.producer().retrieve_result_status(job_id)
    except UnknownJob:
        return None
