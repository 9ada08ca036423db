"""What the pair is doing, in a form for people, for the flow and for the next pod."""

from evaluation.pair.protocol import Counters, PairExitCode, PairProgress
from evaluation.shards import ShardState
from shard_pod.checkpoint_store import CheckpointStore
from shard_pod.clock import now
from shard_pod.settings import PairSettings


def pair_progress(
    settings: PairSettings,
    results: CheckpointStore,
    state: ShardState,
    counters: Counters,
    detail: str,
    exit_code: PairExitCode | None = None,
) -> PairProgress:
    """The progress now; a pair that drives is described by its route instead of by `detail`."""
    driving = results.driving if state is ShardState.DRIVING else None
    if state is ShardState.DRIVING:
        detail = f"driving route {driving.route}" if driving else "every route has its record"
        detail += f" (start {counters.starts})" if counters.starts > 1 else ""
        detail += f"; its checkpoint is refused: {results.refused}" if results.refused else ""
    return PairProgress(
        attempt=settings.attempt,
        state=state,
        routes_done=results.summary.settled(counters.quarantined),
        routes_total=len(results.routes.runs),
        route=driving.route if driving else None,
        counters=counters,
        exit_code=exit_code,
        detail=detail,
        updated_at=now(),
    )
