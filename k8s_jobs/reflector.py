"""A copy of a cluster's objects of one kind, kept by list and watch.

Kubernetes ends every watch: after its timeout, when its resource version is too old (410, as a status or inside the
stream), when a server restarts, when a proxy loses connections. Whatever the reason, the reflector lists again and
watches from there. A watch asks for no more time than its token has left, and one that says nothing for longer than
bookmarks take counts as lost, so that listing also covers a connection that only seems to be alive.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import stamina

from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable
from k8s_jobs.api import Json, KubernetesApi
from k8s_jobs.api_errors import VersionExpired

_PAGE = "500"  # objects in one answer
_KINDS = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


@dataclass(frozen=True)
class ReflectorLimits:
    """Seconds."""

    watch_seconds: float = 240.0  # clients and proxies give a watch five minutes
    first_pause_seconds: float = 0.5  # after a failure; doubles, with jitter
    longest_pause_seconds: float = 30.0
    refusal_seconds: float = 300.0  # how long a refusal is taken for a passing one, once a list has succeeded


@dataclass(frozen=True)
class ConnectionProblem:
    """Why the copy is not up to date, and since when (time.time())."""

    error: EvaluationError
    since: float


class _WatchEnded(Exception):
    """A watch ended soon after its start: one that always does must not become a busy loop."""


_RETRIED = (_WatchEnded, VersionExpired, ServiceUnavailable, RequestRefused, InvalidConfiguration)


class Reflector:
    """`objects` by name. `on_change` gets each object that was added, changed or deleted, and the kind of its event.

    The first list may fail for good: then, and when a refusal lasts, `refused` holds the reason.
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        selector: str,
        on_change: Callable[[Json, str], None],
        limits: ReflectorLimits,
    ) -> None:
        self.objects: dict[str, Json] = {}
        self.listed = asyncio.Event()
        self.trouble: ConnectionProblem | None = None
        self.refused: EvaluationError | None = None
        self._api = api
        self._path = path
        self._selector = selector
        self._on_change = on_change
        self._limits = limits

    async def run(self) -> None:
        """List and watch for ever; ends by cancellation only."""
        limits = self._limits
        while True:  # a watch that has lasted ends the back-off before it
            async for attempt in stamina.retry_context(
                on=_RETRIED,
                attempts=None,
                timeout=None,
                wait_initial=limits.first_pause_seconds,
                wait_jitter=limits.first_pause_seconds,
                wait_max=limits.longest_pause_seconds,
            ):
                with attempt:
                    await self._list_and_watch()

    async def _list_and_watch(self) -> None:
        """Until the watch ends; raises one of _RETRIED unless it has lasted longer than the longest pause."""
        began = time.monotonic()
        try:
            version = await self._list()
            self.trouble = self.refused = None
            self.listed.set()
            await self._watch(version)
            raise _WatchEnded
        except _RETRIED as error:
            if isinstance(error, EvaluationError) and not isinstance(error, VersionExpired):
                self._note(error)
            if time.monotonic() - began < self._limits.longest_pause_seconds:
                raise

    def _note(self, error: EvaluationError) -> None:
        self.trouble = ConnectionProblem(error, self.trouble.since if self.trouble else time.time())
        refusal = not isinstance(error, ServiceUnavailable)
        lasts = time.time() - self.trouble.since >= self._limits.refusal_seconds
        if refusal and (lasts or not self.listed.is_set()):
            self.refused = error

    async def _list(self) -> str:
        """Take over what there is now; returns the resource version to watch from."""
        found: dict[str, Json] = {}
        query = {"labelSelector": self._selector, "limit": _PAGE}
        while True:
            page = await self._api.get(self._path, query, retry=False)
            metadata = page.get("metadata") or {}
            if "resourceVersion" not in metadata:
                raise ServiceUnavailable(f"The answer to GET {self._path} is not a list")
            for item in page.get("items") or ():
                found[_name(item)] = _slim(item)
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        self._replace(found)
        return str(metadata["resourceVersion"])

    def _replace(self, found: dict[str, Json]) -> None:
        gone = [item for name, item in self.objects.items() if name not in found]
        changed = [item for name, item in found.items() if _version(item) != _version(self.objects.get(name))]
        self.objects = found
        for item in gone:
            self._on_change(item, "DELETED")
        for item in changed:
            self._on_change(item, "MODIFIED")

    async def _watch(self, version: str) -> None:
        """Follow the changes since `version` until the server ends the watch; raises as KubernetesApi.stream does."""
        seconds = max(1, int(min(self._limits.watch_seconds, self._api.token_seconds_left)))
        query = {
            "watch": "1",
            "labelSelector": self._selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        async with aclosing(self._api.stream(self._path, query)) as events:
            async for event in events:
                self.trouble = None
                kind, item = event.get("type"), event.get("object")
                if kind not in _KINDS or not isinstance(item, dict):
                    raise ServiceUnavailable(f"Watching {self._path}: the cluster sent no event", str(kind))
                if kind != "BOOKMARK":
                    self._apply(kind, _slim(item))

    def _apply(self, kind: str, item: Json) -> None:
        if kind == "DELETED":
            self.objects.pop(_name(item), None)
        else:
            self.objects[_name(item)] = item
        self._on_change(item, kind)


def _slim(item: Json) -> Json:
    item["metadata"].pop("managedFields", None)  # half of an object's text, and of no use here
    return item


def _name(item: Json) -> str:
    return str(item["metadata"]["name"])


def _version(item: Json | None) -> str:
    return "" if item is None else f"{item['metadata'].get('uid')}/{item['metadata'].get('resourceVersion')}"
