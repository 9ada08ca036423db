"""Where blocking calls wait: not in the event loop, and those of EvalAI not in the threads that all others need.

Each request to EvalAI waits for its slot of a budget that many runs share, in a thread. In asyncio's shared threads
such waits would keep the calls to S3 and DynamoDB of every run of the process waiting as well.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

EVALAI_THREADS = 16  # of a process: more than its budget lets through at once
REPORT_THREADS = 8  # the same for final reports, so that none waits behind sixteen looks that wait for their slots

P = ParamSpec("P")
T = TypeVar("T")

_evalai = ThreadPoolExecutor(EVALAI_THREADS, thread_name_prefix="evalai")
_reports = ThreadPoolExecutor(REPORT_THREADS, thread_name_prefix="evalai-reports")


async def in_evalai_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, for a call that takes a slot of EvalAI's request budget."""
    return await _in(_evalai, partial(function, *args, **kwargs))


async def in_report_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for a final report."""
    return await _in(_reports, partial(function, *args, **kwargs))


async def _in(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    run = partial(contextvars.copy_context().run, call)
    return await asyncio.get_running_loop().run_in_executor(threads, run)
