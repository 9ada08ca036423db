"""`leaderboard metrics`: an installation's numbers for Prometheus."""

import contextvars
import threading
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry

from blocks.dead_letters import queue_facts
from blocks.submission_queue import SubmissionQueue
from cli.observers import Challenge, load_challenge
from cli.setup import log_to_stderr, patiently
from compute_client.stop_signals import stopped_by_signals
from deployments.installation import installation
from deployments.prefect_setup import load_queue
from deployments.settings import load_settings
from flow_worker.metrics import serve_metrics
from prefect_api.request_budget import PrefectBudget
from services.installation_metrics import InstallationCollector, Sources

PORT = 9464


def metrics(*, port: int | None = None) -> None:
    """Serve the installation's metrics until SIGTERM or Ctrl-C: submissions, stages, leases, GPU time, queues, budget.

    One process for an installation is enough. Each answer is read from the ledgers, SQS and Prefect, at most once in 25
    seconds; what does not answer is left out, and shown by leaderboard_source_up.

    Parameters
    ----------
    port
        Where Prometheus asks, path /metrics; LEADERBOARD_METRICS_PORT or 9464 if not given.
    """
    settings = load_settings()
    log_to_stderr()
    with installation(settings):
        challenge = patiently(load_challenge, "Prefect cannot say yet where the ledgers are")
        queue = patiently(load_queue, "Prefect cannot say yet where the queue is")
        registry = CollectorRegistry()
        registry.register(InstallationCollector(sources_of(challenge, queue)))
        server, _ = serve_metrics(registry, settings.metrics_port or PORT if port is None else port)
        print(f"http://localhost:{server.server_port}/metrics", flush=True)
        stop = threading.Event()
        with stopped_by_signals(stop):
            stop.wait()
        server.shutdown()


def sources_of(challenge: Challenge, queue: SubmissionQueue) -> Sources:
    # The endpoint answers in threads of its own, which would not know the installation's address.
    context = contextvars.copy_context()
    budget: Callable[[], float] = PrefectBudget(challenge.evalai.rate_limit).used
    return Sources(
        ledgers={name: place.ledger.entries for name, place in challenge.places.items()},
        queues={
            "submissions": partial(queue_facts, queue, queue.queue_url),
            "dead_letters": partial(queue_facts, queue, queue.dead_letter_url),
        },
        budget_used=lambda: context.run(budget),
    )
