"""The reconciler on a real Prefect server: what it finds, what it does, and that doing it twice does it once."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed, Running, State

from deployments.operator_notifications import notify_operators
from evaluation.errors import EvaluationError, InvalidConfiguration, ServiceUnavailable
from evaluation.shards import RoutePlan, ShardJob, plan_routes, render_plan
from evaluation.submission.model import SubmissionStatus, parse_phase
from flows.evaluate_submission import evaluate_submission
from flows.hooks import start_takeover
from flows.reconciler.actions import mark_dead_reconciler_runs_crashed
from flows.reconciler.explain_submission import explain_submission
from flows.reconciler.flow import preview, reconcile
from flows.reconciler.prefect_runs import runs_of as runs_by_submission
from prefect_api.events import OutgoingEvent
from tests.flows.conftest import World
from tests.flows.test_evaluate_submission import run

LONG_AGO = datetime.now(UTC) - timedelta(hours=2)


@pytest.fixture(scope="module")
def deployment(prefect_server: None) -> UUID:
    with get_client(sync_client=True) as client:
        for pool in ("reconciled", "recovery"):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        flow = client.create_flow(evaluate_submission)
        client.create_deployment(flow, "takeover", work_pool_name="recovery")
        return client.create_deployment(flow, "evaluate-submission", work_pool_name="reconciled")


PKS = count(501)


@pytest.fixture(autouse=True)
def leases_are_watched_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The observer's own time: it passes where the reconciler waits, and nowhere else."""
    passed = [0.0]

    async def sleep(seconds: float) -> None:
        passed[0] += seconds
        await asyncio.sleep(0)

    monkeypatch.setattr("flows.reconciler.lease_watching.sleep", sleep)
    monkeypatch.setattr("flows.reconciler.lease_watching.monotonic", lambda: passed[0])


@pytest.fixture
def pk() -> int:
    """A submission that no other test has left runs of."""
    return next(PKS)


def claimed(world: World, pk: int, lease_until: datetime, **more: Any) -> None:
    world.ledger.rows[pk] = {
        "team-id": "1", "submission-id": str(pk), "challenge-id": "1", "phase-id": "1", "cluster": "leaderboard-20",
        "phase": "leaderboard-20-SENSORS", "image": "demo/agent:steady", "attempt": 1, "claim-owner": f"first-{pk}",
        "claim-key": "", "claim-epoch": 1, "claimed-at": LONG_AGO, "stage": "simulating", "stage-since": LONG_AGO,
        "lease-until": lease_until, "status": "running", **more,
    }  # fmt: skip


def runs_of(pk: int) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["evaluate-submission"])),
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=f"submission-{pk}")),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )
    return found


def look() -> State[None]:
    return asyncio.run(reconcile(return_state=True))


@pytest.mark.usefixtures("deployment")
def test_a_claim_that_nobody_renews_gets_one_takeover_run(world: World, pk: int) -> None:
    claimed(world, pk, LONG_AGO)
    world.evalai.statuses[pk] = SubmissionStatus.RUNNING

    states = [look(), look()]

    [takeover] = runs_of(pk)
    assert takeover.work_pool_name == "recovery"
    assert takeover.parameters["takeover"]["owner"] == f"first-{pk}"
    assert takeover.parameters["takeover"]["epoch"] == 2
    assert takeover.parameters["message"]["submission_pk"] == pk
    assert [state.message for state in states] == [
        "1 submissions: 1 repairs, 0 for an operator.",
        "1 submissions: 0 repairs, 0 for an operator.",
    ]


@pytest.mark.usefixtures("deployment")
def test_the_takeover_run_finishes_what_the_dead_run_began(world: World, pk: int) -> None:
    claimed(world, pk, LONG_AGO)
    world.evalai.statuses[pk] = SubmissionStatus.RUNNING
    look()
    [takeover] = runs_of(pk)

    state = asyncio.run(evaluate_submission(**_typed(takeover), return_state=True))

    assert state.is_completed()
    assert world.evalai.statuses[pk] is SubmissionStatus.FINISHED
    assert world.ledger.rows[pk]["attempt"] == 1
    assert look().message == "1 submissions: 0 repairs, 0 for an operator."


@pytest.mark.usefixtures("deployment")
def test_a_submission_that_was_never_queued_is_started_once(world: World, pk: int) -> None:
    world.evalai.statuses[pk] = SubmissionStatus.SUBMITTED
    world.evalai.since[pk] = LONG_AGO

    look()
    look()

    [only] = runs_of(pk)
    assert only.work_pool_name == "reconciled"
    assert only.parameters["message"] == {
        "challenge_pk": 1,
        "phase_pk": 1,
        "submission_pk": pk,
        "submitted_image_uri": None,
    }


