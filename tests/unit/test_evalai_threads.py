"""Where calls to EvalAI wait: a final report never behind looks."""

import asyncio
import threading

from flows.threads import EVALAI_THREADS, in_evalai_thread, in_report_thread


def test_a_report_does_not_wait_for_looks_that_wait_for_their_slots() -> None:
    over = threading.Event()

    async def reported() -> str:
        looks = [asyncio.create_task(in_evalai_thread(over.wait)) for _ in range(2 * EVALAI_THREADS)]
        await asyncio.sleep(0)
        try:
            return await in_report_thread(lambda: "reported")
        finally:
            over.set()
            await asyncio.gather(*looks)

    assert asyncio.run(reported()) == "reported"
