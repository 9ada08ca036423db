"""The main job: one message in, one outcome out. The Step Function's states stand beside what replaces them."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from evaluation.errors import (
    AlreadyClaimed,
    EvaluationError,
    NeedsOperator,
    SubmissionCancelled,
    SubmissionFailed,
    TransientError,
)
from evaluation.lifecycle.outcome import Outcome, attempts_used_up, cancelled, failed, reason_not_to_run
from evaluation.lifecycle.takeover import Takeover
from evaluation.lifecycle.team_hints import hints
from evaluation.submission.message import Delivery, SubmissionMessage
from flows.best_effort import best_effort
from flows.evaluation_context import EvaluationContext
from flows.gpu_usage import beyond_budget
from flows.hooks import start_takeover
from flows.intake import acknowledge, choose_cluster, claim_submission, end_unclaimed, enrich, extend_visibility
from flows.lease import lease
from flows.progress_display import end_state, name_flow_run
from flows.report_pages import write_report_pages
from flows.reporting import keep_outcome, kept_outcome, merge_results, record, report, results_so_far
from flows.run_options import without_results
from flows.services import Services, load_services
from flows.shard_runs import shard_runs
from flows.simulation import launch_shards, plan_shards, remove_jobs, watch_shards
from prefect_api.states import StateName, completed_state, failed_state


@flow(
    name="evaluate-submission",
    flow_run_name="submission-{message.submission_pk}",
    on_failure=[start_takeover],
    on_crashed=[start_takeover],
    on_cancellation=[start_takeover],
    **without_results(),
)
async def evaluate_submission(
    message: SubmissionMessage, delivery: Delivery | None = None, takeover: Takeover | None = None
) -> State[Any]:
    """Evaluate one submission and report to EvalAI, the ledger and the UI how it ended.

    `delivery` says where the message is, so that it is deleted once the submission is claimed; without it (a run
    started by hand) there is nothing to delete. A duplicate of a claimed message ends as a no-op. `takeover` is for a
    run that continues what another began: it takes over the claim and adopts the shards that still run.
    """
    services: Services | None = None
    try:
        services = await load_services()
        await extend_visibility(services, delivery)  # no other run gets the message before the claim
        submission = await enrich(services, message, takeover)  # PreEKS
        cluster = await choose_cluster(submission.phase)  # Choice: leaderboard-10 or leaderboard-20
        claim = await claim_submission(cluster, submission, takeover)  # exactly one run continues
    except EvaluationError as reason:
        return await end_unclaimed(services, message, delivery, reason)
    context = EvaluationContext(services, cluster, submission, claim, takeover)
    with best_effort("The message comes back, and another run deletes it"):
        await acknowledge(services, delivery)  # from here on the ledger holds the submission
    try:
        return await end_state(context, await evaluate(context))
    except AlreadyClaimed as taken:
        return completed_state(StateName.TAKEN_OVER, str(taken))
    except TransientError as outage:
        return failed_state(StateName.INTERRUPTED, f"{outage} Another run continues the evaluation.")
    except NeedsOperator as reason:
        return failed_state(StateName.BLOCKED, f"{reason} Once that is corrected, another run continues.")


async def evaluate(context: EvaluationContext) -> Outcome:
    """Decide the outcome once, keep it, then report it everywhere.

    Raises AlreadyClaimed; TransientError in outages, and NeedsOperator: neither is a reason to fail anybody.
    """
    async with lease(context.ledger, context.claim):
        outcome = await kept_outcome(context)
        if outcome is None:
            outcome = await keep_outcome(context, await simulate(context))
        outcome = await report(context, outcome)  # PostEKS
        await write_report_pages(context, outcome)
        await record(context, outcome)
        return outcome


async def simulate(context: EvaluationContext) -> Outcome:
    """From the Choice to the results: every end that the submission causes is an outcome that can be reported.

    In an outage, or where an operator has to act, the shards drive on, and a takeover run adopts them.
    """
    submission, claim = context.submission, context.claim
    unwanted = reason_not_to_run(submission, claim.is_takeover, context.takeover)
    unwanted = unwanted or attempts_used_up(submission, claim.attempt, context.settings.max_attempts)
    if unwanted := unwanted or await beyond_budget(context):
        await remove_jobs(context)
        return unwanted
    try:
        context.jobs = await plan_shards(context)
        await launch_shards(context)  # EKS Run Job, one Job a shard
        await name_flow_run(context)
        async with shard_runs(context) as runs:  # a task run for each
            await watch_shards(context, runs)
        await remove_jobs(context)  # Remove Job
        return await merge_results(context)
    except SubmissionCancelled as taken_back:
        await remove_jobs(context)
        return cancelled(str(taken_back), await results_so_far(context))
    except SubmissionFailed as failure:
        await remove_jobs(context)
        return failed(submission, failure, await results_so_far(context), hints(failure, context.team_rules))
