"""One connection and one watch per cluster for everything in this process that uses the cluster at the same time."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from evaluation.errors import ServiceUnavailable
from k8s_jobs.api import Json, KubernetesApi, RequestLimits
from k8s_jobs.credentials import ClusterAccess
from k8s_jobs.kueue import QueueReader
from k8s_jobs.reflector import ConnectionProblem, Reflector, ReflectorLimits

JOB_LABEL = "batch.kubernetes.io/job-name"  # the Job controller's, on every pod


def jobs_path(namespace: str, name: str = "") -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs" + (f"/{name}" if name else "")


def pods_path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/pods" + (f"/{name}" if name else "")


@dataclass(frozen=True)
class ClusterKey:
    """What has to be equal for two users to share a connection and a watch."""

    access: ClusterAccess
    namespace: str
    selector: str
    requests: RequestLimits = field(default_factory=RequestLimits)
    reflector: ReflectorLimits = field(default_factory=ReflectorLimits)
    first_list_seconds: float = 60.0  # then following gives up
    counter: Counter[str] = field(default_factory=Counter, compare=False)  # of requests, by verb


@dataclass(eq=False)
class Follower:
    """Notified when one of its Jobs or their pods change."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> None:
        """Returns at the next change, or after `seconds`."""
        try:
            # Not asyncio.wait_for: that of Python 3.11 swallows a cancellation that comes at the moment of the change.
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return
        finally:
            self.changed.clear()


class ClusterWatch:
    """The Jobs and Pods under our label in one namespace, kept up to date while anybody follows."""

    def __init__(self, api: KubernetesApi, key: ClusterKey) -> None:
        self._key = key
        self._followers: dict[str, set[Follower]] = defaultdict(set)
        self._pods_of: dict[str, dict[str, Json]] = defaultdict(dict)
        self._departed: dict[str, Json] = {}  # Job's name -> the pod of it that went last
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._users = 0
        namespace, selector, limits = key.namespace, key.selector, key.reflector
        self._jobs = Reflector(api, jobs_path(namespace), selector, self._job_changed, limits)
        self._pods = Reflector(api, pods_path(namespace), selector, self._pod_changed, limits)

    def job(self, name: str) -> Json | None:
        return self._jobs.objects.get(name)

    def pods(self, job: Json) -> list[Json]:
        """The Job's own pods, not an earlier namesake's; the last one that was deleted among them."""
        name = job["metadata"]["name"]
        found = list(self._pods_of.get(name, {}).values())
        if name in self._departed:
            found.append(self._departed[name])
        return own_pods(job, found)

    @property
    def trouble(self) -> ConnectionProblem | None:
        """Why the copies may be out of date; the older one of the two."""
        troubles = [each.trouble for each in (self._jobs, self._pods) if each.trouble]
        return min(troubles, key=lambda trouble: trouble.since, default=None)

    def check(self) -> None:
        """Raise what keeps the copies from ever being up to date."""
        for task in self._tasks:
            if task.done():
                task.result()
        for reflector in (self._jobs, self._pods):
            if reflector.refused:
                raise reflector.refused

    @asynccontextmanager
    async def following(self, names: Iterable[str]) -> AsyncIterator[Follower]:
        """Keep the copies up to date until the last follower leaves; they are complete on entry.

        Raises ServiceUnavailable when the cluster does not answer in time, else what `check` raises.
        """
        follower, names = Follower(), tuple(names)
        for name in names:
            self._followers[name].add(follower)
        self._enter()
        try:
            await self._complete()
            yield follower
        finally:
            await self._leave()
            for name in names:
                self._followers[name].discard(follower)
                if not self._followers[name]:
                    del self._followers[name]

    def _enter(self) -> None:
        self._users += 1
        if not self._tasks:
            self._tasks = tuple(asyncio.create_task(reflector.run()) for reflector in (self._jobs, self._pods))

    async def _leave(self) -> None:
        self._users -= 1
        if self._users:
            return
        tasks, self._tasks = self._tasks, ()
        for reflector in (self._jobs, self._pods):
            reflector.listed.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _complete(self) -> None:
        deadline = time.monotonic() + self._key.first_list_seconds
        while not (self._jobs.listed.is_set() and self._pods.listed.is_set()):
            self.check()
            if time.monotonic() > deadline:
                trouble = self.trouble
                cause = str(trouble.error) if trouble else "the first list did not come in time"
                raise ServiceUnavailable("The cluster's Jobs cannot be listed", cause)
            await asyncio.sleep(0.05)

    def _job_changed(self, job: Json, kind: str) -> None:
        name = job["metadata"]["name"]
        if kind == "DELETED":
            self._departed.pop(name, None)
        self._wake(name)

    def _pod_changed(self, pod: Json, kind: str) -> None:
        metadata = pod["metadata"]
        job = (metadata.get("labels") or {}).get(JOB_LABEL, "")
        if kind == "DELETED":
            self._pods_of[job].pop(metadata["name"], None)
            if job in self._jobs.objects:
                # Where the watch missed its end, it seems to be alive still.
                metadata.setdefault("deletionTimestamp", datetime.now(UTC).isoformat())
                self._departed[job] = pod
        else:
            self._pods_of[job][metadata["name"]] = pod
        if not self._pods_of[job]:
            del self._pods_of[job]
        self._wake(job)

    def _wake(self, name: str) -> None:
        for follower in self._followers.get(name, ()):
            follower.changed.set()


def own_pods(job: Json, pods: Iterable[Json]) -> list[Json]:
    """Those that this very Job has made, not an earlier one of its name."""
    uid = job["metadata"]["uid"]
    return [pod for pod in pods if any(owner.get("uid") == uid for owner in _owners(pod))]


def _owners(pod: Json) -> list[Json]:
    return pod["metadata"].get("ownerReferences") or []


@dataclass
class Connection:
    """A shared connection: the API, the watch that runs while somebody follows, and the queues that are read then."""

    api: KubernetesApi
    watch: ClusterWatch
    queues: QueueReader
    users: int = 0
    opened: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_open: bool = False


# The one thing in this package that outlives its users: sharing needs a place to meet. Sockets belong to an event loop.
_connections: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ClusterKey, Connection]] = WeakKeyDictionary()


@asynccontextmanager
async def connected(key: ClusterKey) -> AsyncIterator[Connection]:
    """The connection for `key`, opened for its first user and closed behind its last."""
    shared = _connections.setdefault(asyncio.get_running_loop(), {})
    if key not in shared:
        api = KubernetesApi(key.access, key.requests, key.counter)
        shared[key] = Connection(api, ClusterWatch(api, key), QueueReader(api, key.namespace))
    connection = shared[key]
    connection.users += 1
    try:
        async with connection.opened:
            if not connection.is_open:
                await connection.api.__aenter__()
                connection.is_open = True
        yield connection
    finally:
        connection.users -= 1
        if not connection.users:
            if shared.get(key) is connection:
                del shared[key]
            if connection.is_open:
                await connection.api.__aexit__(None, None, None)
