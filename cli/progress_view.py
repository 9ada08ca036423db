"""A submission's progress on a terminal: one bar per shard; plain lines where the output is no terminal."""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from evalai_api.fields import SubmissionRow

if TYPE_CHECKING:
    from cli.submission_progress import Progress  # which needs the embedded stack

_COLOURS = {"finished": "green", "failed": "red", "cancelled": "yellow", "retrying": "yellow", "driving": "cyan"}


class View(Protocol):
    def show(self, seen: "Progress") -> None: ...


def watch(console: Console, snapshots: "Iterable[Progress]") -> "Progress":
    """Show every snapshot and return the last one."""
    if not console.is_terminal:
        return _show_all(PlainLines(console), snapshots)
    bars = LiveBars(console)
    with bars.live:
        return _show_all(bars, snapshots)


def _show_all(view: View, snapshots: "Iterable[Progress]") -> "Progress":
    last: Progress | None = None
    for last in snapshots:
        view.show(last)
    if last is None:
        raise ValueError("nothing to watch")
    return last


class LiveBars:
    """One bar for all routes and one per shard, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self.live = Live(self._bars, console=console, refresh_per_second=4)

    def show(self, seen: "Progress") -> None:
        total = seen.routes_total or None
        doing = "" if seen.shards else waiting_for(seen)
        self._update(f"submission {seen.submission}", seen.routes_done, total, seen.evalai.value, doing)
        for shard in seen.shards:
            self._update(
                f"  shard {shard.index}", shard.routes_done, shard.routes_total, shard.state.value, shard.detail
            )

    def _update(self, name: str, done: int, total: int | None, state: str, detail: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, state="", detail="")
        colour = _COLOURS.get(state, "white")
        self._bars.update(
            self._tasks[name], completed=done, total=total, state=f"[{colour}]{state}[/]", detail=escape(detail)
        )


class PlainLines:
    """A line for each change: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._shown: dict[str, str] = {}

    def show(self, seen: "Progress") -> None:
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


def waiting_for(seen: "Progress") -> str:
    return "the flow run plans the shards" if seen.row else "its message is on the way: queue, bridge, event, flow run"


def shards_table(seen: "Progress") -> Table:
    table = Table(title=f"Submission {seen.submission}, {seen.phase}: EvalAI says {seen.evalai.value}")
    for heading in ("shard", "state", "routes", "what it is doing"):
        table.add_column(heading, justify="right" if heading == "routes" else "left")
    for shard in seen.shards:
        counts = f"{shard.routes_done}/{shard.routes_total}"
        table.add_row(str(shard.index), shard.state.value, counts, escape(shard.detail))
    return table


def values_table(title: str, values: Mapping[str, object]) -> Table:
    """Two columns, in the order given; long texts are folded."""
    table = Table(title=title, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(escape(name), f"{value:.3f}" if isinstance(value, float) else escape(str(value)))
    return table


def submissions_table(submissions: Iterable[SubmissionRow], codenames: Mapping[int, str]) -> Table:
    table = Table(title="Submissions")
    for heading in ("submission", "phase", "team", "image", "EvalAI's status"):
        table.add_column(heading)
    for row in submissions:
        phase = codenames.get(row.phase_pk, "?")
        cells = (row.pk, phase, row.team_name, row.method_name, row.status.value)
        table.add_row(*(escape(str(cell)) for cell in cells))
    return table
