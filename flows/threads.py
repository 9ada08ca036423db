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

P = ParamSpec("P")
T = TypeVar("T")

_evalai = ThreadPoolExecutor(EVALAI_THREADS, thread_name_prefix="evalai")


async def in_evalai_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, for a call that takes a slot of EvalAI's request budget."""
    call = partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_evalai, call)
