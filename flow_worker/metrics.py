"""An OpenMetrics endpoint for a process, and what the in-process worker shows there (docs/monitoring.md)."""

import os
import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from evaluation.errors import InvalidConfiguration

PORT = "LEADERBOARD_METRICS_PORT"


def serve_metrics(registry: CollectorRegistry, port: int) -> tuple[WSGIServer, threading.Thread]:
    """Answer on this port of every interface, in threads of its own; 0 takes any free one.

    Raises InvalidConfiguration where the port is taken, or is none.
    """
    try:
        return start_http_server(port, registry=registry)
    except (OSError, OverflowError) as error:  # OverflowError: a number above 65535
        what = f"The metrics cannot be served on port {port}"
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidConfiguration(what, reason, "Choose another port.") from error


class WorkerMetrics:
    """Of one worker process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.under_way = Gauge("leaderboard_worker_flow_runs", "Flow runs under way.", ["pool"], registry=self.registry)
        self.ended = Counter(
            "leaderboard_worker_flow_runs_ended",
            "Flow runs that have ended here.",
            ["pool", "state"],
            registry=self.registry,
        )
        self.polled = Gauge(
            "leaderboard_worker_last_poll_timestamp_seconds",
            "When Prefect's server was last asked for runs, and answered.",
            ["pool"],
            registry=self.registry,
        )

    def serve(self) -> WSGIServer | None:
        """On the port of LEADERBOARD_METRICS_PORT; nothing where that is not set."""
        port = os.environ.get(PORT, "")
        if not port:
            return None
        if not port.isdigit():
            raise InvalidConfiguration(f"{PORT} is no port", f"it is {port!r}", "Set a number from 1 to 65535.")
        return serve_metrics(self.registry, int(port))[0]
