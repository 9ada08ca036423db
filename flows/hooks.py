"""What happens when a run ends without an outcome of its own: it died, it broke, or an operator cancelled it.

The hooks only start a takeover run, which does the rest like any run. Where not even they can run, the reconciler finds
the claim that is not renewed, and does the same.
"""

from typing import Any

from prefect import Flow, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.logging.loggers import flow_run_logger

from evaluation.lifecycle.outcome import MAX_CRASHES
from evaluation.lifecycle.takeover import Takeover
from flows.takeover_runs import start_takeover_run, takeover_of
from prefect_api.states import DRAINED, StateName

STOPPED = (StateType.CANCELLING, StateType.CANCELLED)  # by an operator in Prefect; the hooks are called in the first


async def start_takeover(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Let another run go on, or end the evaluation in order where an operator stopped it.

    A new run, because Prefect's worker reports the crash of the old one once more after its hooks.
    """
    logger = flow_run_logger(flow_run, flow)
    if state.name in set(StateName):
        return
    stopped = state.type in STOPPED
    takeover = _next(takeover_of(flow_run), state)
    if flow_run.deployment_id is None:
        logger.warning("This run belongs to no deployment: the reconciler starts a takeover run.")
        return
    if takeover.crashes > MAX_CRASHES + 1:  # not even the run that was to give up could claim the submission
        logger.error(
            "The run crashed again before it could report an outcome (%s): see `leaderboard reconcile`", state.message
        )
        return
    logger.warning(
        "The run ended without an outcome (%s). A takeover run (epoch %d) is started to %s.",
        state.message or state.name,
        takeover.epoch,
        "end the evaluation" if stopped else "continue",
    )
    async with get_client() as client:
        await start_takeover_run(client, flow_run.parameters, takeover, flow_run.tags)


def _next(earlier: Takeover, state: State[Any]) -> Takeover:
    if state.type in STOPPED:
        return earlier.after_cancellation()
    return earlier.after_drain() if state.name == DRAINED else earlier.after_crash()
