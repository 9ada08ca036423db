"""Lines in the run's log for each change of a shard's state, with the name under which its backend knows it."""

from prefect import get_run_logger

from evaluation.shards import ShardState, ShardStatus, ShardStatuses
from evaluation.text import storable


class ShardLog:
    """Remembers what it has said. A change of words alone, such as of the scheduler's reason, is no line."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[ShardState, str]] = {}

    def show(self, statuses: ShardStatuses) -> None:
        for index, status in sorted(statuses.items()):
            now = (status.state, status.backend_id)
            if self._said.get(index) != now:
                self._said[index] = now
                get_run_logger().info(_line(index, status))


def _line(index: int, status: ShardStatus) -> str:
    where = f" ({status.backend_id})" if status.backend_id else ""
    return storable(f"shard {index}{where} is {status.state.value}: {status.detail}".removesuffix(": "))
