"""The main job: one message in, one outcome out. The Step Function's states stand beside what replaces them."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from evaluation.errors import AlreadyClaimed, EvaluationError, PermanentError, SubmissionCancelled
from evaluation.outcome import Outcome, cancelled, failed, may_run, skipped
from evaluation.ports import Claim
from evaluation.shards import ShardJob
from evaluation.submission import Delivery, Submission, SubmissionMessage, SubmissionStatus, Succession
from flows.admission import acknowledge, choose_cluster, claim_submission, enrich, hold, set_aside
from flows.board import StateName, announce, end_state
from flows.hooks import abandon, start_again
from flows.reporting import merge_results, record, report, results_so_far
from flows.simulation import launch_shards, mark_running, plan_shards, remove_jobs, watch_shards
from flows.site import Cluster, Site, load_site


@flow(
    name="evaluate-submission",
    flow_run_name="submission-{message.submission_pk}",
    on_failure=[abandon],
    on_crashed=[start_again],
    on_cancellation=[abandon],
)
async def evaluate_submission(
    message: SubmissionMessage, delivery: Delivery | None = None, succession: Succession | None = None
) -> State[Any]:
    """Evaluate one submission and tell EvalAI, the ledger and the UI how it ended.

    `delivery` says where the message lies, so that it is deleted once the submission is claimed; without it (a run
    started by hand) there is nothing to delete. A duplicate of a claimed message ends as a no-op. `succession` is for a
    run that takes over from one whose process died: it holds the same claim and adopts the shards that still run.
    """
    site = await load_site()
    await hold(site, delivery)  # nobody else gets the message while this run claims the submission
    try:
        submission = await enrich(site, message)  # PreEKS
        cluster = await choose_cluster(submission.phase)  # Choice: leaderboard-10 or leaderboard-20
        claim = await claim_submission(cluster, submission, succession)  # exactly one run goes on
    except AlreadyClaimed as taken:
        await acknowledge(site, delivery)
        return Completed(name=StateName.DUPLICATE, message=str(taken))
    except PermanentError as error:
        await set_aside(site, message, delivery, error)  # dead-letter queue, with the reason
        return Failed(name=StateName.REJECTED, message=str(error))
    await acknowledge(site, delivery)  # from here on the ledger holds the submission
    await announce(submission, claim)

    outcome = await simulate(site, cluster, submission, claim)
    outcome = await report(site, submission, outcome)  # PostEKS
    await record(cluster, submission, claim, outcome)
    return await end_state(submission, outcome)


async def simulate(site: Site, cluster: Cluster, submission: Submission, claim: Claim) -> Outcome:
    """From the Choice to the results: every way out of here is an outcome that can be reported."""
    if submission.status is SubmissionStatus.CANCELLED:
        return cancelled("The team cancelled the submission before it started.")
    if not may_run(submission.status, claim.again):
        return skipped(submission)
    jobs: tuple[ShardJob, ...] = ()
    try:
        jobs = await plan_shards(cluster, submission, claim)
        await mark_running(site, cluster, submission, claim)
        try:
            await launch_shards(cluster, jobs)  # EKS Run Job, one Job a shard
            await watch_shards(site, cluster, submission, jobs)
        finally:
            await remove_jobs(cluster, claim)  # Remove Job, on every path
        return await merge_results(cluster, submission, jobs)
    except SubmissionCancelled as taken_back:
        return cancelled(str(taken_back), await results_so_far(cluster, submission, jobs))
    except EvaluationError as error:
        return failed(submission, error, await results_so_far(cluster, submission, jobs))
