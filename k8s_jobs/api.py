"""One cluster's API: JSON in, JSON out, with fresh tokens, deadlines, retries, a count, and errors of our own tree.

Objects stay the plain JSON that the server sends: the client's models take longer to build than all our work with them.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import stamina
from kubernetes_asyncio.client import ApiClient

from evaluation.errors import ServiceUnavailable
from k8s_jobs.api_errors import error_of, translated
from k8s_jobs.credentials import ClusterAccess

Json = dict[str, Any]
Query = Mapping[str, str]

AT_ONCE = 8  # requests under way; the cluster's flow control likes a queue here better than one there
_LONGEST_RETRY_AFTER = 30.0


@dataclass(frozen=True)
class RequestLimits:
    """Seconds, and how often a request that failed for a passing reason is sent again."""

    answer_seconds: float = 30.0
    connect_seconds: float = 10.0
    silence_seconds: float = 75.0  # of a watch; its bookmarks come every minute
    attempts: int = 5
    retry_wait_seconds: float = 0.5  # before the second attempt; doubles, with jitter
    retry_total_seconds: float = 60.0


class KubernetesApi:
    """An open connection. `requests` counts every request by its verb, retries included."""

    def __init__(
        self,
        access: ClusterAccess,
        limits: RequestLimits | None = None,
        requests: Counter[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests = Counter[str]() if requests is None else requests
        self._access = access
        self._limits = limits or RequestLimits()
        self._clock = clock
        self._token_until = float("-inf")
        self._renewing = asyncio.Lock()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._client: ApiClient | None = None

    async def __aenter__(self) -> Self:
        self._client = await self._access.client()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def token_seconds_left(self) -> float:
        """How long the present token is used still."""
        return max(0.0, self._token_until - self._clock())

    async def get(self, path: str, query: Query | None = None, *, retry: bool = True) -> Json:
        return _object(await self._send("GET", path, query, retry=retry))

    async def text(self, path: str, query: Query | None = None) -> str:
        return await self._send("GET", path, query)

    async def create(self, path: str, body: Json) -> Json:
        """May raise ObjectExists for an object of our own: the answer to an earlier attempt can have been lost."""
        return _object(await self._send("POST", path, body=body))

    async def delete(self, path: str, query: Query | None = None, body: Json | None = None) -> None:
        await self._send("DELETE", path, query, body)

    async def _send(
        self, verb: str, path: str, query: Query | None = None, body: Json | None = None, *, retry: bool = True
    ) -> str:
        limits = self._limits
        async for attempt in stamina.retry_context(
            on=_pause_before_retry,
            attempts=limits.attempts if retry else 1,
            timeout=limits.retry_total_seconds,
            wait_initial=limits.retry_wait_seconds,
            wait_jitter=limits.retry_wait_seconds,
            wait_max=10,
        ):
            with attempt:
                async with self._slots:
                    timeout = aiohttp.ClientTimeout(limits.answer_seconds, sock_connect=limits.connect_seconds)
                    async with self._response(verb, path, query, body, timeout) as response:
                        return _decoded(await response.read())
        raise AssertionError("stamina returns or raises")  # pragma: no cover

    async def stream(self, path: str, query: Query) -> AsyncGenerator[Json, None]:
        """A watch's events, without ERROR: that is raised. Ends when the server ends it.

        Raises ServiceUnavailable when the connection drops or says nothing for longer than bookmarks take.
        """
        limits = self._limits
        timeout = aiohttp.ClientTimeout(sock_connect=limits.connect_seconds, sock_read=limits.silence_seconds)
        what = f"Watching {path}"
        async with self._response("GET", path, query, None, timeout, verb="WATCH") as response:
            while line := await response.content.readline():
                event = _object(_decoded(line))
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise error_of(int(status.get("code") or 500), json.dumps(status), what)
                yield event

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Json | None,
        timeout: aiohttp.ClientTimeout,
        verb: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request; one whose token is not accepted any longer is sent again once."""
        what = f"{verb or method} {path}"
        with translated(what):
            response = await self._request(verb or method, method, path, query, body, timeout)
            if response.status == 401:
                response.release()
                self._token_until = float("-inf")
                response = await self._request(verb or method, method, path, query, body, timeout)
            try:
                if not response.ok:
                    raise error_of(response.status, _decoded(await response.read()), what, _retry_after(response))
                yield response
            finally:
                response.close() if verb else response.release()

    async def _request(
        self, verb: str, method: str, path: str, query: Query | None, body: Json | None, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        client = await self._ready_client()
        self.requests[verb] += 1
        response: aiohttp.ClientResponse = await client.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,  # the raw answer: unread, unlogged
            _request_timeout=timeout,
        )
        return response

    async def _ready_client(self) -> ApiClient:
        if self._client is None:
            raise RuntimeError("KubernetesApi is used outside of `async with`")
        async with self._renewing:
            if self._clock() >= self._token_until:
                token = await self._access.token()
                if token:
                    self._client.configuration.api_key["BearerToken"] = token
                self._token_until = self._clock() + self._access.token_seconds
        return self._client


def _decoded(body: bytes) -> str:
    """A container's log is whatever its program wrote, and no charset is announced: nothing here may fail on bytes."""
    return body.decode("utf-8", errors="replace")


def _object(text: str) -> Json:
    """The JSON object in `text`; a truncated one is what a dropped connection leaves."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ServiceUnavailable("The cluster's answer is cut off or no JSON", str(error)) from error
    if not isinstance(content, dict):
        raise ServiceUnavailable("The cluster's answer is not a JSON object", type(content).__name__)
    return content


def _pause_before_retry(error: Exception) -> bool | float:
    """stamina's back-off hook: what the server asks for, else stamina's own waiting."""
    if not isinstance(error, ServiceUnavailable):
        return False
    return True if error.retry_after is None else min(error.retry_after, _LONGEST_RETRY_AFTER)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
