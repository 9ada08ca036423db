"""The main job, path by path: the final state of EvalAI, the ledger, the queue and the cluster."""

import asyncio
import json
import threading
from datetime import UTC, datetime

import pytest
from prefect import get_client
from prefect.artifacts import Artifact
from prefect.client.schemas.objects import State

from evaluation.errors import RequestRefused, ServiceUnavailable
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.takeover import Takeover
from evaluation.report_page.source import Audience
from evaluation.shards import ShardJob
from evaluation.submission.message import Delivery, SubmissionMessage
from evaluation.submission.model import SubmissionStatus
from flows.evaluate_submission import evaluate_submission
from flows.report_pages import made_page
from tests.fakes import AGENT_CRASHED, checkpoint_of
from tests.flows.conftest import World
from tests.waiting import eventually, eventually_in_loop


def run(message: SubmissionMessage, delivery: Delivery | None = None, takeover: Takeover | None = None) -> State[None]:
    return asyncio.run(evaluate_submission(message, delivery, takeover, return_state=True))


def page_of(submission: int) -> str:
    """What Prefect's page shows of the result."""
    artifact = Artifact.get(f"submission-{submission}-result")
    assert artifact is not None
    return str(artifact.data)


def test_a_submission_is_scored_and_nothing_is_left(world: World) -> None:
    message, delivery = world.submitted(7)

    state = run(message, delivery)

    assert state.is_completed()
    assert state.message == "Submission 7 finished: driving score 50.000 over 20 of 20 routes."
    [report] = world.evalai.reports
    assert report.status is SubmissionStatus.FINISHED
    assert report.result[0]["accuracies"]["Driving score"] == 50.0  # type: ignore[index]
    assert json.loads(report.metadata)["_checkpoint"]["progress"] == [20, 20]
    assert world.ledger.rows[7]["status"] == "finished"
    assert world.ledger.rows[7]["Driving score"] == 50.0
    [used] = world.ledger.rows[7]["usage"].values()  # type: ignore[attr-defined]
    assert (used["driving"], used["retries_agent"]) == (20 * 600, 0)
    assert world.queue.deleted == [delivery]
    assert world.backend.removed == [(7, 1)]
    assert {"7/merged.json", "7/evalai.json", "7/summary.txt", "7/plan.json"} <= set(world.store.objects)


def test_four_shards_get_five_consecutive_routes_each(world: World) -> None:
    world.backend.runs_for_ever = False
    jobs: list[ShardJob] = []
    world.backend.checkpoint = lambda job: jobs.append(job) or checkpoint_of(job)  # type: ignore[func-returns-value]

    run(*world.submitted(7))

    assert [job.shard.routes for job in jobs] == [tuple(range(start, start + 5)) for start in (0, 5, 10, 15)]


def test_a_duplicate_ends_as_a_no_op_and_its_message_is_deleted(world: World) -> None:
    message, first = world.submitted(7)
    _, second = world.submitted(7)
    run(message, first)

    state = run(message, second)

    assert (state.name, state.is_completed()) == ("Duplicate", True)
    assert "was evaluated already" in (state.message or "")
    assert world.queue.deleted == [first, second]
    assert len(world.evalai.reports) == 1
    assert len(world.backend.created) == 4


def test_a_cancelled_submission_skips_the_simulation_and_no_other_step(world: World) -> None:
    world.evalai.statuses[7] = SubmissionStatus.CANCELLED
    message, delivery = world.submitted(7)

    state = run(message, delivery)

    assert state.is_cancelled()
    assert world.backend.created == []
    assert world.ledger.rows[7]["status"] == "cancelled"
    assert world.queue.deleted == [delivery]
    assert world.evalai.statuses[7] is SubmissionStatus.CANCELLED
    assert world.evalai.reports == []


