"""The commands of an installation, embedded or real: fill a Prefect server, carry messages to it."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import stamina
from cyclopts import Parameter

from deployments.prefect_setup import load_queue, make_pools, set_up
from deployments.settings import load_settings
from evaluation.errors import ServiceUnavailable
from flow_worker.metrics import serve_metrics
from services.bridge import BridgeSettings, serve_bridge
from services.bridge_metrics import BridgeMetrics

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


def setup(
    *,
    queue_url: str | None = None,
    dead_letter_url: str | None = None,
    lease_seconds: int | None = None,
    clusters: Path | None = None,
    wait: float = 0,
    notify: str | None = None,
    pools_only: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Fill the Prefect server of PREFECT_API_URL: work pool, request budget, blocks from the secrets. Repeatable.

    Parameters
    ----------
    queue_url
        URL of EvalAI's queue; LEADERBOARD_QUEUE_URL if not given.
    dead_letter_url
        URL of its dead-letter queue; LEADERBOARD_DEAD_LETTER_URL if not given.
    lease_seconds
        A run silent for so long counts as dead; LEADERBOARD_LEASE_SECONDS if not given.
    clusters
        YAML file: cluster -> fields of its Compute Cluster block. Without it those blocks are left alone.
    wait
        How long to wait for the server to come up, in seconds.
    notify
        A notification block, e.g. slack-webhook/operators: it is sent, once, what only an operator can repair.
    pools_only
        Make the work pools and nothing else: all that `prefect deploy --all` needs of a server.
    """
    settings = load_settings()
    given = {"queue_url": queue_url, "dead_letter_url": dead_letter_url, "lease_seconds": lease_seconds}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    lines = make_pools(settings, wait) if pools_only else set_up(settings, clusters, wait, notify)
    for line in lines:
        print(f"ready: {line}")


def bridge() -> None:
    """Publish the queue's messages as Prefect events until SIGTERM or Ctrl-C. Keeps no state of its own.

    LEADERBOARD_METRICS_PORT lets it serve its metrics to Prometheus.
    """
    settings = load_settings()
    log_to_stderr()
    seen = BridgeMetrics()
    if settings.metrics_port:
        serve_metrics(seen.registry, settings.metrics_port)
    queue = patiently(load_queue, "Prefect cannot say yet where the queue is")
    serve_bridge(queue, BridgeSettings(challenge_pk=settings.challenge_pk), metrics=seen)


def patiently(load: Callable[[], T], waits_for: str) -> T:
    """What `load` returns, however long Prefect's server is away: a service started before it need not be restarted.

    Tries again after a second, then less and less often, once a minute at last. Raises what `load` raises, but for
    ServiceUnavailable.
    """

    def may_pass(error: Exception) -> bool:
        if isinstance(error, ServiceUnavailable):
            _LOG.warning("%s, it is tried again: %s", waits_for, error)
        return isinstance(error, ServiceUnavailable)

    for attempt in stamina.retry_context(on=may_pass, attempts=None, timeout=None, wait_initial=1.0, wait_max=60.0):
        with attempt:
            return load()
    raise AssertionError("stamina returns or raises")  # pragma: no cover


def log_to_stderr() -> None:
    """For this project's own loggers: Prefect configures the root logger as it likes, whenever it is first used."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("services")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
