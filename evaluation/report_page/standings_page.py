"""The standings as one HTML file, of the same kind as a report: no script, nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from evaluation.report_page.page import moment
from evaluation.report_page.render import render_template
from evaluation.report_page.safe_text import redacted, shown
from evaluation.standings import Standing


@dataclass(frozen=True)
class Row:
    """A team, with the figures in the order of the labels."""

    rank: int
    team: str
    values: tuple[str, ...]
    submission: int
    submitted: str
    remarks: str


@dataclass(frozen=True)
class PhaseTable:
    name: str
    labels: tuple[str, ...]
    rows: tuple[Row, ...]


def render_standings(phases: Mapping[str, Sequence[Standing]], made_at: datetime) -> bytes:
    """The page in UTF-8: a table for each phase, in the order given."""
    tables = [_table(name, rows) for name, rows in phases.items()]
    return render_template("standings.html.jinja", phases=tables, made_at=moment(made_at))


def _table(name: str, rows: Sequence[Standing]) -> PhaseTable:
    labels = tuple(dict.fromkeys(label for row in rows for label in row.metrics))
    return PhaseTable(shown(name, 200), labels, tuple(_row(row, labels) for row in rows))


def _row(row: Standing, labels: Sequence[str]) -> Row:
    values = tuple(f"{row.metrics[label]:.3f}" if label in row.metrics else "-" for label in labels)
    submitted = f"{row.submitted_at:%Y-%m-%d %H:%M}" if row.submitted_at else "-"
    return Row(row.rank, shown(row.team, 200), values, row.submission, submitted, redacted(row.remarks, 500))