def test_a_cancellation_while_running_stops_the_shards_and_stands(world: World) -> None:
    state = world.cancelled_while_driving(*world.submitted(7))

    assert state.is_cancelled()
    assert world.backend.removed == [(7, 1)]
    assert world.evalai.statuses[7] is SubmissionStatus.CANCELLED
    assert world.evalai.reports == []
    assert world.ledger.rows[7]["status"] == "cancelled"


def test_a_missing_last_shard_is_never_called_finished(world: World) -> None:
    world.only({3: 0})

    state = run(*world.submitted(7))

    assert state.is_failed()
    assert "15 of 20 routes" in (state.message or "")
    [report] = world.evalai.reports
    assert report.status is SubmissionStatus.FAILED
    assert report.result == ()
    assert world.merged(7)["entry_status"] == "Started"
    assert world.merged(7)["_checkpoint"]["progress"] == [15, 20]  # type: ignore[index]


def not_set_up(job: ShardJob) -> bytes:
    """What both versions' evaluators leave when the agent's set-up fails on every route; they end with code 0."""
    document = json.loads(checkpoint_of(job)) | {"sensors": [], "entry_status": "Invalid"}
    for record in document["_checkpoint"]["records"]:
        record |= {"status": "Failed - Agent couldn't be set up", "num_infractions": 0}
        record |= {"infractions": {key: [] for key in record["infractions"]}}
        record |= {"scores": dict.fromkeys(record["scores"], 0.0), "meta": dict.fromkeys(record["meta"], 0.0)}
    return json.dumps(document).encode()


def test_an_agent_that_cannot_be_set_up_has_failed_although_every_route_has_its_record(world: World) -> None:
    world.backend.checkpoint = not_set_up

    state = run(*world.submitted(7))

    assert state.is_failed()
    [report] = world.evalai.reports
    assert (report.status, report.result) == (SubmissionStatus.FAILED, ())
    assert "The agent could not be set up: the evaluator reported it on 20 of 20 routes." in report.stderr
    assert (world.ledger.rows[7]["status"], world.ledger.rows[7]["fault"]) == ("failed", "team")
    assert world.ledger.rows[7]["routes-done"] == 0


def test_an_agents_failure_is_told_with_its_last_lines_and_charged_to_the_team(world: World) -> None:
    world.backend.endings = {1: AGENT_CRASHED}
    world.only({1: 2})

    state = run(*world.submitted(7))

    assert state.is_failed()
    [report] = world.evalai.reports
    assert "1 of 4 shards failed: shard 1: The agent crashed (it ended with exit code 139)." in report.stderr
    assert "Run it on the public routes." in report.stderr
    assert "17 of 20 routes are driven; a resume continues from there." in report.stderr
    assert "agent of shard 1: Traceback" in report.stderr
    assert "not for the team" not in report.stderr
    assert world.ledger.rows[7]["fault"] == "team"
    assert world.backend.removed == [(7, 1)]
    assert world.ledger.rows[7]["logs"] == (
        "https://us-west-2.console.aws.amazon.com/cloudwatch/home?region=us-west-2#logsV2:log-groups/log-group/"
        "leaderboard-20$3FlogStreamNameFilter$3Dsubmission-7$252Fattempt-1$252F"
    )
    assert "logsV2" in page_of(7)
    assert "logsV2" not in report.stderr + report.stdout


@pytest.mark.parametrize("image", [None, "", "evil.example/agent:1", "demoevil/agent"])
def test_an_image_from_elsewhere_is_refused_at_evalai(world: World, image: str | None) -> None:
    state = run(*world.submitted(7, image))

    assert state.is_failed()
    [report] = world.evalai.reports
    assert report.status is SubmissionStatus.FAILED
    assert "image" in report.stderr
    assert world.backend.created == []


def test_an_unknown_submission_goes_to_the_dead_letter_queue_with_its_reason(world: World) -> None:
    message = SubmissionMessage(challenge_pk=1, phase_pk=1, submission_pk=404)
    _, delivery = world.submitted(7)

    state = run(message, delivery)

    assert state.is_failed()
    assert state.message == "EvalAI does not know submission 404."
    [(body, reason)] = world.queue.dead
    assert json.loads(body)["submission_pk"] == 404
    assert reason == state.message