@pytest.mark.usefixtures("deployment")
def test_a_phase_that_is_not_ours_does_not_keep_dead_runs_from_being_followed(world: World, pk: int) -> None:
    claimed(world, pk, LONG_AGO)
    elsewhere = next(PKS)
    world.evalai.statuses = {pk: SubmissionStatus.RUNNING, elsewhere: SubmissionStatus.SUBMITTED}
    world.evalai.since[elsewhere] = LONG_AGO
    world.evalai.phases[elsewhere] = 9

    state = look()

    assert (len(runs_of(pk)), len(runs_of(elsewhere))) == (1, 0)
    assert state.message == "2 submissions: 1 repairs, 1 for an operator."


@pytest.mark.usefixtures("deployment")
def test_a_run_that_lives_and_is_stuck_loses_its_claim_to_a_takeover_run(
    world: World, pk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ledger.lease_seconds = 2
    message, delivery = world.submitted(pk)
    ensure, stuck = world.backend.ensure, asyncio.Event()

    async def hangs_once(jobs: Sequence[ShardJob]) -> None:
        if not stuck.is_set():
            stuck.set()
            await asyncio.sleep(3600)
        await ensure(jobs)

    monkeypatch.setattr(world.backend, "ensure", hangs_once)

    async def drill() -> list[State[Any]]:
        first = asyncio.create_task(evaluate_submission(message, delivery, return_state=True))
        await stuck.wait()
        world.ledger.rows[pk].update({"stage-since": datetime.now(UTC) - timedelta(hours=4), "phase-id": "1"})
        looks = [await reconcile(return_state=True) for _ in range(2)]
        [takeover] = [run for run in runs_of(pk) if run.parameters["takeover"]]
        second = await evaluate_submission(**_typed(takeover), return_state=True)
        return [*looks, second, await first]

    first_look, second_look, second, first = asyncio.run(drill())

    assert first_look.message == "1 submissions: 1 repairs, 1 for an operator."
    assert second_look.message == "1 submissions: 0 repairs, 1 for an operator."
    assert (first.name, second.name) == ("TakenOver", "Completed")
    assert world.ledger.rows[pk]["attempt"] == 1
    assert [report.status for report in world.evalai.reports] == [SubmissionStatus.FINISHED]


def test_more_runs_than_prefect_gives_at_once_are_all_seen(
    deployment: UUID, pk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = {"challenge_pk": 1, "phase_pk": 1, "submission_pk": pk}
    with get_client(sync_client=True) as client:
        made = {
            str(client.create_flow_run_from_deployment(deployment, parameters={"message": message}).id)
            for _ in range(3)
        }
    monkeypatch.setattr("prefect_api.runs.PAGE", 2)

    async def seen() -> set[str]:
        async with get_client() as client:
            return {run.id for run in (await runs_by_submission(client, []))[pk]}

    assert asyncio.run(seen()) == made


@pytest.mark.usefixtures("deployment")
def test_an_outage_of_evalai_does_not_keep_dead_runs_from_being_followed(world: World, pk: int) -> None:
    claimed(world, pk, LONG_AGO)
    world.evalai.trouble = [ServiceUnavailable("EvalAI does not answer")]

    state = look()

    assert len(runs_of(pk)) == 1
    assert state.message == "1 submissions: 1 repairs, 1 for an operator."


def test_jobs_that_were_left_behind_are_removed(world: World, pk: int) -> None:
    asyncio.run(_leave_jobs(world, pk))
    claimed(world, pk, LONG_AGO, **{"end-time": LONG_AGO, "status": "finished"})

    look()

    assert world.backend.jobs == {}
    assert (pk, 1) in world.backend.removed


@pytest.mark.usefixtures("deployment")
def test_a_report_that_evalai_has_lost_is_sent_again(world: World, pk: int) -> None:
    run(*world.submitted(pk))
    world.ledger.rows[pk]["end-time"] = LONG_AGO
    world.evalai.statuses[pk] = SubmissionStatus.RUNNING  # a backup was restored there

    look()
    [_, takeover] = runs_of(pk)
    state = asyncio.run(evaluate_submission(**_typed(takeover), return_state=True))

    assert state.is_completed()
    assert [report.status for report in world.evalai.reports] == [SubmissionStatus.FINISHED] * 2
    assert len(world.backend.created) == 4


@pytest.mark.parametrize(("ended", "stopped"), [(Crashed(message="OOM"), False), (Cancelled(), True)])
def test_the_hooks_start_the_same_takeover_run_as_the_reconciler(
    world: World, deployment: UUID, pk: int, ended: State[None], stopped: bool
) -> None:
    message, _ = world.submitted(pk)
    parameters = {"message": message.model_dump(), "delivery": None, "takeover": None}
    with get_client(sync_client=True) as client:
        first = client.create_flow_run_from_deployment(deployment, parameters=parameters, name=f"submission-{pk}")
        client.set_flow_run_state(first.id, Running(), force=True)
        client.set_flow_run_state(first.id, ended, force=True)
        claimed(world, pk, LONG_AGO, **{"claim-owner": str(first.id)})

        asyncio.run(start_takeover(evaluate_submission, client.read_flow_run(first.id), ended))
        look()

    [_, takeover] = runs_of(pk)
    assert takeover.parameters["takeover"] == {
        "owner": str(first.id),
        "epoch": 2,
        "crashes": 0 if stopped else 1,
        "stopped": stopped,
        "after_silence": False,
    }


def test_a_zombie_in_prefect_is_shown_as_crashed(world: World, deployment: UUID, pk: int) -> None:
    message, _ = world.submitted(pk)
    parameters = {"message": message.model_dump(), "delivery": None, "takeover": None}
    with get_client(sync_client=True) as client:
        first = client.create_flow_run_from_deployment(deployment, parameters=parameters, name=f"submission-{pk}")
        client.set_flow_run_state(first.id, Running(), force=True)
        claimed(world, pk, LONG_AGO, **{"claim-owner": str(first.id)})

        look()

        state = client.read_flow_run(first.id).state
    assert state is not None
    assert (state.type, "must have died" in (state.message or "")) == (StateType.CRASHED, True)


def test_a_look_of_the_reconcilers_that_never_ended_is_shown_as_crashed() -> None:
    with get_client(sync_client=True) as client:
        dead = client.create_flow_run(reconcile, state=Running())

        asyncio.run(mark_dead_reconciler_runs_crashed(timedelta(hours=1)))
        young = client.read_flow_run(dead.id).state
        asyncio.run(mark_dead_reconciler_runs_crashed(timedelta(seconds=-2)))  # of whole seconds
        old = client.read_flow_run(dead.id).state

    assert (young and young.type, old and old.type) == (StateType.RUNNING, StateType.CRASHED)


def test_why_a_running_submission_is_where_it_is(world: World, pk: int) -> None:
    claimed(world, pk, datetime.now(UTC) + timedelta(minutes=3))
    planned(world, pk)

    explained = asyncio.run(_explained(world, pk))

    assert explained["where"] == "its shards are being simulated (attempt 1, epoch 1)"
    assert explained["waits for"].startswith("20 routes more, 0 of 20 are driven; shard 0 is starting")
    assert explained["next"] == "the Jobs are removed and the results merged"


def test_why_a_dead_submission_is_where_it_is(world: World, pk: int) -> None:
    claimed(world, pk, LONG_AGO)

    explained = asyncio.run(_explained(world, pk))

    assert explained["where"].startswith("its run seems dead, the reconciler watches it for 3 min")
    assert explained["problem"].endswith("A takeover run (epoch 2) is started.")


def test_what_nobody_knows_is_said(world: World, pk: int) -> None:
    assert asyncio.run(_explained(world, pk)) == {
        "where": "neither EvalAI nor the ledger knows it",
        "next": "check the submission's id",
    }


def test_a_dry_look_changes_nothing(world: World, pk: int) -> None:
    claimed(world, pk, LONG_AGO)

    async def only_look() -> list[str]:
        rows, _ = await preview(await world.load_services())
        return [row["action"] for row in rows]

    assert asyncio.run(only_look()) == ["take over"]
    assert runs_of(pk) == []


async def _explained(world: World, pk: int) -> dict[str, str]:
    return dict((await explain_submission(await world.load_services(), pk)).lines)


def planned(world: World, pk: int) -> None:
    plan = render_plan(plan_routes(tuple(range(20)), 4, 1, RoutePlan.FIXED))
    world.store.write(f"{pk}/plan.json", plan.encode(), "application/json")


async def _leave_jobs(world: World, pk: int) -> None:
    jobs = world.settings.shard_jobs(
        pk,
        1,
        parse_phase("leaderboard-20-SENSORS"),
        "Team",
        "demo/agent:steady",
        plan_routes((0, 1, 2, 3), 4, 1, RoutePlan.FIXED),
    )
    await world.backend.ensure(jobs)


def _typed(flow_run: FlowRun) -> dict[str, Any]:
    return evaluate_submission.validate_parameters(flow_run.parameters)


@dataclass
class Publisher:
    """Prefect's events; `refusals` are raised by the next rings."""

    refusals: list[EvaluationError] = field(default_factory=list)
    payloads: list[Mapping[str, object]] = field(default_factory=list)

    def publish(self, event: OutgoingEvent) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.payloads.append(event.payload)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    publisher = Publisher()
    monkeypatch.setattr("flows.reconciler.flow.prefect_events", lambda: nullcontext(publisher))
    return publisher


def test_a_host_is_told_once_of_what_only_a_person_can_mend(world: World, pk: int, publisher: Publisher) -> None:
    world.evalai.statuses[pk] = SubmissionStatus.RUNNING  # and no run of ours has ever claimed it

    first, second = look(), look()

    assert first.message == second.message == "1 submissions: 0 repairs, 1 for an operator."
    assert publisher.payloads == [
        {
            "finding": "EvalAI says running, and no run ever claimed it. "
            "If no other system evaluates it, set it to failed at EvalAI and resume it."
        }
    ]


def test_a_host_whom_prefect_did_not_tell_is_told_at_the_next_look(world: World, pk: int, publisher: Publisher) -> None:
    world.evalai.statuses[pk] = SubmissionStatus.RUNNING
    publisher.refusals.append(ServiceUnavailable("Prefect's API does not answer"))

    look()
    assert publisher.payloads == []
    look()
    look()

    assert len(publisher.payloads) == 1


def test_a_notification_block_that_is_not_there_is_named(deployment: UUID) -> None:
    with (
        get_client(sync_client=True) as client,
        pytest.raises(InvalidConfiguration, match=r"no notification block 'slack-webhook/nobody'"),
    ):
        notify_operators(client, "slack-webhook/nobody")


@pytest.mark.usefixtures("deployment")
@pytest.mark.parametrize("ahead", [timedelta(seconds=-600), timedelta(seconds=200), timedelta(hours=5)])
def test_a_live_run_whose_clock_differs_is_left_alone(
    world: World, pk: int, ahead: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reconciler's clock is ahead of the run's; the run renews while it is watched."""
    world.ledger.now = lambda: datetime.now(UTC) - ahead
    message, _ = world.submitted(pk)
    claim = world.ledger.claim(world.evalai.submission(message, world.phases.phase(1)), f"first-{pk}")
    world.evalai.statuses[pk] = SubmissionStatus.RUNNING
    watched: list[float] = []

    async def renewed_meanwhile(seconds: float) -> None:
        watched.append(seconds)
        world.ledger.renew(claim)

    monkeypatch.setattr("flows.reconciler.lease_watching.sleep", renewed_meanwhile)

    states = [look() for _ in range(3)]

    assert [state.message for state in states] == ["1 submissions: 0 repairs, 0 for an operator."] * 3
    assert (runs_of(pk), len(watched)) == ([], 3)
    world.ledger.renew(claim)  # the claim is still the live run's


@pytest.mark.usefixtures("deployment")
def test_an_outage_of_the_ledger_while_a_lease_is_watched_takes_nothing_away(
    world: World, pk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed(world, pk, LONG_AGO)
    world.evalai.statuses[pk] = SubmissionStatus.RUNNING

    def away(team: int, submission: int) -> None:
        raise ServiceUnavailable("DynamoDB does not answer")

    monkeypatch.setattr(world.ledger, "row", away)

    assert look().message == "1 submissions: 0 repairs, 0 for an operator."
    assert runs_of(pk) == []


@pytest.mark.usefixtures("deployment")
def test_another_end_that_a_late_write_left_at_evalai_is_overwritten_once(world: World, pk: int) -> None:
    run(*world.submitted(pk))
    world.ledger.rows[pk]["end-time"] = LONG_AGO
    world.evalai.statuses[pk] = SubmissionStatus.FAILED  # of a run that had slept

    look()
    [_, takeover_run] = runs_of(pk)
    state = asyncio.run(evaluate_submission(**_typed(takeover_run), return_state=True))
    assert state.is_completed()
    assert world.evalai.statuses[pk] is SubmissionStatus.FINISHED

    world.ledger.rows[pk]["end-time"] = LONG_AGO
    world.evalai.statuses[pk] = SubmissionStatus.FAILED  # now somebody means it
    assert look().message == "1 submissions: 0 repairs, 1 for an operator."
    assert world.evalai.statuses[pk] is SubmissionStatus.FAILED


@pytest.mark.usefixtures("deployment")
def test_a_report_that_arrived_after_the_list_was_read_is_not_sent_again(world: World, pk: int) -> None:
    run(*world.submitted(pk))
    world.ledger.rows[pk]["end-time"] = LONG_AGO
    listed = world.evalai.submissions

    def stale_list(*asked: Any) -> Any:
        rows = listed(*asked)
        rows[0].status = SubmissionStatus.RUNNING
        return rows

    world.evalai.submissions = stale_list  # type: ignore[method-assign]
    look()

    assert len(runs_of(pk)) == 1
    assert "report-resends" not in world.ledger.rows[pk]


@pytest.mark.parametrize("status", ["queued", "running", "partially_evaluated"])
def test_what_nobody_here_claimed_and_evalai_calls_running_is_evaluated_or_stays_reported(
    world: World, pk: int, publisher: Publisher, status: str
) -> None:
    world.evalai.since[pk] = datetime.now(UTC) - timedelta(days=3)
    message, delivery = world.submitted(pk)
    world.evalai.statuses[pk] = SubmissionStatus(status)
    run(message, delivery)
    if row := world.ledger.rows.get(pk):
        row["end-time"] = datetime.now(UTC) - timedelta(days=2)

    state = look()

    still = world.evalai.statuses[pk] is SubmissionStatus(status)
    assert state.message == f"1 submissions: 0 repairs, {int(still)} for an operator."
    assert not still or "no run ever claimed it" in str(publisher.payloads)


@pytest.mark.usefixtures("deployment")
def test_rows_that_make_no_sense_are_named_and_hide_no_other(world: World, pk: int) -> None:
    broken = next(PKS)
    claimed(world, pk, LONG_AGO)
    claimed(world, broken, LONG_AGO, **{"phase-id": "x"})
    world.ledger.rows[next(PKS)] = {"submission-id": "?", "claim-owner": "somebody"}
    world.evalai.unreadable = ["EvalAI's answer about submission 9 cannot be read: its status is 'asleep'."]

    state = look()

    assert state.message == "2 submissions: 1 repairs, 3 for an operator."
    assert (len(runs_of(pk)), len(runs_of(broken))) == (1, 0)


def test_an_outage_of_evalai_is_no_submission_that_nobody_knows(world: World, pk: int) -> None:
    world.evalai.trouble = [ServiceUnavailable("EvalAI does not answer")]
    explained = asyncio.run(_explained(world, pk))
    assert explained["where"] == "EvalAI did not answer, and the ledger does not know it"
    assert "EvalAI's list is missing" in explained["problem"]


@pytest.mark.usefixtures("deployment")
def test_a_late_write_is_seen_though_the_submission_is_older_than_what_evalai_lists(world: World, pk: int) -> None:
    run(*world.submitted(pk))
    world.ledger.rows[pk]["end-time"] = LONG_AGO
    world.evalai.since[pk] = datetime.now(UTC) - timedelta(days=400)  # and resumed lately
    world.evalai.statuses[pk] = SubmissionStatus.PARTIALLY_EVALUATED

    assert look().message == "1 submissions: 1 repairs, 0 for an operator."


def test_what_was_submitted_long_ago_and_has_ended_is_not_asked_for(world: World, pk: int) -> None:
    old = datetime.now(UTC) - timedelta(days=400)
    claimed(world, pk, old, **{"end-time": old.isoformat(), "status": "finished"})
    asked: list[Any] = []
    listed = world.evalai.submissions

    def submissions(challenge: int, since: datetime | None = None, also: Any = ()) -> Any:
        asked.append((since, set(also)))
        return listed(challenge, since, also)

    world.evalai.submissions = submissions  # type: ignore[method-assign]

    look()

    [(since, also)] = asked
    assert since is not None
    assert datetime.now(UTC) - since < timedelta(days=8)
    assert also == set()


def test_a_claim_made_after_the_ledger_was_read_is_no_submission_that_nobody_claimed(world: World, pk: int) -> None:
    world.evalai.since[pk] = LONG_AGO
    listed = world.evalai.submissions

    def claimed_meanwhile(*asked: Any) -> Any:
        claimed(world, pk, datetime.now(UTC) + timedelta(minutes=3))
        world.evalai.statuses[pk] = SubmissionStatus.RUNNING
        return listed(*asked)

    world.evalai.submissions = claimed_meanwhile  # type: ignore[method-assign]

    assert look().message == "1 submissions: 0 repairs, 0 for an operator."
