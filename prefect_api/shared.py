"""What flow runs of one process load once together, where many of them start at the same time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

SHARED_SECONDS = 10.0  # so old may be what a run gets; a changed block reaches the runs that start after that

P = ParamSpec("P")
T = TypeVar("T")


def shared_by_runs(load: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Let callers in one event loop share what `load` returns for the same arguments, for SHARED_SECONDS.

    Those who ask meanwhile wait for the same load. What it raises is raised to all of these, and not kept. Arguments
    have to be hashable.
    """
    kept: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, tuple[float, asyncio.Future[T]]]]
    kept = WeakKeyDictionary()

    @wraps(load)
    async def shared(*args: P.args, **kwargs: P.kwargs) -> T:
        here = kept.setdefault(asyncio.get_running_loop(), {})
        key = (args, tuple(sorted(kwargs.items())))
        until, loading = here.get(key, (0.0, None))
        failed = loading is not None and loading.done() and (loading.cancelled() or loading.exception() is not None)
        if loading is None or failed or until < time.monotonic():
            loading = asyncio.ensure_future(load(*args, **kwargs))
            here[key] = (time.monotonic() + SHARED_SECONDS, loading)
        return await asyncio.shield(loading)  # a run that is cancelled takes it from no other

    return shared