def test_an_outage_before_the_claim_leaves_the_message_on_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.intake.enrich.retries", 0)
    world.evalai.trouble = [ServiceUnavailable("EvalAI does not answer")]

    state = run(*world.submitted(7))

    assert (state.name, state.is_failed()) == ("Postponed", True)
    assert world.queue.deleted == []
    assert world.queue.dead == []
    assert world.evalai.reports == []


def test_a_short_outage_is_waited_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.intake.enrich.retry_delay_seconds", [0.01, 0.01, 0.01])
    world.evalai.trouble = [ServiceUnavailable("EvalAI does not answer")] * 2

    assert run(*world.submitted(7)).is_completed()


def test_a_report_that_evalai_refuses_is_said_and_the_result_is_kept(world: World) -> None:
    world.evalai.refuses_reports = RequestRefused("EvalAI refused the result", "unknown metric")

    state = run(*world.submitted(7))

    assert state.is_failed()
    assert (state.message or "").startswith(
        "Report not delivered to EvalAI: EvalAI refused the result: unknown metric."
    )
    assert world.ledger.rows[7]["status"] == "finished"
    assert world.ledger.rows[7]["undelivered"] == "EvalAI refused the result: unknown metric."
    assert world.merged(7)["entry_status"] == "Finished"


def test_a_run_that_breaks_leaves_its_shards_to_a_takeover_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(job: ShardJob) -> bytes:
        raise RuntimeError("a bug of ours")

    world.backend.checkpoint = break_down
    monkeypatch.setattr("flows.simulation.watch_shards.retries", 0)

    state = run(*world.submitted(7))

    assert (state.name, state.is_failed()) == ("Failed", True)
    assert world.evalai.reports == []
    assert len(world.backend.jobs) == 4
    assert not world.ledger.rows[7].get("end-time")


@pytest.mark.parametrize(
    ("takeover", "reason"),
    [
        (Takeover(owner="first", epoch=3, stopped=True), "an operator cancelled its run in Prefect"),
        (Takeover(owner="first", epoch=8, crashes=6), "its run crashed 6 times"),
    ],
)
def test_a_takeover_run_that_is_to_end_the_evaluation_reports_to_evalai_and_stops_the_shards(
    world: World, takeover: Takeover, reason: str
) -> None:
    message, delivery = world.submitted(7)
    world.ledger.rows[7] = {"attempt": 1, "claim-owner": "first", "claim-key": "", "status": "running"}

    state = run(message, delivery, takeover)

    assert state.name == "InfrastructureFailed"
    [report] = world.evalai.reports
    assert reason in report.stderr
    assert "not the agent's fault" in report.stderr
    assert world.backend.removed == [(7, 1)]
    assert world.ledger.rows[7]["status"] == "failed"


def test_a_run_whose_claim_was_taken_ends_as_a_no_op_and_leaves_the_jobs(world: World) -> None:
    world.backend.runs_for_ever = True
    message, delivery = world.submitted(7)

    async def take_over_soon() -> State[None]:
        task = asyncio.create_task(evaluate_submission(message, delivery, return_state=True))
        await eventually_in_loop(lambda: world.backend.created)
        world.ledger.rows[7]["claim-token"] = "the takeover run's"
        return await task

    world.ledger.lease_seconds = 1
    state = asyncio.run(take_over_soon())

    assert (state.name, state.is_completed()) == ("TakenOver", True)
    assert len(world.backend.jobs) == 4
    assert world.backend.removed == []
    assert world.evalai.reports == []


