"""`leaderboard queue`: the messages that could not be evaluated, why, and their way back."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from blocks import document_names
from blocks.dead_letters import DeadLetter, DeadLetters
from blocks.evalai import EvalAI
from cli.arguments import Flag, Json
from cli.exit_codes import ExitCode
from cli.listing import Column, Line, print_json, show_listing
from deployments.installation import installation
from deployments.prefect_setup import load_queue
from deployments.settings import load_settings
from evaluation.errors import EvaluationError, InvalidMessage, NeedsOperator
from evaluation.submission.message import SubmissionMessage, parse_message
from prefect_api.blocks import load_saved_block
from services.bridge import BridgeSettings, read_submission

EVERY = "all"
COLUMNS = (Column("message"), Column("submission", right=True), Column("since (UTC)"), Column("times", right=True))
SHORT = 8  # characters of a message's id that people see, and the fewest that `redrive` takes


def dead(*, as_json: Json = False) -> None:
    """Show the dead letters: the messages that could not be evaluated, why, since when, after how many deliveries.

    Asks the embedded stack where one is up, else the installation of PREFECT_API_URL. Nothing is taken away.

    Parameters
    ----------
    as_json
        Print JSON, with whole ids and the messages' bodies.
    """
    with installation(load_settings()):
        phases = load_saved_block(EvalAI, document_names.EVALAI).phases
        with DeadLetters(load_queue()) as letters:
            found = [describe(letter, phases) for letter in letters]
            unseen = letters.unseen()
    if as_json:
        print_json({"dead_letters": found, "unseen": unseen})
        return
    _show(Console(highlight=False), found, unseen)


def redrive(
    letter: Annotated[str | None, Parameter(help="A message's id or its beginning, or a submission's id.")] = None,
    /,
    *,
    dry_run: Flag = False,
    force: Flag = False,
) -> int:
    """Send dead letters back to the queue that they came from: one, or all of them. Exit code 1 if one is refused.

    A letter is deleted only after it has arrived there. One that would only come back is refused.

    Parameters
    ----------
    letter
        The first column of `leaderboard queue dead`, or a submission's id: all letters about it. All letters if not
        given.
    dry_run
        Only say what would happen.
    force
        Send back what is still invalid, too.
    """
    with installation(load_settings()):
        evalai = load_saved_block(EvalAI, document_names.EVALAI)
        with DeadLetters(load_queue()) as letters:
            chosen = letters if letter is None else choose(letters, letter)
            fates = []
            for each in chosen:
                fate, why = decide(each, evalai, dry_run, force)
                if fate is Fate.SENT:
                    letters.send_back(each)
                print(reported(each, fate, why))
                fates.append(fate)
    print(", ".join(f"{fates.count(fate)} {fate}" for fate in Fate if fate in fates) or "There are no dead letters.")
    return ExitCode.FAILED if Fate.REFUSED in fates else ExitCode.OK


def discard(
    letter: Annotated[str, Parameter(help="A message's id or its beginning, or a submission's id; or `all`.")],
    /,
    *,
    dry_run: Flag = False,
) -> None:
    """Delete dead letters that are no longer needed, so that the doctor reports none. Each is printed whole before.

    Parameters
    ----------
    letter
        The first column of `leaderboard queue dead`, or a submission's id: all letters about it. `all`: all letters.
    dry_run
        Only say which.
    """
    with installation(load_settings()), DeadLetters(load_queue()) as letters:
        chosen = list(letters) if letter == EVERY else choose(letters, letter)
        for each in chosen:
            print(f"{'would be ' if dry_run else ''}discarded: {each.message_id}: {each.reason}", each.received.body)
            if not dry_run:
                letters.discard(each)
    print(f"{len(chosen)} {'would be discarded' if dry_run else 'discarded'}")


class Fate(StrEnum):
    """What `redrive` does with a letter."""

    SENT = "sent back"
    WOULD_BE_SENT = "would be sent back"
    REFUSED = "refused"


def decide(letter: DeadLetter, evalai: EvalAI, dry_run: bool, force: bool) -> tuple[Fate, str]:
    """A letter's fate and, where it is refused, why: what the bridge and the flow would say of it now."""
    try:
        if not force:
            # The deliveries of its earlier life do not count on its next.
            received = dataclasses.replace(letter.received, count=1)
            evalai.phase(read_submission(received, BridgeSettings(challenge_pk=evalai.challenge_pk)).phase_pk)
    except EvaluationError as error:
        return Fate.REFUSED, f"it would come back: {error} --force sends it all the same."
    return (Fate.WOULD_BE_SENT if dry_run else Fate.SENT), ""


def choose(letters: Iterable[DeadLetter], wanted: str) -> list[DeadLetter]:
    """Those about the submission, or the one message; raises NeedsOperator where none or more than one is meant."""
    everything = list(letters)
    about = [letter for letter in everything if _submission(letter) == wanted]
    if about:
        return about
    beginning = [letter for letter in everything if len(wanted) >= SHORT and letter.message_id.startswith(wanted)]
    if len(beginning) != 1:
        problem = f"{len(beginning)} of the {len(everything)} begin so" if beginning else f"there are {len(everything)}"
        raise NeedsOperator(
            f"No single dead letter matches {wanted}",
            problem,
            f"Give a submission's id, or a message's or its first {SHORT} characters: `leaderboard queue dead`.",
        )
    return beginning


def reported(letter: DeadLetter, fate: Fate, why: str) -> str:
    about = f"submission {_submission(letter)}" if _submission(letter) else "of no submission"
    return f"{fate}: {letter.message_id} ({about}){': ' if why else ''}{why}"


def describe(letter: DeadLetter, phases: Mapping[str, str]) -> dict[str, object]:
    """A letter as `--json` has it; `phases` are EvalAI's ids and the codenames."""
    message = _message(letter)
    return {
        "message_id": letter.message_id,
        "submission": message.submission_pk if message else None,
        "phase": phases.get(str(message.phase_pk), str(message.phase_pk)) if message else None,
        "reason": letter.reason,
        "since": letter.since.astimezone(UTC).isoformat(timespec="seconds"),
        "deliveries": letter.deliveries,
        "body": letter.received.body,
    }


def _message(letter: DeadLetter) -> SubmissionMessage | None:
    try:
        return parse_message(letter.received.body)
    except InvalidMessage:
        return None


def _submission(letter: DeadLetter) -> str:
    message = _message(letter)
    return str(message.submission_pk) if message else ""


def _show(screen: Console, found: list[dict[str, object]], unseen: int) -> None:
    if found:
        print(f"{len(found)} dead letter{'s'[: len(found) != 1]}")
        show_listing(screen, COLUMNS, [Line(tuple(_cells(row)), _about(row)) for row in found], "phase: reason")
        print(
            "Correct what a reason says, then send one or all of them back: leaderboard queue redrive [ID]. "
            "To delete one: leaderboard queue discard ID."
        )
    elif not unseen:
        print("There are no dead letters.")
    if unseen:
        print(
            f"About {unseen} more cannot be seen now: another command holds them, or they wait behind others of their "
            "FIFO group. Try again in two minutes."
        )


def _cells(row: Mapping[str, object]) -> Iterator[str]:
    yield str(row["message_id"])[:SHORT]
    yield str(row["submission"] or "-")
    yield datetime.fromisoformat(str(row["since"])).strftime("%d %b %H:%M")
    yield str(row["deliveries"] or "-")


def _about(row: Mapping[str, object]) -> str:
    return ": ".join(str(row[name]) for name in ("phase", "reason") if row[name])
