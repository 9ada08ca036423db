"""What a shard's log says: a line when something has happened to it, none for a poll. Pure."""

from dataclasses import dataclass

from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.pair.protocol import Counters, PairProgress
from evaluation.routes import format_route_list
from evaluation.shards import ENDED, Shard, ShardState

REASON_SECONDS = 300.0  # a reason to wait that changes, such as a place in a queue, is a line no more often


@dataclass(frozen=True)
class ShardNews:
    """The shard at one time. `backend_id`: what its backend calls it. `pair`: what the pair last said of itself."""

    view: ShardProgress
    backend_id: str = ""
    pair: PairProgress | None = None


class ShardStory:
    """Remembers what it has told."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._told: tuple[object, ...] = ()
        self._restarts = (0, 0)
        self._reason = ""
        self._reason_at = 0.0
        self._claimed = 0

    def begin(self) -> str:
        """The first line: which routes."""
        if self._shard.pulled:
            return f"takes its routes from a pool of {len(self._shard.routes)}, which all shards share"
        routes = self._shard.routes
        named = f"route{'s' if len(routes) > 1 else ''} {format_route_list(routes)}"
        return f"is to drive {named}"

    def lines(self, news: ShardNews, now: float) -> list[str]:
        """What is new since the last call. `now`: seconds of any clock that never goes back."""
        view = news.view
        lines = []
        if view.pool and view.routes_total > self._claimed:
            new, self._claimed = view.routes_total - self._claimed, view.routes_total
            lines.append(f"takes {new} more {_routes(new)}: {view.routes_total} of the submission's {view.pool} so far")
        counters = news.pair.counters if news.pair else Counters()
        restarts = (counters.agent_restarts, counters.infrastructure_restarts)
        happened = (view.state, news.backend_id, restarts)
        ended = view.state in ENDED  # the last state of the task run says that
        if not ended and (happened != self._told or self._waits_for_another_reason(view, now)):
            self._reason, self._reason_at = view.detail, now
            lines.append(_state(news) + (_restarts(restarts) if restarts != self._restarts else ""))
            self._told, self._restarts = happened, restarts
        return lines

    def _waits_for_another_reason(self, view: ShardProgress, now: float) -> bool:
        waiting = view.state in (ShardState.WAITING, ShardState.PULLING)
        return waiting and view.detail != self._reason and now - self._reason_at >= REASON_SECONDS


def _state(news: ShardNews) -> str:
    view = news.view
    where = f" ({news.backend_id})" if news.backend_id else ""
    detail = view.detail.removeprefix(f"{view.state.value} ")  # "driving route 13"
    return f"{view.state.value}{where}: {detail}".removesuffix(": ")


def _restarts(restarts: tuple[int, int]) -> str:
    return f"; restarts so far: {restarts[0]} charged to the agent, {restarts[1]} to the installation"


def final_sentence(view: ShardProgress, scores: list[float]) -> str:
    """How the shard ended, as the message of its task run's last state. `scores`: of the routes that have a record."""
    if view.state is ShardState.GONE:
        return "Its Job has disappeared."
    done = max(view.routes_done, len(scores))
    of = "" if view.pool else f" of {view.routes_total}"
    routes = f"{done}{of} {_routes(done if view.pool else view.routes_total)} driven"
    if scores:
        routes += f", driving score {sum(scores) / len(scores):.1f} in the mean"
    return f"{view.detail.rstrip('.')}. {routes}." if view.state is ShardState.FAILED else f"{routes}."


def _routes(count: int) -> str:
    return "route" if count == 1 else "routes"
