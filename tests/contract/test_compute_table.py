"""Leases on jobs: one holder at a time, one outcome for ever, whatever the order of events."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from compute_client.job import (
    Abandoned,
    AlreadyComputed,
    Held,
    JobError,
    JobFailed,
    Lease,
    ResultStatus,
    UnknownJob,
    UnreadableJob,
)
from compute_client.table import JobTable
from evaluation.errors import AlreadyClaimed, ServiceUnavailable
from tests.contract.compute_harness import ComputeAws

LEASE = 60


@pytest.fixture
def harness(aws: dict[str, Any]) -> ComputeAws:
    harness = ComputeAws(aws)
    harness.producer().post_non_blocking({"number": 4}, job_id="mine")
    return harness


def test_one_run_gets_the_job(harness: ComputeAws) -> None:
    jobs = harness.jobs()
    assert jobs.claim("mine", "first").lease.attempt == 1
    with pytest.raises(Held, match="Job mine is being computed: by run first") as held:
        jobs.claim("mine", "second")
    assert LEASE - 5 < held.value.seconds_left <= LEASE
    with pytest.raises(UnknownJob):
        jobs.claim("nobody's", "first")


def test_a_lease_that_is_not_renewed_passes_on_with_all_its_rights(harness: ComputeAws) -> None:
    jobs = harness.jobs()
    first = jobs.claim("mine", "first").lease

    second = harness.take_over(jobs, "mine", "second").lease

    assert second.attempt == 2
    for late in (jobs.renew, lambda lease: jobs.succeed(lease, "1"), lambda lease: jobs.fail(lease, JobError("E", ""))):
        with pytest.raises(AlreadyClaimed, match="The lease of job mine has passed on"):
            late(first)
    jobs.succeed(second, "2")
    assert jobs.read("mine").result == 2


def test_a_renewed_lease_holds(harness: ComputeAws) -> None:
    jobs = harness.jobs()
    lease = jobs.claim("mine", "first").lease
    harness.clock.ahead = LEASE - 10
    jobs.renew(lease)
    harness.clock.ahead = LEASE + 10

    with pytest.raises(Held):
        jobs.claim("mine", "second")


def test_a_lease_that_ended_in_an_outage_of_the_table_is_its_runs_to_renew(harness: ComputeAws) -> None:
    """The message has come back meanwhile, and another run asks first, again and again."""
    jobs = harness.jobs()
    lease = jobs.claim("mine", "first").lease
    second = harness.jobs(sleep=_while_it_sleeps(harness, after=LEASE / 12, do=lambda: jobs.renew(lease)))
    for _ in range(3):
        harness.clock.ahead += 3 * LEASE  # nobody could read or write
        with pytest.raises(Held, match="Job mine is being computed: by run first"):
            second.claim("mine", "second")

    jobs.succeed(lease, "1")
    assert jobs.read("mine").result == 1


def test_outages_that_follow_each_other_within_seconds_cost_no_lease(harness: ComputeAws) -> None:
    """Each leaves a few seconds, in which the holder has not come round to renew its lease yet."""
    jobs = harness.jobs()
    lease = jobs.claim("mine", "first").lease
    stop = _while_it_sleeps(harness, after=LEASE / 15, do=_outage)
    for _ in range(5):
        harness.clock.ahead += 3 * LEASE
        with pytest.raises(ServiceUnavailable):
            harness.jobs(sleep=stop).claim("mine", "second")

    jobs.renew(lease)
    with pytest.raises(Held):
        harness.jobs().claim("mine", "second")


def test_an_answer_that_comes_late_may_hide_an_outage(harness: ComputeAws) -> None:
    jobs = harness.jobs()
    lease = jobs.claim("mine", "first").lease
    harness.clock.ahead += 3 * LEASE
    slow = harness.jobs()
    read = slow._rows.get
    slow._rows.get = lambda job_id: (harness.clock.sleep(LEASE / 2), read(job_id))[1]  # type: ignore[method-assign]

    with pytest.raises(Held, match=r"DynamoDB took 30\.\d s to say whether run first lives"):
        slow.claim("mine", "second")

    jobs.succeed(lease, "1")


def _while_it_sleeps(harness: ComputeAws, after: float, do: Callable[[], None]) -> Callable[[float], None]:
    """A sleep for a run that watches a lease; so many seconds after it began, something happens."""
    began: list[float] = []

    def sleep(seconds: float) -> None:
        began.append(harness.clock.ahead)
        harness.clock.sleep(seconds)
        if harness.clock.ahead - began[0] >= after:
            began.clear()
            do()

    return sleep


def _outage() -> None:
    raise ServiceUnavailable("DynamoDB does not answer")


def test_a_silent_run_on_the_last_attempt_is_watched_too(harness: ComputeAws) -> None:
    jobs = harness.jobs(most_attempts=1)
    jobs.claim("mine", "first")

    with pytest.raises(Abandoned):
        harness.take_over(jobs, "mine", "second")


def test_the_same_run_may_claim_again(harness: ComputeAws) -> None:
    """The answer to its first try may have been lost."""
    jobs = harness.jobs()
    lost = jobs.claim("mine", "first").lease

    again = jobs.claim("mine", "first").lease

    jobs.succeed(again, "1")
    with pytest.raises(AlreadyClaimed):
        jobs.succeed(lost, "2")


def test_an_outcome_may_be_written_twice_but_only_the_same(harness: ComputeAws) -> None:
    jobs = harness.jobs()
    lease = jobs.claim("mine", "first").lease
    jobs.succeed(lease, "1")
    jobs.succeed(lease, "1")  # the first answer was lost
    with pytest.raises(AlreadyClaimed):
        jobs.fail(lease, JobError("E", ""))
    with pytest.raises(AlreadyComputed, match="it is SUCCESS"):
        jobs.claim("mine", "second")
    assert jobs.read("mine").result == 1


def test_what_is_given_back_is_free_at_once_and_not_renewed_by_a_late_heartbeat(harness: ComputeAws) -> None:
    jobs = harness.jobs(most_attempts=1)
    lease = jobs.claim("mine", "first").lease

    jobs.give_back(lease, counted=False)

    with pytest.raises(AlreadyClaimed):
        jobs.renew(lease)
    assert jobs.claim("mine", "second").lease.attempt == 1


def test_a_job_that_kills_its_runs_is_given_up(harness: ComputeAws) -> None:
    jobs = harness.jobs(most_attempts=2)
    for run in ("first", "second"):
        jobs.give_back(jobs.claim("mine", run).lease, counted=True)

    with pytest.raises(Abandoned, match="Job mine is given up: 2 runs ended without a result: the last one was second"):
        jobs.claim("mine", "third")

    with pytest.raises(JobFailed, match="Abandoned: 2 runs ended without a result"):
        _ = jobs.read("mine").result
    with pytest.raises(AlreadyComputed):
        jobs.claim("mine", "fourth")


def test_the_last_run_is_not_given_up_while_it_lives(harness: ComputeAws) -> None:
    jobs = harness.jobs(most_attempts=1)
    lease = jobs.claim("mine", "first").lease
    with pytest.raises(Held):
        jobs.claim("mine", "second")
    jobs.succeed(lease, "1")
    assert jobs.read("mine").result == 1


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"job_status": {"S": "DONE"}}, "'DONE' is not a valid ResultStatus"),
        ({"expires_at": {"S": "soon"}}, "expires_at is 'soon', no number"),
        ({"attempts": {"NULL": True}}, "attempts is None, no number"),
        ({"lease_until": {"BOOL": True}}, "lease_until is True, no number"),
        ({"submitted_at": {"L": []}}, r"submitted_at is \[\], no number"),
    ],
)
def test_a_row_that_somebody_has_changed_is_named(harness: ComputeAws, changes: dict[str, Any], cause: str) -> None:
    dynamodb, jobs = harness.client("dynamodb"), harness.jobs()
    row = dynamodb.get_item(TableName=harness.table, Key={"job_id": {"S": "mine"}})["Item"]
    dynamodb.put_item(TableName=harness.table, Item={**row, **changes})

    for asked in (jobs.read, jobs.status, lambda job: jobs.submit(job, {"number": 4}, job)):
        with pytest.raises(UnreadableJob, match=f"The row of job 'mine' makes no sense: {cause}"):
            asked("mine")
    if set(changes) & {"job_status", "attempts"}:
        with pytest.raises(UnreadableJob, match=cause):
            jobs.claim("mine", "run")


@pytest.mark.parametrize("error", ["no JSON", "[]", '{"type": "E"}', '{"kind": 1}'])
def test_an_outcome_that_somebody_has_changed_is_named(harness: ComputeAws, error: str) -> None:
    jobs = harness.jobs()
    jobs.fail(jobs.claim("mine", "run").lease, JobError("E", ""))
    dynamodb = harness.client("dynamodb")
    row = dynamodb.get_item(TableName=harness.table, Key={"job_id": {"S": "mine"}})["Item"]
    dynamodb.put_item(TableName=harness.table, Item={**row, "error_json": {"S": error}})

    with pytest.raises(UnreadableJob, match="its outcome cannot be read"):
        jobs.read("mine")


def test_rows_expire_after_the_result_and_never_under_a_run(harness: ComputeAws) -> None:
    jobs = harness.jobs(result_days=7)
    opened = float(harness.row("mine")["expires_at"])
    harness.clock.ahead = 20 * 24 * 3600
    lease = jobs.claim("mine", "first").lease
    claimed = float(harness.row("mine")["expires_at"])
    jobs.succeed(lease, "1")
    ended = float(harness.row("mine")["expires_at"])

    day = 24 * 3600
    assert [round((end - harness.clock()) / day) for end in (opened, claimed, ended)] == [10, 30, 7]


@dataclass
class Model:
    """The rules in a few lines, without DynamoDB."""

    status: ResultStatus = ResultStatus.SUBMITTED
    holder: str | None = None  # the lease's token
    until: float = 0
    outcome: object = None
    outcomes: set[object] = field(default_factory=set)

    def is_over(self, now: float) -> bool:
        """Whether another run may take the job: given back, or silent."""
        return now >= self.until


MOST = 3


class LeaseMachine(RuleBasedStateMachine):
    """Runs claim, renew, end, die and wait in any order, each by an old or a current lease."""

    make: Callable[[], tuple[ComputeAws, str]]
    leases: Bundle[Lease] = Bundle("leases")

    @initialize()
    def post(self) -> None:
        self.harness, self.job = type(self).make()
        self.now = 0.0
        self.jobs: JobTable = self.harness.jobs(most_attempts=MOST)
        self.jobs._now = lambda: 1e9 + self.now
        self.jobs._sleep = self.wait_for
        self.jobs.submit(self.job, {}, self.job)
        self.model = Model()
        self.runs = count()
        self.attempts = 0

    @rule(seconds=st.sampled_from([1, LEASE - 1, LEASE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def wait_for(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=leases)
    def claim(self) -> Any:
        model = self.model
        try:
            lease = self.jobs.claim(self.job, f"run-{next(self.runs)}").lease
        except AlreadyComputed:
            assert model.status.final
        except Held:
            assert model.status is ResultStatus.IN_PROGRESS
            assert not model.is_over(self.now)
        except Abandoned:
            assert self.attempts == MOST
            assert model.is_over(self.now)
            self._ended(ResultStatus.FAILED, "Abandoned")
        else:
            assert not model.status.final
            assert model.status is ResultStatus.SUBMITTED or model.is_over(self.now)
            self.attempts += 1
            model.status, model.holder, model.until = ResultStatus.IN_PROGRESS, lease.token, self.now + LEASE
            return lease
        return Lease(self.job, "none", 0)

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        if self._does(lambda: self.jobs.renew(lease), lease):
            self.model.until = self.now + LEASE

    @rule(lease=leases, counted=st.booleans())
    def give_back(self, lease: Lease, counted: bool) -> None:
        if self._does(lambda: self.jobs.give_back(lease, counted), lease):
            self.model.holder, self.model.until = None, self.now
            self.attempts -= not counted

    @rule(lease=leases)
    def succeed(self, lease: Lease) -> None:
        if self._does(lambda: self.jobs.succeed(lease, f'"{lease.token}"'), lease, ResultStatus.SUCCESS):
            self._ended(ResultStatus.SUCCESS, lease.token)

    @rule(lease=leases)
    def fail(self, lease: Lease) -> None:
        if self._does(lambda: self.jobs.fail(lease, JobError(lease.token, "")), lease, ResultStatus.FAILED):
            self._ended(ResultStatus.FAILED, lease.token)

    def _ended(self, status: ResultStatus, outcome: object) -> None:
        self.model.status, self.model.outcome = status, outcome
        self.model.outcomes.add(outcome)

    def _does(self, write: Callable[[], None], lease: Lease, ending: ResultStatus | None = None) -> bool:
        """Whether the write is done; it has to be, exactly where the lease holds, or where it repeats the same end."""
        holds = self.model.holder == lease.token
        may = holds and self.model.status in (ResultStatus.IN_PROGRESS, ending)
        try:
            write()
        except AlreadyClaimed:
            assert not may
            return False
        assert may
        return self.model.status is ResultStatus.IN_PROGRESS or ending is not None

    @invariant()
    def the_row_says_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        found = self.jobs.read(self.job)
        assert found.status is self.model.status
        assert len(self.model.outcomes) <= 1
        if found.status.final:
            assert (found.error.type if found.error else found.value) == self.model.outcome


def test_no_order_of_events_makes_two_outcomes(aws: dict[str, Any]) -> None:
    harness, number = ComputeAws(aws), count()

    class Machine(LeaseMachine):
        make = staticmethod(lambda: (harness, f"job-{next(number)}"))

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