def test_an_outage_while_the_shards_drive_interrupts_the_run_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_storage(job: ShardJob) -> bytes:
        raise ServiceUnavailable("S3 does not answer")

    world.backend.checkpoint = no_storage
    monkeypatch.setattr("flows.simulation.watch_shards.retries", 0)

    state = run(*world.submitted(7))

    assert (state.name, state.is_failed()) == ("Interrupted", True)
    assert "S3 does not answer" in (state.message or "")
    assert world.evalai.reports == []
    assert len(world.backend.jobs) == 4
    assert world.ledger.rows[7]["status"] == "running"


def test_what_is_set_up_wrong_fails_nobody_and_waits_for_a_host(world: World) -> None:
    message, delivery = world.submitted(7)
    world.settings = world.settings.model_copy(update={"routes": "/nowhere/routes.xml"})

    state = run(message, delivery)

    assert (state.name, state.is_failed()) == ("Blocked", True)
    assert "/nowhere/routes.xml" in (state.message or "")
    assert world.evalai.reports == []
    assert not world.ledger.rows[7].get("end-time")


def test_an_outcome_is_told_as_it_was_decided_and_never_decided_again(world: World) -> None:
    world.backend.endings = {1: AGENT_CRASHED}
    world.evalai.refuses_reports = ServiceUnavailable("EvalAI does not answer")
    message, delivery = world.submitted(7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.reporting.send_report.retries", 0)
        first = run(message, delivery)
    world.evalai.refuses_reports = None
    world.backend.endings = {}  # another simulation would succeed
    owner = str(world.ledger.rows[7]["claim-owner"])

    second = run(message, None, Takeover(owner=owner, epoch=2))

    assert (first.name, second.name) == ("Undelivered", "AgentFailed")
    assert len(world.backend.created) == 4
    [report] = world.evalai.reports
    assert "The agent crashed" in report.stderr
    assert world.ledger.rows[7]["fault"] == "team"


def test_a_run_that_takes_over_adopts_the_shards_and_their_claim(world: World) -> None:
    message, delivery = world.submitted(7)
    world.evalai.statuses[7] = SubmissionStatus.RUNNING
    world.ledger.rows[7] = {"attempt": 1, "claim-owner": "the-run-that-died", "claim-key": "", "status": "running"}

    state = run(message, delivery, Takeover(owner="the-run-that-died", epoch=2))

    assert state.is_completed()
    assert world.ledger.rows[7]["status"] == "finished"
    assert world.backend.created == [f"submission-7-attempt-1-shard-{index}" for index in range(4)]


def claimed_by_a_dead_run(world: World, **more: object) -> Takeover:
    row = {
        "submission-id": "7",
        "team-id": "1",
        "team-name": "Team",
        "challenge-id": "1",
        "phase-id": "1",
        "attempt": 1,
    }
    row |= {"claim-owner": "died", "claim-key": "2026-11-21T01:37:57.537792Z", "image": "demo/agent:steady"}
    world.ledger.rows[7] = {**row, **more}
    return Takeover(owner="died", epoch=2)


def test_a_takeover_of_a_submission_that_evalai_has_deleted_ends_it_once_with_a_sentence(world: World) -> None:
    takeover = claimed_by_a_dead_run(world)
    message = SubmissionMessage(challenge_pk=1, phase_pk=1, submission_pk=7)

    state = run(message, None, takeover)

    assert state.name == "TakenBack"
    assert state.message == "EvalAI no longer knows submission 7: it was deleted there."
    assert world.backend.removed == [(7, 1)]
    row = world.ledger.rows[7]
    assert (row["status"], bool(row["end-time"]), row["claim-key"]) == (
        "cancelled",
        True,
        "2026-11-21T01:37:57.537792Z",
    )
    assert (world.evalai.reports, world.queue.dead) == ([], [])


def test_a_takeover_of_a_submission_whose_team_has_moved_it_to_another_phase_is_not_rejected(world: World) -> None:
    takeover = claimed_by_a_dead_run(world)
    message, _ = world.submitted(7)
    world.evalai.phases[7] = 9

    state = run(message, None, takeover)

    assert state.is_completed()
    assert world.ledger.rows[7]["routes-done"] == 20


def test_a_resume_without_an_image_takes_the_earlier_one(world: World) -> None:
    world.ledger.rows[7] = {"attempt": 1, "image": "demo/agent:fast", "status": "failed"}
    world.evalai.statuses[7] = SubmissionStatus.RESUMING

    state = run(*world.submitted(7, image=None))

    assert state.is_completed()
    assert world.backend.created == [f"submission-7-attempt-2-shard-{index}" for index in range(4)]


def test_the_run_is_named_and_tagged_after_submission_phase_and_team(world: World) -> None:
    state = run(*world.submitted(7))

    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(state.state_details.flow_run_id)  # type: ignore[arg-type]
    assert flow_run.name == "submission-7 leaderboard-20-SENSORS attempt 1"
    assert {"leaderboard-20-SENSORS", "submission:7", "team:Team Rocket 🚀"} <= set(flow_run.tags)


def test_a_failed_shards_last_lines_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.backend.endings = {2: AGENT_CRASHED}
    streams: dict[str, str] = {}
    monkeypatch.setattr(type(world.settings), "append_log", lambda _, stream, text: streams.update({stream: text}))

    run(*world.submitted(7))

    folder = "submission-7/attempt-1/shard-2/"
    assert streams[f"{folder}simulator-last-lines"].endswith("not for the team")
    assert set(streams) == {f"{folder}agent-last-lines", f"{folder}simulator-last-lines"}
    kept = {
        container: world.store.objects[f"7/shards/2/logs/attempt-1/{container}-last-lines.log"]
        for container in ("agent", "simulator")
    }
    assert kept["simulator"].endswith(b"not for the team")  # nor does it go to EvalAI
    assert kept["agent"].endswith(b"agent of shard 2: Traceback")


def test_a_report_that_was_not_delivered_is_sent_when_the_run_is_retried(world: World) -> None:
    world.evalai.refuses_reports = RequestRefused("EvalAI refused the result", "unknown metric")
    message, delivery = world.submitted(7)
    run(message, delivery)
    world.evalai.refuses_reports = None
    owner = str(world.ledger.rows[7]["claim-owner"])

    state = run(message, delivery, Takeover(owner=owner, epoch=2))

    assert state.is_completed()
    [report] = world.evalai.reports
    assert report.status is SubmissionStatus.FINISHED
    assert "undelivered" not in world.ledger.rows[7]
    assert world.ledger.rows[7]["attempt"] == 1


def test_partial_results_are_published_while_the_shards_drive(world: World) -> None:
    world.backend.runs_for_ever = True
    world.only({0: 2, 1: 0, 2: 0, 3: 0})
    message, delivery = world.submitted(7)

    async def run_until_published() -> None:
        task = asyncio.create_task(evaluate_submission(message, delivery, return_state=True))
        await eventually_in_loop(lambda: world.backend.jobs)
        first = next(iter(world.backend.jobs.values()))
        world.backend.put(first, checkpoint_of(first, 2))
        await eventually_in_loop(lambda: world.evalai.partial_reports)
        world.backend.runs_for_ever = False
        await task

    asyncio.run(run_until_published())

    report = world.evalai.partial_reports[0]
    assert report.status is SubmissionStatus.PARTIALLY_EVALUATED
    assert report.result[0]["accuracies"]["Driving score"] == pytest.approx(50 * 2 / 20)  # type: ignore[index]


def test_a_partial_result_that_waits_for_its_turn_is_not_written_after_the_end(world: World) -> None:
    """A thread outlives the task that awaited it: EvalAI would show a finished submission as partially evaluated."""
    waits, over, permitted = threading.Event(), threading.Event(), []

    def wait_for_a_slot(report: Report) -> None:
        waits.set()
        over.wait(600)
        assert report.permit
        with report.permit.writing() as allowed:
            permitted.append(allowed)

    world.evalai.report_partial = wait_for_a_slot  # type: ignore[method-assign]
    world.backend.runs_for_ever = True
    world.only({0: 2, 1: 0, 2: 0, 3: 0})
    message, delivery = world.submitted(7)

    async def run_to_the_end_while_it_waits() -> None:
        task = asyncio.create_task(evaluate_submission(message, delivery, return_state=True))
        while not world.backend.jobs:
            await asyncio.sleep(0.02)
        first = next(iter(world.backend.jobs.values()))
        world.backend.put(first, checkpoint_of(first, 2))
        while not waits.is_set():
            await asyncio.sleep(0.02)
        world.backend.runs_for_ever = False
        await task
        over.set()

    asyncio.run(run_to_the_end_while_it_waits())

    assert eventually(lambda: permitted) == [False]
    assert len(world.evalai.reports) == 1


def test_an_attempt_beyond_the_maximum_is_refused_and_says_so(world: World) -> None:
    """EvalAI lets a team resume its own submission without end."""
    world.ledger.rows[7] = {"attempt": world.settings.max_attempts}

    state = run(*world.submitted(7))

    [report] = world.evalai.reports
    assert (report.status, world.backend.jobs) == (SubmissionStatus.FAILED, {})
    assert "attempt 11 of at most 10" in report.stderr
    assert "attempt 11 of at most 10" in str(state.message)


def test_a_team_that_has_used_its_gpu_hours_is_refused_until_the_next_month(
    world: World,
) -> None:
    world.settings.team_gpu_hours_per_month = 1
    run(*world.submitted(7))  # drives in the month of its observations
    claimed = world.ledger.rows[7]["usage"]["1"]  # type: ignore[index]
    claimed["began"] = datetime.now(UTC).isoformat()

    state = run(*world.submitted(8))

    assert world.ledger.rows[8]["status"] == "failed"
    assert "has used 3.3 of the 1 GPU hours" in str(state.message)
    assert "submit again then, or let a challenge host resume this one" in world.evalai.reports[-1].stderr
    assert "usage" not in world.ledger.rows[8]
    assert world.backend.created == [name for name in world.backend.created if "-7-" in name]


def test_a_finished_submission_is_left_as_it_is(world: World) -> None:
    world.evalai.statuses[7] = SubmissionStatus.FINISHED

    state = run(*world.submitted(7))

    assert state.name == "Skipped"
    assert world.backend.created == []
    assert world.evalai.reports == []


def test_every_evaluated_submission_gets_its_report_for_operators_and_for_its_team(world: World) -> None:
    run(*world.submitted(7))
    world.backend.endings = {1: AGENT_CRASHED}
    world.only({1: 2})
    run(*world.submitted(8))

    for pk, status in ((7, "Finished"), (8, "Failed")):
        full, team = (world.store.objects[f"{pk}/{name}"].decode() for name in ("report.html", "report-team.html"))
        assert f"Submission {pk}" in team
        assert status in team
        assert f"s3://bucket/{pk}/" in full
        assert "s3://" not in team
    [_, failure] = world.evalai.reports
    assert "Driving score" not in failure.stdout
    assert "No score: the evaluation did not finish." in failure.stdout


def test_the_command_makes_the_report_anew_from_what_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.held_results.load_cluster", world.load_cluster)
    run(*world.submitted(7))
    services = asyncio.run(world.load_services())

    page = asyncio.run(made_page(services, 7, Audience.TEAM)).decode()

    written = world.store.objects["7/report-team.html"].decode()
    assert page.partition("<h2")[0] == written.partition("<h2")[0]
    assert page.count('<th scope="row">') == written.count('<th scope="row">') > 20


def test_a_report_that_cannot_be_made_fails_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise ValueError("a hostile record")

    monkeypatch.setattr("flows.report_pages.render_report", broken)

    assert run(*world.submitted(7)).is_completed()
    assert "7/report.html" not in world.store.objects
