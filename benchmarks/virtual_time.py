"""An event loop whose clock jumps to the next timer instead of waiting for it: hours of a simulation in seconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class _AtOnce(ThreadPoolExecutor):
    """What blocks takes no time, by the loop's clock: the loop waits for its end."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future = super().submit(fn, *args, **kwargs)
        wait([future])
        return future


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, with a clock that begins at 0."""
    selector = _Jump()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    loop.set_default_executor(_AtOnce(1))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
