"""Where a shard stands in the queue of its backend."""

from dataclasses import dataclass


@dataclass(frozen=True)
class QueuePlace:
    """The shard is number `position` of the `waiting` ones, 1 the next to start."""

    position: int
    waiting: int
    running: int  # shards that hold a GPU of this queue now; 0 where the backend does not know
    why: str  # quota, no node, another team's turn: in words

    def __str__(self) -> str:
        return f"queued: {self.position} of {self.waiting} ({self.why})"
