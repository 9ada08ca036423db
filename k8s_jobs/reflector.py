"""A copy of a cluster's objects of one kind, kept by list and watch.

Kubernetes ends every watch: after its timeout, when its resource version is too old (410, as a status or inside the
stream), when a server restarts, when a proxy loses timeouts. Whatever the reason, the mirror lists again and watches
from there. A watch asks for no more time than its token has left, and one that says nothing for longer than bookmarks
take counts as lost, so listing is also the floor under a connection that only looks alive.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

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
    """Why the mirror is not up to date, and since when (time.time())."""

    error: EvaluationError
    since: float


class Reflector:
    """`objects` by name. `on_change` is told each object that came, changed or went, and with which of the three.

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
        """Mirror for ever; ends by cancellation only."""
        pause = self._limits.first_pause_seconds
        while True:
            began = time.monotonic()
            try:
                version = await self._list()
                self.trouble = self.refused = None
                self.listed.set()
                await self._watch(version)
            except VersionExpired:
                pass
            except (ServiceUnavailable, RequestRefused, InvalidConfiguration) as error:
                self._note(error)
            if time.monotonic() - began >= self._limits.longest_pause_seconds:
                pause = self._limits.first_pause_seconds
            # Also after a watch that ended by itself: one that always ends at once must not become a busy loop.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(2 * pause, self._limits.longest_pause_seconds)

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
                raise ServiceUnavailable(f"The answer to GET {self._path} is no list")
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
