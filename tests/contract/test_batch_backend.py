"""What BatchJobBackend does beyond every backend's contract: on moto's Batch, with the stacks of deployments/aws."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from batch_jobs.backend import BackendLimits, BatchJobBackend
from batch_jobs.job_description import BatchJob
from batch_jobs.removal import RemovalLimits
from evaluation.errors import CleanupIncomplete, InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.lifecycle.shard_progress import explained
from evaluation.shards import Shard, ShardJob, ShardState, ShardStatus, ShardStatuses
from evaluation.submission.model import parse_phase
from tests.contract.aws_blocks import UNREACHABLE
from tests.contract.batch_harness import ADHOC_QUEUE, LEADERBOARD, QUEUE, QUICK, BatchHarness
from tests.contract.test_job_backend import BUCKET, World, follow, run, to_the_end
from tests.waiting import PATIENCE_SECONDS, eventually

CAPACITY = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"


@pytest.fixture
def world(tmp_path: Path, aws: dict[str, Any]) -> Iterator[World]:
    boto3.client("s3", **aws).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws["region_name"]}
    )
    harness = BatchHarness(tmp_path, aws["endpoint_url"])
    yield World(harness, boto3.client("s3", **aws))
    harness.ignores_stop = False
    run(harness.backend().remove(7, 1))
    assert harness.left() == []


@pytest.fixture
def harness(world: World) -> BatchHarness:
    assert isinstance(world.harness, BatchHarness)
    return world.harness


def four(world: World, image: str = "hang") -> list[ShardJob]:
    return [world.job(image, shard=Shard(index, 4, (index,)), hang_seconds=60.0) for index in range(4)]


def listed(harness: BatchHarness, queue: str = QUEUE) -> list[BatchJob]:
    return run(harness.backend()._api.jobs([queue], "submission-*"))  # type: ignore[no-any-return]


def requests(backend: BatchJobBackend) -> Counter[str]:
    """Counts what is asked of Batch, by operation and role, from now on."""
    counted: Counter[str] = Counter()
    registrar = backend.access.registrar()
    for role, client in (("own", backend.access.batch()), ("registrar", registrar)):

        def count(model: Any, role: str = role, **_: Any) -> None:
            counted[f"{role}:{model.name}"] += 1

        client.meta.events.register("before-call.batch", count)
    object.__setattr__(backend, "access", replace(backend.access, registrar=lambda: registrar))
    return counted


async def first(backend: BatchJobBackend, jobs: Sequence[ShardJob]) -> ShardStatuses:
    async for statuses in backend.watch(jobs):
        return statuses
    raise AssertionError("watch said nothing")


async def until_detail(backend: BatchJobBackend, job: ShardJob, text: str) -> ShardStatus:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for statuses in backend.watch([job]):
            if text in statuses[job.shard.index].detail:
                return statuses[job.shard.index]
    raise AssertionError(f"{text!r} was never said")


class TestDefinitions:
    def test_only_the_submissions_image_makes_a_revision_and_only_the_registrar_registers_it(
        self, world: World, harness: BatchHarness
    ) -> None:
        backend = harness.backend()
        counted = requests(backend)
        harness.stuck = ""

        run(backend.ensure(four(world)))
        run(backend.ensure(four(world)))

        base, made = (
            harness.batch.describe_job_definitions(jobDefinitionName=name)["jobDefinitions"]
            for name in (f"{LEADERBOARD}-shard", f"{LEADERBOARD}-shard-submission-7")
        )
        (base, made) = (base[0], made[0])
        images = {each["name"]: each.pop("image") for each in made["ecsProperties"]["taskProperties"][0]["containers"]}
        before = {each["name"]: each.pop("image") for each in base["ecsProperties"]["taskProperties"][0]["containers"]}
        assert images == {**before, "agent": "demo/agent:hang"}
        for key in ("ecsProperties", "retryStrategy", "timeout", "schedulingPriority", "type", "propagateTags"):
            assert made[key] == base[key]
        assert counted["registrar:RegisterJobDefinition"] == 1
        assert counted["own:RegisterJobDefinition"] == 0
        assert counted["own:SubmitJob"] == 4

    def test_another_image_or_a_new_base_makes_another_revision(self, world: World, harness: BatchHarness) -> None:
        backend, job = harness.backend(), world.job("hang")
        harness.stuck = ""
        run(backend.ensure([job]))

        run(backend.ensure([replace(job, attempt=2, image="demo/agent:steady")]))
        (base,) = harness.batch.describe_job_definitions(jobDefinitionName=f"{LEADERBOARD}-shard")["jobDefinitions"]
        kept = ("jobDefinitionName", "type", "ecsProperties", "retryStrategy")
        harness.batch.register_job_definition(**{key: base[key] for key in kept})
        run(backend.ensure([replace(job, attempt=3, image="demo/agent:steady")]))

        found = harness.batch.describe_job_definitions(jobDefinitionName=f"{LEADERBOARD}-shard-submission-7")
        assert sorted(each["revision"] for each in found["jobDefinitions"]) == [1, 2, 3]
        run(backend.remove(7, 2))
        run(backend.remove(7, 3))

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"definition": "unheard-of"}, "no active job definition unheard-of"),
            (
                {"queue": "leaderboard-cpu-production"},
                "the shards need a GPU, and its instances .m6i.4xlarge. have no GPU",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused_before_anything_is_submitted(
        self, world: World, harness: BatchHarness, changes: dict[str, Any], words: str
    ) -> None:
        backend = harness.backend(**changes)

        with pytest.raises(InvalidConfiguration, match=words):
            run(backend.ensure([world.job("hang")]))

        with pytest.raises(InvalidConfiguration, match=words):
            run(backend.preflight())
        assert listed(harness) == []

    def test_a_queue_that_is_not_there_is_named(self, world: World, harness: BatchHarness) -> None:
        backend = harness.backend(queue="unheard-of")

        with pytest.raises(RequestRefused, match="Job queue unheard-of does not exist"):
            run(backend.ensure([world.job("hang")]))
        with pytest.raises(InvalidConfiguration, match="There is no job queue unheard-of"):
            run(backend.preflight())

    def test_a_disabled_queue_is_refused(self, world: World, harness: BatchHarness) -> None:
        harness.batch.update_job_queue(jobQueue=QUEUE, state="DISABLED")

        with pytest.raises(InvalidConfiguration, match="the job queue leaderboard-gpu-production is disabled"):
            run(harness.backend().ensure([world.job("hang")]))


class TestSubmission:
    def test_a_phase_goes_to_its_queue_under_its_teams_share(self, world: World, harness: BatchHarness) -> None:
        backend = harness.backend(adhoc_phases=frozenset({"leaderboard-20-MAP"}))
        harness.stuck = ""
        trial = world.job("hang", submission=8, phase=parse_phase("leaderboard-20-MAP"))

        run(backend.ensure([world.job("hang"), trial]))

        assert [job.name for job in listed(harness)] == ["submission-7-attempt-1-shard-1"]
        assert [job.name for job in listed(harness, ADHOC_QUEUE)] == ["submission-8-attempt-1-shard-1"]
        (described,) = harness.batch.describe_jobs(jobs=[listed(harness)[0].id])["jobs"]
        assert described["shareIdentifier"].isalnum()
        assert described["tags"]["leaderboard:team"] == "-n-c-d- - S-hne- rm -rf / -"
        run(backend.remove(8, 1))

    def test_a_listing_that_lags_behind_is_waited_for(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = ""
        backend, job = harness.backend(), world.job("hang")
        blind = iter([(SimpleNamespace(status_code=200), {"jobSummaryList": []})] * 4)
        events = backend.access.batch().meta.events
        events.register("before-call.batch.ListJobs", lambda **_: next(blind, None), "lag")

        run(backend.ensure([job]))
        statuses = run(first(backend, [job]))
        events.unregister("before-call.batch.ListJobs", unique_id="lag")

        assert next(blind, None) is None
        assert statuses[1].state is ShardState.WAITING
        assert len(listed(harness)) == 1

    def test_runs_that_race_leave_one_job_the_oldest(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = ""

        async def race() -> None:
            await asyncio.gather(*(harness.backend().ensure([world.job("hang")]) for _ in range(3)))

        run(race())
        run(first(harness.backend(), [world.job("hang")]))
        eventually(lambda: sum(not job.ended for job in listed(harness)) == 1)

        assert not listed(harness)[0].ended
        assert all(job.removed for job in listed(harness)[1:])

    def test_a_second_job_of_the_name_is_ended_by_whoever_watches(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = ""
        run(harness.backend().ensure([world.job("hang")]))
        again = {"jobName": "submission-7-attempt-1-shard-1", "jobQueue": QUEUE, "shareIdentifier": "team"}
        definition = f"{LEADERBOARD}-shard-submission-7"
        younger = harness.batch.submit_job(**again, jobDefinition=definition)["jobId"]

        run(first(harness.backend(), [world.job("hang")]))
        eventually(lambda: [job.id for job in listed(harness) if job.ended] == [younger])

    def test_a_job_of_others_with_our_name_is_not_adopted(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = ""
        run(harness.backend().ensure([world.job("hang", submission=9)]))
        harness.batch.submit_job(
            jobName="submission-7-attempt-1-shard-1",
            jobQueue=QUEUE,
            shareIdentifier="team",
            jobDefinition=f"{LEADERBOARD}-shard-submission-9",
        )

        with pytest.raises(RequestRefused, match="its tag leaderboard:submission is None"):
            run(harness.backend().ensure([world.job("hang")]))
        run(harness.backend().remove(9, 1))

    def test_a_removed_attempt_can_be_run_again(self, world: World, harness: BatchHarness) -> None:
        backend, job = harness.backend(), world.job("fast")
        run(backend.ensure([job]))
        assert follow(backend, job)[-1].state is ShardState.FINISHED
        run(backend.remove(7, 1))

        assert follow(backend, job)[-1].state is ShardState.GONE
        run(backend.ensure([job]))
        assert follow(backend, job)[-1].state is ShardState.FINISHED

        assert len(listed(harness)) == 2


class TestMachines:
    def test_a_lost_machine_is_replaced_and_nobody_is_charged(self, world: World, harness: BatchHarness) -> None:
        job, backend = world.job("hang-once", hang_seconds=600.0), harness.backend()
        run(backend.ensure([job]))
        eventually(lambda: world.stored(job), until=lambda records: len(records) == 1)

        for process in harness.processes():
            process.kill()
        seen = follow(backend, job)

        assert seen[-1].state is ShardState.FINISHED
        (retrying,) = {status.detail.partition(";")[0] for status in seen if status.state is ShardState.RETRYING}
        assert (
            retrying
            == "its instance was lost (Host EC2 (instance i-0123456789abcdef0) terminated), no budget is charged"
        )
        assert world.used(job) == (0, 0, {}, ())
        assert [attempt for _, attempt, _ in harness.tasks] == [1, 2]

    def test_a_exit_code_of_the_supervisor_is_not_retried(self, world: World, harness: BatchHarness) -> None:
        job, backend = world.job("bad-sensors"), harness.backend()

        run(backend.ensure([job]))
        end = follow(backend, job)[-1]

        assert end.failure is not None
        assert end.failure.summary == "The agent's sensors are invalid"
        assert end.failure.cause == "container supervisor ended with code 11"
        explained_failure = explained({1: end}, {1: world.progress(job)})[1].failure
        assert explained_failure is not None
        assert (explained_failure.summary, "sensors" in explained_failure.cause) == (end.failure.summary, True)
        assert [attempt for _, attempt, _ in harness.tasks] == [1]

    def test_batchs_reason_for_a_stuck_job_is_shown_at_once(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = f"{CAPACITY} - Service cannot fulfill the capacity requested for instance type [g5.4xlarge]"
        run(harness.backend().ensure([world.job("hang")]))

        status = run(until_detail(harness.backend(), world.job("hang"), CAPACITY))

        assert status.state is ShardState.WAITING
        assert status.detail.startswith("no node has room yet: AWS has no instance of the queue's types left")
        assert "instance type [g5.4xlarge]" in status.detail

    def test_a_job_that_waits_says_where_it_stands_in_its_queue(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = f"{CAPACITY} - none"
        backend, jobs = harness.backend(), four(world)
        run(backend.ensure(jobs))

        last = run(until_detail(backend, jobs[3], "queued: 4 of 4 at the front of its queue"))

        assert last.queue
        assert (last.queue.position, last.queue.waiting) == (4, 4)
        assert last.queue.why.startswith("AWS has no instance of the queue's types left")

    def test_where_batch_says_nothing_its_queue_is_looked_at(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = ""
        run(harness.backend().ensure([world.job("hang")]))
        harness.batch.update_compute_environment(computeEnvironment="leaderboard-gpu", state="DISABLED")

        status = run(until_detail(harness.backend(), world.job("hang"), "disabled"))

        assert status.detail.startswith("no node has room yet: the compute environment leaderboard-gpu is disabled;")

    def test_a_job_that_waits_too_long_has_failed_and_says_why(self, world: World, harness: BatchHarness) -> None:
        harness.stuck = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - no instance type fits"
        backend = harness.backend(waiting_seconds=0.5)
        run(backend.ensure([world.job("hang")]))

        end = follow(backend, world.job("hang"))[-1]

        assert end.state is ShardState.FAILED
        assert end.failure is not None
        assert end.failure.summary.startswith("No node was scheduled within")
        assert "wrong instance types" in end.failure.cause


class TestRemoval:
    def test_every_page_of_jobs_is_terminated_and_none_is_cancelled(self, world: World, harness: BatchHarness) -> None:
        backend = harness.backend()
        jobs = [world.job("hang", shard=Shard(index, 5, (index,)), hang_seconds=60.0) for index in range(5)]
        harness.stuck = ""
        run(backend.ensure(jobs))
        assert run(backend.running()) == {(7, 1)}  # pages of two
        counted = requests(backend)

        run(backend.remove(7, 1))

        assert [job.status for job in listed(harness)] == ["FAILED"] * 5
        assert counted["own:TerminateJob"] == 5
        assert counted["own:CancelJob"] == 0
        assert run(backend.running()) == frozenset()

    def test_an_ended_job_that_batch_will_not_tag_is_no_trouble(self, world: World, harness: BatchHarness) -> None:
        backend, job = harness.backend(), world.job("fast")
        run(backend.ensure([job]))
        follow(backend, job)
        refusal = SimpleNamespace(status_code=400), {"Error": {"Code": "ClientException", "Message": "not taggable"}}
        events = backend.access.batch().meta.events

        events.register("before-call.batch.TagResource", lambda **_: refusal, "refusal")
        run(backend.remove(7, 1))
        events.unregister("before-call.batch.TagResource", unique_id="refusal")

        assert follow(backend, job)[-1].state is ShardState.FINISHED

    def test_what_does_not_end_is_named(self, world: World, harness: BatchHarness) -> None:
        harness.ignores_stop = True
        quick = replace(QUICK, removal=RemovalLimits(deadline_seconds=1, first_pause_seconds=0.1))
        backend = harness.backend(quick)
        run(backend.ensure([world.job("hang", hang_seconds=60.0)]))
        eventually(lambda: listed(harness)[0].status == "RUNNING")

        with pytest.raises(CleanupIncomplete, match="submission-7-attempt-1-shard-1 is RUNNING"):
            run(backend.remove(7, 1))


class TestOutages:
    def test_a_batch_that_never_answered_is_an_error(self, world: World, harness: BatchHarness) -> None:
        limits = BackendLimits(poll_seconds=0.1, first_answer_seconds=0.3)
        backend = replace(harness.backend(limits), access=unreachable(harness))

        with pytest.raises(ServiceUnavailable, match="AWS Batch has not answered"):
            run(to_the_end(backend, world.job("hang")))

    def test_the_last_states_stay_and_say_so_then_watching_gives_up(self, world: World, harness: BatchHarness) -> None:
        limits = replace(QUICK, warning_seconds=0.0, silent_seconds=2.0)
        job, seen, aws = world.job("hang"), list[ShardStatus](), [harness.backend().access]
        changing = replace(aws[0], batch=lambda: aws[0].batch())
        backend = replace(harness.backend(limits), access=changing)
        harness.stuck = ""
        run(backend.ensure([job]))

        async def watch() -> None:
            async for statuses in backend.watch([job]):
                seen.append(statuses[1])
                aws[0] = unreachable(harness)

        with pytest.raises(ServiceUnavailable, match="AWS Batch has not answered for"):
            run(watch())

        assert seen[0].warning == ""
        assert {status.state for status in seen} == {ShardState.WAITING}
        assert seen[-1].warning.startswith("AWS Batch has not answered since ")


def unreachable(harness: BatchHarness) -> Any:
    return BatchHarness.access_to({**harness.aws, "endpoint_url": UNREACHABLE})


def test_the_tasks_know_what_the_pair_needs_and_the_agent_no_way_to_the_storage(
    world: World, harness: BatchHarness
) -> None:
    run(harness.backend().ensure([world.job("hang", hang_seconds=60.0)]))
    eventually(lambda: bool(harness.tasks))

    ((name, _, containers),) = harness.tasks
    known = {each: {pair["name"] for pair in entry["environment"]} for each, entry in containers.items()}
    assert name == "submission-7-attempt-1-shard-1"
    assert known["init"] == known["supervisor"]
    assert {"SUPERVISORS_ROLE", "BUCKET", "AGENT_RESTARTS", "ROUTES_LOCATION"} <= known["supervisor"]
    assert not known["agent"] & {"SUPERVISORS_ROLE", "AWS_CONFIG_FILE", "BUCKET", "SUBMISSION"}
    assert [each for each, entry in containers.items() if entry.get("secrets")] == ["init", "supervisor"]
