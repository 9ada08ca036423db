"""The metrics' numbers; dashboard, alert rules and page name what the endpoints show, with its labels."""

import json
import re
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from blocks.dead_letters import QueueFacts
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.stages import Stage
from evaluation.pair.usage import AttemptUsage, Seconds
from flow_worker.metrics import PORT, WorkerMetrics, serve_metrics
from services.bridge_metrics import BridgeMetrics
from services.installation_metrics import FRESH_SECONDS, InstallationCollector, Sources
from tests.ledger_entries import ledger_entry

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deployments" / "monitoring"
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
USED = (AttemptUsage(1, NOW, Seconds(60, 10, 1000, 20, 5)), AttemptUsage(2, NOW, Seconds(driving=500)))
ENTRIES = [
    ledger_entry(1, usage=USED),
    ledger_entry(2, status="held"),
    ledger_entry(3, ended_at=None, stage=Stage.SIMULATING, stage_since=NOW - timedelta(hours=2), lease_until=NOW),
    ledger_entry(
        4, ended_at=None, stage=Stage.REPORTING, stage_since=NOW, undelivered="no", lease_until=NOW - timedelta(hours=1)
    ),
]


class World:
    """Sources that answer, until they are told not to."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.time = 0.0

    def entries(self) -> Iterable[LedgerEntry]:
        self.asked += 1
        if self.away:
            raise ServiceUnavailable("DynamoDB does not answer")
        return ENTRIES

    def facts(self) -> QueueFacts:
        return QueueFacts("arn", 3, 2, 60, 345600, None, None)

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        sources = Sources(
            {"leaderboard-20": self.entries},
            {"submissions": self.facts, "dead_letters": self.facts},
            lambda: 0.25,
        )
        registry.register(InstallationCollector(sources, now=lambda: NOW, clock=lambda: self.time))
        return registry


@pytest.fixture
def world() -> World:
    return World()


def test_the_numbers_are_those_of_the_ledger_the_queues_and_the_budget(world: World) -> None:
    value = world.registry().get_sample_value

    phase = {"phase": "leaderboard-20-SENSORS"}
    for status in ("finished", "held", "simulating", "reporting"):
        assert value("leaderboard_submissions", {**phase, "status": status}) == 1
    assert value("leaderboard_stage_seconds", {"stage": "simulating"}) == 7200
    assert value("leaderboard_stage_seconds", {"stage": "merging"}) == 0
    assert value("leaderboard_leases_late") == 1
    assert value("leaderboard_reports_undelivered") == 1
    assert value("leaderboard_pair_seconds_total", {**phase, "activity": "driving"}) == 1500
    assert value("leaderboard_pair_seconds_total", {**phase, "activity": "retries_agent"}) == 20
    assert value("leaderboard_attempts_total", phase) == 2
    assert value("leaderboard_queue_messages", {"queue": "dead_letters", "state": "hidden"}) == 2
    assert value("leaderboard_evalai_budget_used_ratio") == 0.25


def test_what_does_not_answer_is_left_out_and_shown_as_down(world: World) -> None:
    registry = world.registry()
    world.away = True

    assert registry.get_sample_value("leaderboard_source_up", {"source": "ledger leaderboard-20"}) == 0
    assert registry.get_sample_value("leaderboard_source_up", {"source": "evalai budget"}) == 1
    assert registry.get_sample_value("leaderboard_queue_messages", {"queue": "submissions", "state": "visible"}) == 3


def test_the_sources_are_asked_at_most_once_in_a_while(world: World) -> None:
    registry = world.registry()
    for world.time in (0, 1, FRESH_SECONDS, FRESH_SECONDS + 1):
        generate_latest(registry)
    assert world.asked == 2


def all_registries(world: World) -> Iterator[CollectorRegistry]:
    yield world.registry()
    bridge, worker = BridgeMetrics(), WorkerMetrics()
    bridge.polls()
    worker.under_way.labels("leaderboard").set(1)
    worker.ended.labels("leaderboard", "completed").inc()
    worker.polled.labels("leaderboard").set_to_current_time()
    yield from (bridge.registry, worker.registry)


def shown(world: World) -> dict[str, dict[str, set[str]]]:
    """Metric -> label -> values, over all endpoints."""
    found: dict[str, dict[str, set[str]]] = {}
    for registry in all_registries(world):
        for family in registry.collect():
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for name, value in sample.labels.items():
                    labels.setdefault(name, set()).add(value)
    return {name: labels for name, labels in found.items() if not name.endswith("_created")}


def queries() -> list[str]:
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    exprs = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return exprs + [rule["expr"] for group in rules for rule in group["rules"]]


SELECTED = re.compile(r"\b(leaderboard_\w+)(?:\{([^}]*)\})?")
MATCHED = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
GROUPED = re.compile(r"\bby \(([^)]*)\) \((?:\w+\()?(leaderboard_\w+)")


@pytest.mark.parametrize("query", queries())
def test_every_query_names_metrics_labels_and_values_that_the_endpoints_show(query: str, world: World) -> None:
    metrics = shown(world)

    selected = SELECTED.findall(query)
    assert selected
    for metric, matchers in selected:
        assert metric in metrics
        for label, operator, value in MATCHED.findall(matchers):
            assert label in metrics[metric]
            if operator == "=" and metric not in ("leaderboard_submissions",):
                assert value in metrics[metric][label]
    for labels, metric in GROUPED.findall(query):
        assert {label.strip() for label in labels.split(",")} <= set(metrics[metric])
    assert query.count("(") == query.count(")")


def test_the_statuses_in_queries_are_those_of_the_glossary() -> None:
    words = set(re.findall(r"`([^`\n]+)`", (ROOT / "docs" / "glossary.md").read_text()))
    said = {value for query in queries() for _, _, values in MATCHED.findall(query) for value in values.split("|")}
    assert said & {"finished", "failed", "cancelled", "held", "skipped"} <= words


def test_every_legend_uses_a_label_of_its_query(world: World) -> None:
    metrics = shown(world)
    for panel in json.loads((FOLDER / "grafana-dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            labels = {label for metric, _ in SELECTED.findall(target["expr"]) for label in metrics[metric]}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


def test_the_page_lists_every_metric_with_its_labels(world: World) -> None:
    rows = re.findall(r"^\| `(leaderboard_\w+)` \| ([^|]*) \|", (ROOT / "docs" / "monitoring.md").read_text(), re.M)

    listed = {name: {label.strip() for label in labels.split(",")} - {"-"} for name, labels in rows}
    assert listed == {name: set(labels) for name, labels in shown(world).items()}


def test_the_endpoint_speaks_openmetrics_and_a_taken_port_is_said(world: World) -> None:
    server, thread = serve_metrics(world.registry(), 0)
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.server_port}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            families = {family.name for family in parse(answer.read().decode())}
        with pytest.raises(InvalidConfiguration, match=r"cannot be served on port .*: Address already in use"):
            serve_metrics(world.registry(), server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert {"leaderboard_submissions", "leaderboard_pair_seconds"} <= families


def test_a_worker_without_a_port_has_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PORT, raising=False)
    assert WorkerMetrics().serve() is None
    monkeypatch.setenv(PORT, "ninety")
    with pytest.raises(InvalidConfiguration, match="it is 'ninety'"):
        WorkerMetrics().serve()
    monkeypatch.setenv(PORT, "99999")
    with pytest.raises(InvalidConfiguration, match=r"cannot be served on port 99999: .* Choose another port"):
        WorkerMetrics().serve()
