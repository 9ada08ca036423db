"""What happens when a run ends without an outcome of its own: its process died, it broke, or a host cancelled it."""

import asyncio
from typing import Any

from prefect import Flow, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.logging.loggers import flow_run_logger

from evaluation.errors import EvaluationError, Fault
from evaluation.outcome import Ending, Outcome
from evaluation.submission import SubmissionMessage, Succession
from flows.board import StateName
from flows.reporting import record, report
from flows.simulation import remove_jobs
from flows.site import load_cluster, load_site

MOST_STARTS = 5  # so often a run's process may die before the submission is given up


async def start_again(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Let another run take over from one whose process died: it holds the same claim and adopts the shards.

    A new run, because Prefect's worker reports the crash of the old one once more after its hooks.
    """
    given = flow_run.parameters.get("succession") or {"owner": str(flow_run.id), "start": 1}
    succession = Succession.model_validate(given).next
    if succession.start > MOST_STARTS or flow_run.deployment_id is None:
        await abandon(flow, flow_run, state)
        return
    logger = flow_run_logger(flow_run, flow)
    logger.warning("The run's process died (%s); start %d takes over", state.message or state.name, succession.start)
    async with get_client() as client:
        await client.create_flow_run_from_deployment(
            flow_run.deployment_id,
            parameters={**flow_run.parameters, "succession": succession.model_dump()},
            idempotency_key=f"{succession.owner}-start-{succession.start}",
            tags=flow_run.tags,
        )


async def abandon(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Stop the run's Jobs, tell EvalAI and the ledger; does nothing for a run that ended with an outcome."""
    if state.name in set(StateName):
        return
    logger = flow_run_logger(flow_run, flow)
    try:
        message = SubmissionMessage.model_validate(flow_run.parameters["message"])
        site = await load_site()
        submission = await asyncio.to_thread(site.evalai.submission, message, site.phase(message))
        cluster = await load_cluster(submission.phase.cluster)
        succession = flow_run.parameters.get("succession")
        owner = Succession.model_validate(succession).owner if succession else str(flow_run.id)
        claim = await asyncio.to_thread(cluster.ledger.held, submission, owner)
        if claim is None:
            return
        await remove_jobs.fn(cluster, claim)
        outcome = await report(site, submission, _abandoned(submission.pk, state))
        await record.fn(cluster, submission, claim, outcome)
        logger.warning(outcome.sentence)
    except EvaluationError as error:
        logger.error("What run %s left behind could not be cleaned up: %s", flow_run.name, error)


def _abandoned(submission: int, state: State[Any]) -> Outcome:
    stopped = state.type is StateType.CANCELLED
    happened = "a host stopped its run in Prefect" if stopped else f"its run broke: {state.message or state.name}"
    sentence = (
        f"Submission {submission} failed: {happened}. This was not the agent's fault. "
        "The routes that are driven are kept: a host can resume the submission."
    )
    return Outcome(Ending.FAILED, sentence, Fault.INFRASTRUCTURE)
