"""The table of shards: the backend's state and the pair's own progress in one row."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from evaluation.errors import Failure, Fault
from evaluation.lifecycle.shard_progress import explained, percentage, shard_progress
from evaluation.pair.protocol import Counters, PairExitCode, PairProgress, failure_of
from evaluation.shards import Budgets, Shard, ShardJob, ShardState, ShardStatus
from evaluation.submission.model import LeaderboardVersion, parse_phase

JOB = ShardJob(
    submission=7,
    attempt=1,
    shard=Shard(0, 1, (0, 1, 2, 3)),
    phase=parse_phase("leaderboard-20-MAP"),
    version=LeaderboardVersion.V2,
    repetitions=1,
    image="demo/agent:steady",
    team_name="Rocket",
    bucket="leaderboard-20",
    budgets=Budgets(),
    hang_seconds=800,
    deadline_seconds=3600,
)
PROGRESS = PairProgress(
    attempt=1,
    state=ShardState.RETRYING,
    routes_done=2,
    routes_total=4,
    route=2,
    counters=Counters(),
    exit_code=None,
    detail="restart 1 of 4",
    updated_at=datetime(2026, 11, 21, tzinfo=UTC),
)


def test_before_anything_is_known_the_shard_waits() -> None:
    [view] = shard_progress([JOB], {}, {})
    assert (view.state, view.routes_done, view.routes_total) == (ShardState.WAITING, 0, 4)


def test_while_the_job_runs_the_pair_knows_better() -> None:
    [view] = shard_progress([JOB], {0: ShardStatus(0, ShardState.DRIVING, "runs")}, {0: PROGRESS})
    assert (view.state, view.detail, view.routes_done) == (ShardState.RETRYING, "restart 1 of 4", 2)
    assert percentage([view]) == 50


def test_a_shard_that_waits_says_since_when_and_why() -> None:
    since = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
    status = ShardStatus(0, ShardState.WAITING, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu", since)
    [view] = shard_progress([JOB], {0: status}, {})
    assert view.row["since"] == "10:30:00 UTC"
    assert view.row["what it is doing"] == "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"


@pytest.mark.parametrize("state", [ShardState.RETRYING, ShardState.PULLING, ShardState.WAITING])
def test_a_pod_that_is_gone_does_not_hide_what_its_replacement_waits_for(state: ShardState) -> None:
    [view] = shard_progress([JOB], {0: ShardStatus(0, state, "no node has a free GPU")}, {0: PROGRESS})
    assert (view.state, view.detail, view.routes_done) == (state, "no node has a free GPU", 2)


def test_a_cluster_that_does_not_answer_is_said_whatever_the_pair_told() -> None:
    status = ShardStatus(0, ShardState.DRIVING, "runs", warning="the cluster has not answered since 10:00:00 UTC")
    [view] = shard_progress(
        [JOB], {0: status}, {0: replace(PROGRESS, state=ShardState.DRIVING, detail="driving route 2")}
    )
    assert view.detail == "driving route 2; the cluster has not answered since 10:00:00 UTC"


def test_a_failure_is_told_in_full() -> None:
    failure = Failure("The agent crashed", "exit code 139", "Mend it.", Fault.TEAM)
    [view] = shard_progress([JOB], {0: ShardStatus(0, ShardState.FAILED, failure=failure)}, {0: PROGRESS})
    assert view.row == {
        "shard": "0",
        "state": "failed",
        "since": "",
        "routes": "2/4",
        "what it is doing": "The agent crashed: exit code 139. Mend it.",
    }


def failed_with(failure: Failure) -> dict[int, ShardStatus]:
    return {0: ShardStatus(0, ShardState.FAILED, failure.summary, failure=failure)}


def test_the_supervisors_reason_says_more_than_the_exit_code() -> None:
    statuses = failed_with(failure_of(PairExitCode.AGENT_HANGS, "container supervisor ended with code 13"))
    progress = replace(PROGRESS, exit_code=PairExitCode.AGENT_HANGS, detail="no output for 800 s on route 2")

    [status] = explained(statuses, {0: progress}).values()

    assert status.failure == failure_of(PairExitCode.AGENT_HANGS, "no output for 800 s on route 2")


def test_a_backends_reason_stays_where_the_supervisor_knows_nothing_of_it() -> None:
    statuses = failed_with(Failure("The agent ran out of memory", "at its limit", "Use less", Fault.TEAM))

    assert explained(statuses, {}) == statuses
    assert explained(statuses, {0: PROGRESS}) == statuses
    assert explained(statuses, {0: replace(PROGRESS, exit_code=PairExitCode.PAIR_LOST)}) == statuses
