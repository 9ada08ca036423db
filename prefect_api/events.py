"""Prefect events over HTTP: a POST is answered, so that the sender knows; Prefect's own event client does not."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from evaluation.errors import InvalidMessage, RequestRefused, ServiceUnavailable
from prefect_api.client import prefect_client

# Answers about this one event; every other refusal is about the sender or the server.
_REFUSES_THE_EVENT = frozenset({400, 413, 422})


@dataclass(frozen=True)
class OutgoingEvent:
    """An event as Prefect wants it. Sent twice with one id within five minutes, it counts once."""

    name: str
    resource_id: str
    resource_name: str
    payload: Mapping[str, object]
    labels: Mapping[str, str] = field(default_factory=dict)
    id: UUID = field(default_factory=uuid4)


class PrefectEvents:
    """Publishes events. Prefect's own client brings the authentication, TLS settings and CSRF tokens."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def publish(self, event: OutgoingEvent) -> None:
        """Send one event and return once Prefect has taken it.

        Raises InvalidMessage where the event cannot be written as JSON in UTF-8, RequestRefused where Prefect does not
        take this very event, ServiceUnavailable for everything else: a wrong address or key is corrected outside too.
        """
        body = _json(event)
        try:
            # The caller decides when to try again. The setting is per thread: it cannot be made once at the start.
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                response = self._client.request(
                    "POST", "/events", content=body, headers={"Content-Type": "application/json"}
                )
        except httpx.HTTPStatusError as error:
            raise _refusal(event, error.response) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            cause = f"{type(error).__name__} {error}".strip()
            raise ServiceUnavailable("Prefect's API does not answer", cause) from error
        except ValueError as error:  # what should be a CSRF token is a web page
            raise ServiceUnavailable(
                "Prefect's API does not answer as one", type(error).__name__, "Check PREFECT_API_URL."
            ) from error
        if not response.is_success or response.history:
            raise _refusal(event, response)


@contextmanager
def prefect_events(timeout_seconds: float = 15) -> Iterator[PrefectEvents]:
    """The publisher for PREFECT_API_URL; raises InvalidConfiguration where that is not set."""
    with prefect_client(timeout_seconds) as client:
        yield PrefectEvents(client)


def _json(event: OutgoingEvent) -> bytes:
    """Written here and not by the client, whose UnicodeEncodeError could be mistaken for an unusable answer."""
    try:
        return json.dumps([_body(event)], ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(
            f"The event of {event.resource_name} cannot be written as JSON", type(error).__name__
        ) from error


def _body(event: OutgoingEvent) -> dict[str, object]:
    resource = {"prefect.resource.id": event.resource_id, "prefect.resource.name": event.resource_name}
    return {
        "id": str(event.id),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event.name,
        "resource": resource | dict(event.labels),
        "payload": dict(event.payload),
    }


def _refusal(event: OutgoingEvent, response: httpx.Response) -> RequestRefused | ServiceUnavailable:
    if response.status_code in _REFUSES_THE_EVENT:
        return RequestRefused(
            f"Prefect refuses the event of {event.resource_name}", f"it answers {response.status_code}"
        )
    where = f"{response.request.method} {response.request.url.copy_with(username=None, password=None)}"
    return ServiceUnavailable(
        "Prefect's API takes no events", f"{where} answers {response.status_code}", "Check PREFECT_API_URL and its key."
    )
