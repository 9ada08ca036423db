"""Metrics of an installation for Prometheus, in OpenMetrics' form: what ledgers, queue and request budget say.

Nothing is counted here: each number is read from what is kept anyway, so that it is right after every restart. The
metrics are listed in docs/monitoring.md.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from blocks.dead_letters import QueueFacts
from evaluation.errors import EvaluationError
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.stages import Stage
from evaluation.pair.usage import NAMES

FRESH_SECONDS = 25.0  # so long the answers are used again: two Prometheus servers cost one reading

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What is asked, by name; each may raise EvaluationError, and is then left out and shown as down."""

    ledgers: Mapping[str, Callable[[], Iterable[LedgerEntry]]]  # by cluster
    queues: Mapping[str, Callable[[], QueueFacts]]  # "submissions", "dead_letters"
    budget_used: Callable[[], float]  # of EvalAI's request budget, 0 to 1


class InstallationCollector(Collector):
    """Asks the sources when Prometheus asks, at most once in FRESH_SECONDS."""

    def __init__(
        self,
        sources: Sources,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[float, list[Metric]] | None = None

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if self._kept is None or self._clock() - self._kept[0] > FRESH_SECONDS:
                self._kept = self._clock(), list(self._read())
            return self._kept[1]

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked at the registration."""
        return ()

    def _read(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("leaderboard_source_up", "Whether a source answered.", labels=["source"])
        entries: list[LedgerEntry] = []
        for cluster, read in self._sources.ledgers.items():
            entries += _asked(f"ledger {cluster}", partial(_all, read), up) or []
        yield from ledger_metrics(entries, self._now())
        messages = GaugeMetricFamily(
            "leaderboard_queue_messages", "Messages by SQS's approximate count.", labels=["queue", "state"]
        )
        for name, ask in self._sources.queues.items():
            numbers = _asked(f"queue {name}", ask, up)
            if numbers is not None:
                messages.add_metric([name, "visible"], numbers.visible)
                messages.add_metric([name, "hidden"], numbers.hidden)
        yield messages
        used = _asked("evalai budget", self._sources.budget_used, up)
        if used is not None:
            yield GaugeMetricFamily(
                "leaderboard_evalai_budget_used_ratio", "Part of EvalAI's request budget that is taken.", value=used
            )
        yield up


def _all(read: Callable[[], Iterable[LedgerEntry]]) -> list[LedgerEntry]:
    return list(read())


def _asked(source: str, ask: Callable[[], T], up: GaugeMetricFamily) -> T | None:
    """The answer; None where there is none, which `up` shows."""
    try:
        answer = ask()
    except EvaluationError as error:
        _LOG.warning("metrics: %s is left out: %s", source, error)
        up.add_metric([source], 0)
        return None
    up.add_metric([source], 1)
    return answer


def ledger_metrics(entries: Iterable[LedgerEntry], now: datetime) -> Iterator[Metric]:
    """Of the rows of all ledgers."""
    statuses: dict[tuple[str, ...], float] = defaultdict(int)
    oldest: dict[str, float] = {stage.value: 0.0 for stage in Stage if stage is not Stage.ENDED}
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    attempts: dict[str, int] = defaultdict(int)
    late = undelivered = 0
    for entry in entries:
        stage = (entry.stage or Stage.CLAIMED).value
        statuses[entry.phase, stage if entry.open else entry.status] += 1
        if entry.open and entry.stage_since and stage in oldest:
            oldest[stage] = max(oldest[stage], (now - entry.stage_since).total_seconds())
        late += entry.open and entry.lease_until is not None and entry.lease_until < now
        undelivered += bool(entry.undelivered)
        attempts[entry.phase] += len(entry.usage)
        for usage in entry.usage:
            for name in NAMES:
                seconds[entry.phase, name] += getattr(usage.seconds, name)
    yield _by("leaderboard_submissions", "Submissions by stage or end.", ["phase", "status"], statuses)
    yield _by(
        "leaderboard_stage_seconds",
        "How long the submission that is in the stage for longest has been there.",
        ["stage"],
        {(stage,): age for stage, age in oldest.items()},
    )
    yield GaugeMetricFamily("leaderboard_leases_late", "Claims whose lease is over.", value=late)
    yield GaugeMetricFamily(
        "leaderboard_reports_undelivered", "Reports that EvalAI has not taken yet.", value=undelivered
    )
    pairs = CounterMetricFamily(
        "leaderboard_pair_seconds",
        "What the pairs' time went to, over attempts that ended.",
        labels=["phase", "activity"],
    )
    for labels, value in sorted(seconds.items()):
        pairs.add_metric(list(labels), value)
    yield pairs
    ended = CounterMetricFamily("leaderboard_attempts", "Attempts that drove and have ended.", labels=["phase"])
    for phase, count in sorted(attempts.items()):
        ended.add_metric([phase], count)
    yield ended


def _by(name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(list(key), value)
    return family
