"""Prefect's client, for those who are no flow run: they need an address of a server."""

import time

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL

from evaluation.errors import InvalidConfiguration, ServiceUnavailable


def prefect_client(timeout_seconds: float | None = None) -> SyncPrefectClient:
    """A client of PREFECT_API_URL; raises InvalidConfiguration where that is not set.

    Without an address Prefect would start a server of its own, which no other process uses.
    """
    if not PREFECT_API_URL.value():
        raise InvalidConfiguration("Prefect's address is not known", "PREFECT_API_URL is not set")
    httpx_settings = None if timeout_seconds is None else {"timeout": timeout_seconds}
    return get_client(httpx_settings=httpx_settings, sync_client=True)


def wait_for_server(client: SyncPrefectClient, seconds: float) -> None:
    """Raises ServiceUnavailable where the server does not answer within so many seconds."""
    deadline = time.monotonic() + seconds
    while (problem := client.api_healthcheck()) is not None:
        if time.monotonic() >= deadline:
            raise ServiceUnavailable(f"Prefect's server at {PREFECT_API_URL.value()} does not answer", str(problem))
        time.sleep(0.2)
