"""What a bridge shows at its OpenMetrics endpoint (docs/monitoring.md)."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class BridgeMetrics:
    """Of one bridge process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._polled = Gauge(
            "leaderboard_bridge_last_poll_timestamp_seconds",
            "When the bridge last turned to the queue, after a poll that was answered.",
            registry=self.registry,
        )
        self._messages = Counter(
            "leaderboard_bridge_messages",
            "Messages by what became of them: published, rejected (a dead letter now), refused (it stays).",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("published", "rejected", "refused"):
            self._messages.labels(outcome)

    def polls(self) -> None:
        self._polled.set_to_current_time()

    def count(self, outcome: str) -> None:
        self._messages.labels(outcome).inc()
