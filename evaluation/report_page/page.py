"""The model of a report's page: what its audience may see, in words and figures that the template only places."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from evaluation.errors import Fault
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus, finished_sentence
from evaluation.pair.restarts import restarts
from evaluation.pair.usage import Seconds
from evaluation.report_page.charts import Chart, chart, duration
from evaluation.report_page.origin import origin_facts
from evaluation.report_page.route_rows import RouteRow, route_rows
from evaluation.report_page.safe_text import image_name, redacted, shown
from evaluation.report_page.source import Audience, ReportSource
from evaluation.results.metrics import SCORES
from evaluation.standings import Rank
from evaluation.verification.drives import drives_again

MOST_ATTEMPTS = 5  # drawn, the last ones
MOST_EVENTS = 100  # restarts, and routes driven again, on one page
_SENTENCE = 500
_LOG = 20_000  # characters of the agents' last lines
_UNITS = {SCORES[0].name: "0 to 100", SCORES[1].name: "0 to 100", SCORES[2].name: "0 to 1"}

Text = Callable[[str, int], str]
Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Metric:
    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class RestartRow:
    when: str
    pair: int
    why: str
    charged: str


@dataclass(frozen=True)
class RedriveRow:
    route: str
    drives: int
    why: str


@dataclass(frozen=True)
class ReportPage:
    """Everything on the page. Texts are bounded and visible; the template escapes them."""

    operator: bool
    title: str
    status: str
    mark: str  # "done", "failed", "held", "cancelled"
    score: float | None
    what: str
    fault: str
    to_do: str
    remarks: tuple[str, ...]
    reasons: tuple[str, ...]  # why it is or was held: for operators
    facts: Facts
    metrics: tuple[Metric, ...]
    metrics_note: str
    routes: tuple[RouteRow, ...]
    routes_total: int
    routes_note: str
    charts: tuple[Chart, ...]
    restarts: tuple[RestartRow, ...]
    restarts_left_out: int
    redrives: tuple[RedriveRow, ...]
    redrives_left_out: int
    logs: str
    origin: Facts
    files: Facts  # with their SHA-256: for operators
    made_at: str


def report_page(source: ReportSource, audience: Audience) -> ReportPage:
    """The page for this audience. Raises InvalidCheckpoint where the kept result cannot be read.

    A team sees nothing of a result that is held or was rejected: neither figures nor the checks.
    """
    operator, outcome = audience is Audience.OPERATOR, source.outcome
    visible = operator or not _withheld(outcome)
    text = shown if operator else redacted
    rows = tuple(route_rows(source, audience)) if visible else ()
    started = list(_restarts(source, text)) if visible else []
    again = list(_redrives(source, text)) if visible else []
    metrics = outcome.metrics if visible else {}
    subject = source.subject
    return ReportPage(
        operator=operator,
        title=f"Submission {subject.submission}",
        status=outcome.ending.value.capitalize(),
        mark=_MARKS[outcome.ending],
        score=metrics.get(SCORES[0].name),
        what=_what(source, operator),
        fault=_FAULTS[outcome.fault] if outcome.fault else "",
        to_do=_to_do(source, operator),
        remarks=tuple(text(each, _SENTENCE) for each in outcome.remarks) if visible else (),
        reasons=tuple(shown(each, _SENTENCE) for each in outcome.reasons[:MOST_EVENTS]) if operator else (),
        facts=tuple(_facts(source, operator)),
        metrics=tuple(Metric(name, value, _UNITS.get(name, "per km")) for name, value in metrics.items()),
        metrics_note="Not published: the result is held." if outcome.ending is OutcomeStatus.HELD else "",
        routes=rows,
        routes_total=len(source.runs) or len(rows),
        routes_note=_routes_note(outcome, len(source.runs), len(rows)) if visible else "",
        charts=tuple(chart(each) for each in source.attempts[-MOST_ATTEMPTS:]),
        restarts=tuple(started[:MOST_EVENTS]),
        restarts_left_out=max(0, len(started) - MOST_EVENTS),
        redrives=tuple(again[:MOST_EVENTS]),
        redrives_left_out=max(0, len(again) - MOST_EVENTS),
        logs=shown(outcome.logs[-_LOG:], _LOG),
        origin=origin_facts(source, operator),
        files=_files(source) if operator else (),
        made_at=moment(source.made_at),
    )


_MARKS = {
    OutcomeStatus.FINISHED: "done",
    OutcomeStatus.FAILED: "failed",
    OutcomeStatus.CANCELLED: "cancelled",
    OutcomeStatus.HELD: "held",
    OutcomeStatus.SKIPPED: "cancelled",
}
_FAULTS = {
    Fault.TEAM: "The agent's: it counts as the team's.",
    Fault.INFRASTRUCTURE: "The installation's, not the agent's.",
}


def moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _withheld(outcome: Outcome) -> bool:
    """Whether its team gets no result although there is one: it is held, or an operator has rejected it."""
    return outcome.ending is OutcomeStatus.HELD or (
        bool(outcome.reasons) and outcome.ending is not OutcomeStatus.FINISHED
    )


def _what(source: ReportSource, operator: bool) -> str:
    outcome = source.outcome
    if operator:
        late = f" The report has not reached EvalAI: {outcome.undelivered}" if outcome.undelivered else ""
        return shown(outcome.sentence + late)
    if outcome.ending is OutcomeStatus.HELD:
        return "All routes are driven. The challenge's organisers check the result before it is published."
    if outcome.reasons and outcome.ending is OutcomeStatus.FINISHED:  # who looked at it, and why, is no team's
        return finished_sentence(source.subject.submission, outcome.metrics, outcome.routes_done, outcome.routes_total)
    return redacted(outcome.sentence)


def _to_do(source: ReportSource, operator: bool) -> str:
    outcome, pk = source.outcome, source.subject.submission
    if outcome.ending is OutcomeStatus.HELD:
        decide = f"leaderboard verify {pk} shows the reasons; its options --release and --reject decide."
        return decide if operator else "Nothing: wait for the organisers' decision."
    if outcome.ending is OutcomeStatus.CANCELLED:
        return "Submit again when the agent is ready."
    if outcome.ending is not OutcomeStatus.FAILED:
        return ""
    if _withheld(outcome):
        return "The team may ask the challenge's organisers." if operator else "Ask the challenge's organisers."
    if outcome.fault is Fault.TEAM:
        return "Correct the agent, try it on the public routes, and submit again."
    return "A challenge host can resume the submission: the routes driven so far are kept."


def _facts(source: ReportSource, operator: bool) -> Iterator[tuple[str, str]]:
    subject, outcome = source.subject, source.outcome
    yield "Team", shown(subject.team, 200)
    yield "Phase", shown(subject.phase, 200)
    yield "Leaderboard version", subject.version.value
    if subject.image:
        yield "Image", shown(subject.image if operator else image_name(subject.image), 300)
    yield "Attempt", f"{subject.attempt}" + (" (resumed)" if subject.attempt > 1 else "")
    yield "Routes with a result", f"{outcome.routes_done} of {outcome.routes_total}"
    if outcome.ending is OutcomeStatus.FINISHED and source.rank:
        yield "Rank", _rank(source.rank, subject.submission)
    if subject.claimed_at:
        yield "Evaluated", f"from {moment(subject.claimed_at)} for {duration(_length(source))}"
    if source.used.gpu:
        yield "GPU time", _gpu_time(source.used)
    if not operator:
        return
    if source.price and source.used.gpu:
        yield "Cost", f"{source.price.of(source.used):.2f} {source.price.currency}"
    for name, value in (("Flow run", subject.run), ("Folder", subject.folder), ("Logs of the shards", subject.logs)):
        if value:
            yield name, shown(value, 500)


def _rank(rank: Rank, submission: int) -> str:
    place = f"{rank.position} of {rank.teams} teams in this phase, when this page was made"
    return place if rank.best == submission else f"{place}, by the team's submission {rank.best}"


def _gpu_time(used: Seconds) -> str:
    """All attempts together; the chart below has the parts of each."""
    parts = (
        ("driving", used.driving),
        ("starting", used.starting),
        ("retries charged to the agent", used.retries_agent),
        ("retries charged to the installation", used.retries_infrastructure),
    )
    words = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts if seconds)
    return f"{duration(used.gpu)}: {words}"


def _length(source: ReportSource) -> float:
    claimed = source.subject.claimed_at
    return (source.made_at - claimed).total_seconds() if claimed else 0.0


def _routes_note(outcome: Outcome, expected: int, shown_rows: int) -> str:
    parts = []
    if outcome.ending in (OutcomeStatus.FAILED, OutcomeStatus.CANCELLED) and outcome.routes_done:
        parts.append("These are the results so far: they are no score.")
    if expected > shown_rows:
        parts.append(f"{expected - shown_rows} more routes are in merged.json.")
    return " ".join(parts)


def _restarts(source: ReportSource, text: Text) -> Iterator[RestartRow]:
    found = [each for pair in source.pairs if pair.seen for each in restarts(pair.index, pair.seen)]
    for each in sorted(found, key=lambda restart: restart.ended.ended_at or restart.ended.began_at):
        ended = each.ended
        charged = "agent" if ended.charged_to_agent else "installation"
        yield RestartRow(moment(ended.ended_at or ended.began_at), each.pair, text(ended.how, _SENTENCE), charged)


def _redrives(source: ReportSource, text: Text) -> Iterator[RedriveRow]:
    for pair in source.pairs:
        for drives in drives_again(pair.seen) if pair.seen else ():
            causes = "; ".join(dict.fromkeys(drives.causes))
            yield RedriveRow(str(drives.run).removeprefix("route "), drives.count, text(causes, _SENTENCE))


def _files(source: ReportSource) -> Facts:
    subjects: Sequence[Mapping[str, Mapping[str, str]]] = source.provenance.get("subject", ())
    return tuple(
        (shown(str(each["name"]), 200), shown(each["digest"]["sha256"], 64)) for each in subjects[:MOST_EVENTS]
    )
