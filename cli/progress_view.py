"""A submission's progress on a terminal: one bar per shard; plain lines where the output is no terminal."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from cli.listing import Column, Line, rendered, show_values
from cli.submission_progress import Progress
from evaluation.lifecycle.ledger_entry import ATTEMPT
from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.shards import ENDED

COLOURS = {"finished": "green", "failed": "red", "cancelled": "yellow", "retrying": "yellow", "driving": "cyan"}
_COLUMNS = (Column("shard", right=True), Column("state"), Column("routes", right=True), Column(""), Column("since"))
_BAR = 20


class View(Protocol):
    def show(self, seen: Progress) -> None: ...


def watch_live(console: Console, snapshots: Iterable[Progress], as_json: bool = False) -> Progress:
    """Show every snapshot and return the last one; `as_json`: each that differs from the one before, as a line."""
    if as_json:
        return _show_all(JsonLines(console), snapshots)
    if not console.is_terminal:
        return _show_all(PlainLines(console), snapshots)
    board = LiveBoard()
    with Live(board, console=console, refresh_per_second=4):
        return _show_all(board, snapshots)


def _show_all(view: View, snapshots: Iterable[Progress]) -> Progress:
    last: Progress | None = None
    for last in snapshots:
        view.show(last)
    if last is None:
        raise ValueError("nothing to watch")
    return last


class LiveBoard:
    """All shards with their bars, redrawn in place, in whatever width the terminal has."""

    def __init__(self) -> None:
        self._seen: Progress | None = None
        self._since: dict[tuple[int, str], float] = {}

    def show(self, seen: Progress) -> None:
        self._seen = seen
        for shard in seen.shards:
            self._since.setdefault((shard.index, shard.state.value), time.monotonic())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._seen is None:
            return
        yield from board(console, self._seen, [self._lasting(shard) for shard in self._seen.shards])

    def _lasting(self, shard: ShardProgress) -> str:
        """Since when it has been in its state, as far as this command has seen."""
        if shard.state in ENDED:
            return ""
        seconds = int(time.monotonic() - self._since[shard.index, shard.state.value])
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def board(console: Console, seen: Progress, lasting: Iterable[str]) -> Iterator[Text]:
    """The lines: a heading, then each shard with its bar and what it is doing."""
    yield Text(headline(seen), style="bold")
    if not seen.shards:
        yield Text(f"  {waiting_for(seen)}")
        return
    lines = [
        Line(
            (str(shard.index), shard.state.value, f"{shard.routes_done}/{shard.routes_total}", _bar(shard), since),
            shard.detail,
            ("", COLOURS.get(shard.state.value, ""), "", "cyan"),
        )
        for shard, since in zip(seen.shards, lasting, strict=True)
    ]
    yield from rendered(console, _COLUMNS, lines, "what it is doing")


def headline(seen: Progress) -> str:
    """`Submission 7, leaderboard-20-SENSORS, Team: running, 12 of 20 routes`."""
    who = ", ".join(filter(None, (f"Submission {seen.submission}", seen.phase, seen.team_name)))
    routes = f", {seen.routes_done} of {seen.routes_total} routes" if seen.shards else ""
    score = f", driving score {seen.score:.3f}" if seen.score is not None else ""
    return f"{who}: {seen.status}{routes}{score}"


def _bar(shard: ShardProgress) -> str:
    filled = round(_BAR * shard.routes_done / max(1, shard.routes_total))
    return "━" * filled + "·" * (_BAR - filled)


class JsonLines:
    """A JSON object on a line of its own for each change: for programs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = ""

    def show(self, seen: Progress) -> None:
        line = json.dumps(seen.described(), ensure_ascii=False)
        if line != self._shown:
            self._shown = line
            print(line, file=self._console.file, flush=True)


class PlainLines:
    """A line for each change: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._shown: dict[str, str] = {}

    def show(self, seen: Progress) -> None:
        routes = f", {seen.routes_done}/{seen.routes_total} routes" if seen.shards else f", {waiting_for(seen)}"
        self._line(f"submission {seen.submission}", f"{seen.evalai.value}{routes}")
        for shard in seen.shards:
            counts = f"{shard.state.value}, {shard.routes_done}/{shard.routes_total}"
            self._line(f"  shard {shard.index}", f"{counts} routes, {shard.detail}")

    def _line(self, name: str, text: str) -> None:
        if self._shown.get(name) == text:
            return
        self._shown[name] = text
        line = f"{time.monotonic() - self._began:5.1f} s  {name}: {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def waiting_for(seen: Progress) -> str:
    return "the flow run plans the shards" if seen.row else "its message is on the way: queue, bridge, event, flow run"


def show_progress(console: Console, seen: Progress) -> None:
    """One submission as `status ID` shows it."""
    for line in board(console, seen, [f"{shard.since:%H:%M:%S}" if shard.since else "" for shard in seen.shards]):
        console.print(line, soft_wrap=True)
    facts = [
        ("EvalAI says", seen.evalai.value),
        ("attempt", seen.row.get(ATTEMPT, "")),
        ("expected", seen.forecast.sentence if seen.forecast and not seen.over else ""),
        ("reason", seen.reason),
        ("fault", seen.fault),
        ("beside the score", seen.remarks),
    ]
    console.print()
    show_values(console, "", [(name, value) for name, value in facts if value])
