"""The main job: one message in, one outcome out. The Step Function's states stand beside what replaces them."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from evaluation.errors import AlreadyClaimed, NeedsOperator, SubmissionCancelled, SubmissionFailed, TransientError
from evaluation.lifecycle.outcome import Outcome, attempts_used_up, cancelled, failed, reason_not_to_run
from evaluation.lifecycle.takeover import Takeover
from evaluation.ports import Claim
from evaluation.shards import ShardJob
from evaluation.submission.message import Delivery, SubmissionMessage
from evaluation.submission.model import Submission
from flows.hooks import start_takeover
from flows.intake import acknowledge, choose_cluster, claim_submission, enrich, extend_visibility, reject_message
from flows.lease import lease
from flows.progress_display import end_state, name_flow_run
from flows.reporting import keep_outcome, kept_outcome, merge_results, record, report, results_so_far
from flows.services import Cluster, Services, load_services
from flows.simulation import launch_shards, mark_running, plan_shards, remove_jobs, watch_shards
from prefect_api.states import StateName


@flow(
    name="evaluate-submission",
    flow_run_name="submission-{message.submission_pk}",
    on_failure=[start_takeover],
    on_crashed=[start_takeover],
    on_cancellation=[start_takeover],
)
async def evaluate_submission(
    message: SubmissionMessage, delivery: Delivery | None = None, takeover: Takeover | None = None
) -> State[Any]:
    """Evaluate one submission and tell EvalAI, the ledger and the UI how it ended.

    `delivery` says where the message lies, so that it is deleted once the submission is claimed; without it (a run
    started by hand) there is nothing to delete. A duplicate of a claimed message ends as a no-op. `takeover` is for a
    run that goes on with what another began: it takes over the claim and adopts the shards that still run.
    """
    services = await load_services()
    try:
        await extend_visibility(services, delivery)  # nobody else gets the message while this run claims the submission
        submission = await enrich(services, message)  # PreEKS
        cluster = await choose_cluster(submission.phase)  # Choice: leaderboard-10 or leaderboard-20
        claim = await claim_submission(cluster, submission, takeover)  # exactly one run goes on
        await acknowledge(services, delivery)  # from here on the ledger holds the submission
    except AlreadyClaimed as taken:
        await acknowledge(services, delivery)
        return Completed(name=StateName.DUPLICATE, message=str(taken))
    except SubmissionFailed as error:
        await reject_message(services, message, delivery, error)  # dead-letter queue, with the reason
        return Failed(name=StateName.REJECTED, message=str(error))
    except NeedsOperator as error:
        return Failed(name=StateName.BLOCKED, message=f"{error} The message comes back by itself.")
    except TransientError as outage:
        return Failed(name=StateName.POSTPONED, message=f"{outage} The message comes back by itself.")
    await name_flow_run(submission, claim)
    try:
        outcome = await evaluate(services, cluster, submission, claim, takeover)
    except AlreadyClaimed as taken:
        return Completed(name=StateName.TAKEN_OVER, message=str(taken))
    except TransientError as outage:
        return Failed(name=StateName.INTERRUPTED, message=f"{outage} Another run goes on with it by itself.")
    except NeedsOperator as error:
        return Failed(name=StateName.BLOCKED, message=f"{error} Then another run goes on with it by itself.")
    return await end_state(submission, outcome, cluster.settings.logs_of(submission.pk, claim.attempt))


async def evaluate(
    services: Services, cluster: Cluster, submission: Submission, claim: Claim, takeover: Takeover | None
) -> Outcome:
    """Decide the outcome once, keep it, then tell everybody.

    Raises AlreadyClaimed; TransientError in outages, and NeedsOperator: neither is a reason to fail anybody.
    """
    async with lease(cluster.ledger, claim):
        outcome = await kept_outcome(cluster, submission, claim)
        if outcome is None:
            outcome = await simulate(services, cluster, submission, claim, takeover)
            await keep_outcome(cluster, submission, claim, outcome)
        outcome = await report(services, cluster, submission, claim, outcome)  # PostEKS
        await record(cluster, submission, claim, outcome)
        return outcome


async def simulate(
    services: Services, cluster: Cluster, submission: Submission, claim: Claim, takeover: Takeover | None
) -> Outcome:
    """From the Choice to the results: every way out that is not our own trouble is an outcome that can be reported."""
    unwanted = reason_not_to_run(submission, claim.is_takeover, takeover)
    if unwanted := unwanted or attempts_used_up(submission, claim.attempt, cluster.settings.max_attempts):
        await remove_jobs(cluster, claim)
        return unwanted
    jobs: tuple[ShardJob, ...] = ()
    try:
        jobs = await plan_shards(cluster, submission, claim)
        await mark_running(services, cluster, submission, claim)
        try:
            await launch_shards(cluster, claim, jobs)  # EKS Run Job, one Job a shard
            await watch_shards(services, cluster, submission, claim, jobs)
        except (SubmissionFailed, SubmissionCancelled):  # else the shards drive on, and a successor adopts them
            await remove_jobs(cluster, claim)
            raise
        await remove_jobs(cluster, claim)  # Remove Job
        return await merge_results(cluster, submission, claim, jobs)
    except SubmissionCancelled as taken_back:
        return cancelled(str(taken_back), await results_so_far(cluster, submission, jobs))
    except SubmissionFailed as error:
        return failed(submission, error, await results_so_far(cluster, submission, jobs))
