"""Whoever waits for a change of its Jobs can be cancelled at any moment."""

import asyncio

import pytest

from k8s_jobs.cluster_watch import Follower


@pytest.mark.parametrize("steps", range(4))
def test_a_cancellation_at_the_moment_of_a_change_is_not_swallowed(steps: int) -> None:
    async def scenario() -> None:
        follower = Follower()
        waiting = asyncio.create_task(follower.wait(60))
        await asyncio.sleep(0.01)
        follower.changed.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        in_time = not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled() is in_time

    asyncio.run(scenario())
