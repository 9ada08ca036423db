"""`leaderboard standings`: the best submission of each team, as EvalAI ranks them."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from cli.arguments import Flag, Json
from cli.exit_codes import ExitCode
from cli.listing import Column, Line, print_json, show_listing
from cli.observers import Challenge, load_challenge
from cli.report_file import write_page
from deployments.installation import installation
from deployments.settings import load_settings
from evalai_api.fields import LeaderboardRow, SplitRow
from evaluation.errors import InvalidConfiguration
from evaluation.report_page.standings_page import render_standings
from evaluation.standings import Standing
from evaluation.standings import standings as ranked

_COLUMNS = (
    Column("rank", right=True),
    Column("team", folds=True),
    Column("driving score", right=True, folds=True),
    Column("completion", right=True),
    Column("penalty", right=True),
    Column("submission", right=True),
)
_SHOWN = ("Driving score", "Route completion", "Infraction penalty")


def standings(
    phase: str | None = None, /, *, as_json: Json = False, html: Path | None = None, compare: Flag = False
) -> int:
    """Show the best submission of each team in a phase, from the ledger, in EvalAI's order and with its figures.

    Parameters
    ----------
    phase
        The phase's codename, e.g. leaderboard-20-SENSORS; all phases if not given.
    as_json
        Print JSON, with every metric.
    html
        Write a page with every metric to this file, for a web server or to be sent.
    compare
        Ask EvalAI for its leaderboards too, and say where they differ: exit code 3 if they do. A submission that a
        host has hidden there is such a difference.
    """
    with installation(load_settings()):
        challenge = load_challenge()
        tables = gather(challenge, phase)
        differences = compared(challenge, tables) if compare else []
    if html is not None:
        print(write_page(html, render_standings(tables, datetime.now(UTC)), "--html"))
    elif as_json:
        print_json({name: [_described(row) for row in rows] for name, rows in tables.items()})
    else:
        _show(Console(highlight=False), tables)
    for difference in differences:
        print(difference, file=sys.stderr)
    if compare and not differences:
        print("EvalAI shows the same.", file=sys.stderr)
    return ExitCode.ATTENTION if differences else ExitCode.OK


def gather(challenge: Challenge, phase: str | None) -> dict[str, list[Standing]]:
    """The rows of the phase, or of all; raises InvalidConfiguration for a phase that the challenge does not have."""
    known = sorted(challenge.phases.values())
    if phase is not None and phase not in known:
        raise InvalidConfiguration(f"There is no phase {phase!r}", f"there are {', '.join(known)}")
    entries = list(challenge.entries())
    return {name: ranked(entries, name) for name in ([phase] if phase else known)}


def compared(challenge: Challenge, tables: Mapping[str, Sequence[Standing]]) -> list[str]:
    """A sentence for each phase whose leaderboard at EvalAI has other teams, another order or other figures."""
    splits = {challenge.phases.get(split.phase_pk): split for split in challenge.client.leaderboards(challenge.pk)}
    sentences = []
    for name, rows in tables.items():
        split = splits.get(name)
        if split is None:
            sentences.append(f"{name}: EvalAI has no leaderboard of it.")
        elif difference := first_difference(rows, challenge.client.leaderboard(split.pk), split):
            sentences.append(f"{name}: {difference}")
    return sentences


def first_difference(rows: Sequence[Standing], shown: Sequence[LeaderboardRow], split: SplitRow) -> str:
    """The first row that differs; "" where all agree."""
    labels = split.leaderboard_schema.labels
    for rank in range(1, max(len(rows), len(shown)) + 1):
        own = rows[rank - 1] if rank <= len(rows) else None
        other = shown[rank - 1] if rank <= len(shown) else None
        if own is None or other is None or own.team != other.team_name:
            ours, theirs = own.team if own else "no team", other.team_name if other else "no team"
            return f"rank {rank} is {ours} by the ledger, {theirs} at EvalAI."
        for label, value in zip(labels, other.result, strict=False):
            if own.metrics.get(label, "#") != value:
                return f"rank {rank}, {own.team}: {label} is {own.metrics.get(label)} by the ledger, {value} at EvalAI."
    return ""


def _described(row: Standing) -> dict[str, object]:
    return {**vars(row), "submitted_at": row.submitted_at.isoformat() if row.submitted_at else None}


def _show(console: Console, tables: Mapping[str, Sequence[Standing]]) -> None:
    for position, (name, rows) in enumerate(tables.items()):
        if position:
            console.print()
        console.print(name, style="bold", markup=False)
        if rows:
            show_listing(console, _COLUMNS, [_line(row) for row in rows], "beside the score")
        else:
            console.print("No submission has finished yet.")


def _line(row: Standing) -> Line:
    figures = (f"{row.metrics[label]:.3f}" if label in row.metrics else "-" for label in _SHOWN)
    return Line((str(row.rank), row.team, *figures, str(row.submission)), row.remarks)
