"""`leaderboard cost`: GPU hours by team, phase, month or submission, what they went to, and what they cost."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console

from blocks.leaderboard_cluster import LeaderboardCluster
from cli.arguments import Json
from cli.listing import Column, Line, print_json, show_listing
from cli.observers import load_challenge
from deployments.installation import installation
from deployments.settings import load_settings
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.pair.usage import NAMES, AttemptUsage, Price, Seconds
from prefect_api.blocks import load_saved_block

By = Literal["team", "phase", "month", "submission"]
_COLUMNS = (
    Column("count", right=True),
    Column("GPU h", right=True),
    Column("driving", right=True),
    Column("start", right=True),
    Column("agent retries", right=True, folds=True),
    Column("our retries", right=True, folds=True),
    Column("waited", right=True),
    Column("cost", right=True),
)


def cost(*, by: By = "team", as_json: Json = False) -> None:
    """Show the GPU hours of all evaluations: driving, start-up, retries charged to the agent and to the installation.

    `count` is how many submissions. Hours of waiting for a machine stand beside the GPU hours, and are none. Money
    needs gpu_hour_price in the clusters' file. What is under way counts once it has ended.

    Parameters
    ----------
    by
        What a row is.
    as_json
        Print JSON, in seconds.
    """
    with installation(load_settings()):
        challenge = load_challenge()
        prices = {name: load_saved_block(LeaderboardCluster, name).price for name in challenge.places}
        entries = list(challenge.entries())
    groups = grouped(entries, prices, by)
    if as_json:
        print_json([group.described() for group in groups])
        return
    console = Console(highlight=False)
    if not groups:
        console.print("No evaluation has used a GPU yet.")
        return
    columns = (Column(by, folds=True), *_COLUMNS)
    show_listing(console, columns, [group.line for group in (*groups, *_total(groups))])


@dataclass
class Group:
    """What the evaluations of one team, phase, month or submission used. `money` is by currency."""

    name: str
    seconds: Seconds = field(default_factory=Seconds)
    submissions: set[int] = field(default_factory=set)
    money: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, submission: int, seconds: Seconds, price: Price | None) -> None:
        self.seconds += seconds
        self.submissions.add(submission)
        if price:
            self.money[price.currency] += price.of(seconds)

    def described(self) -> dict[str, object]:
        """As `--json` has it, in seconds."""
        used = {f"{name}_seconds": round(getattr(self.seconds, name), 3) for name in NAMES}
        gpu = round(self.seconds.gpu, 3)
        money = {currency: round(amount, 6) for currency, amount in self.money.items()}
        return {"name": self.name, "submissions": len(self.submissions), "gpu_seconds": gpu, **used, "cost": money}

    @property
    def line(self) -> Line:
        seconds = self.seconds
        parts = (
            seconds.gpu,
            seconds.driving,
            seconds.starting,
            seconds.retries_agent,
            seconds.retries_infrastructure,
            seconds.waiting,
        )
        money = ", ".join(f"{amount:.2f} {currency}" for currency, amount in self.money.items())
        hours = (f"{part / 3600:.2f}" for part in parts)
        return Line((self.name, str(len(self.submissions)), *hours, money or "-"))


def grouped(entries: Iterable[LedgerEntry], prices: Mapping[str, Price | None], by: By) -> list[Group]:
    """The groups, the most GPU time first; months in their order."""
    groups: dict[str, Group] = {}
    for entry in entries:
        for usage in entry.usage:
            name = _name(entry, usage, by)
            group = groups.setdefault(name, Group(name))
            group.add(entry.submission, usage.seconds, prices.get(entry.cluster))
    if by == "month":
        return [groups[name] for name in sorted(groups)]
    return sorted(groups.values(), key=lambda group: -group.seconds.gpu)


def _name(entry: LedgerEntry, usage: AttemptUsage, by: By) -> str:
    match by:
        case "team":
            return entry.team_label
        case "phase":
            return entry.phase
        case "month":
            return f"{usage.began:%Y-%m}"
        case "submission":
            return str(entry.submission)


def _total(groups: list[Group]) -> list[Group]:
    if len(groups) < 2:
        return []
    whole = Group("all")
    for group in groups:
        whole.seconds += group.seconds
        whole.submissions |= group.submissions
        for currency, amount in group.money.items():
            whole.money[currency] += amount
    return [whole]
