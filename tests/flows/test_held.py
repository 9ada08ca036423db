"""A result that does not fit is held: nothing is published, operators are notified, and one of them decides."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from pydantic import SecretStr

from blocks.provenance_key import ProvenanceKey
from evaluation.errors import InvalidCheckpoint, RequestRefused, ServiceUnavailable, UnknownSubmission
from evaluation.lifecycle.outcome import Outcome
from evaluation.lifecycle.takeover import Takeover
from evaluation.pair.observations import Observations
from evaluation.ports import Claim, Row
from evaluation.provenance import parse_envelope
from evaluation.shards import ShardJob, ShardStatuses
from evaluation.submission.model import SubmissionStatus
from flows.evaluate_submission import evaluate_submission
from flows.held_results import KeptResult, kept_result, reject, release
from flows.provenance import check_provenance
from flows.reconciler.flow import reconcile_once
from flows.services import Services
from tests.fakes import checkpoint_of, observations_of
from tests.flows.conftest import World

PROVENANCE = "7/provenance.json"


def forged(job: ShardJob, body: bytes) -> Observations | None:
    """Shard 2 has no file of its supervisor."""
    return None if job.shard.index == 2 else observations_of(job, body)


def forged_arithmetic(job: ShardJob) -> bytes:
    document = json.loads(checkpoint_of(job))
    document["_checkpoint"]["records"][0]["scores"]["score_composed"] = 100.0
    return json.dumps(document).encode()


def drive(world: World) -> State[None]:
    return asyncio.run(evaluate_submission(*world.submitted(7), return_state=True))


@pytest.fixture
def takeovers(monkeypatch: pytest.MonkeyPatch) -> list[Takeover]:
    """The takeover runs that were started."""
    started: list[Takeover] = []

    async def start(client: Any, parameters: Any, takeover: Takeover, tags: Any) -> None:
        assert parameters["message"]["submission_pk"] == 7
        started.append(takeover)

    monkeypatch.setattr("flows.held_results.start_takeover_run", start)
    return started


@pytest.fixture
def held(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("flows.held_results.load_cluster", world.load_cluster)
    world.backend.checkpoint = forged_arithmetic
    world.backend.observed = forged
    assert drive(world).name == "Held"
    return world


def kept(world: World) -> KeptResult:
    async def ask() -> KeptResult:
        return await kept_result(await world.load_services(), 7)

    return asyncio.run(ask())


def decide(world: World, how: Any) -> Outcome:
    outcome: Outcome = asyncio.run(how(kept(world), "alice", "the host has driven it again"))
    return outcome


def goes_on(world: World, takeover: Takeover) -> State[None]:
    message, _ = world.submitted(7)
    return asyncio.run(evaluate_submission(message, None, takeover, return_state=True))


def test_nothing_is_published_and_the_reasons_are_kept(held: World) -> None:
    assert (held.evalai.reports, held.evalai.statuses[7]) == ([], SubmissionStatus.RUNNING)
    row = held.ledger.rows[7]
    assert (row["status"], "Driving score" in row, "end-time" in row) == ("held", False, True)
    result = kept(held)
    assert result.held
    assert result.outcome.reasons[0] == ("route 0: score_composed is 100.0, but 100.0 x 0.5 (route x penalty) is 50.")
    assert "shard 2: no file says what its supervisor saw of it (observations.json)." in result.outcome.reasons
    assert "`leaderboard verify 7`" in result.outcome.sentence


def test_the_reconciler_notifies_an_operator_and_takes_nothing_over(held: World) -> None:
    async def once() -> list[Any]:
        rows, _ = await reconcile_once(await held.load_services())
        return rows

    held.ledger.rows[7]["end-time"] = "2026-01-01T00:00:00+00:00"
    [row] = asyncio.run(once())

    assert row["action"] == "notify an operator"
    assert row["finding"].startswith(
        "Its result is held since 2026-01-01 00:00:00 UTC. Submission 7 is held: there are"
    )


def test_a_released_result_is_published_once_by_a_takeover_run(held: World, takeovers: list[Takeover]) -> None:
    outcome = decide(held, release)

    assert goes_on(held, takeovers[0]).is_completed()
    [report] = held.evalai.reports
    assert report.status is SubmissionStatus.FINISHED
    assert report.result[0]["accuracies"]["Driving score"] == pytest.approx(60.0)  # type: ignore[index]
    row = held.ledger.rows[7]
    assert (row["status"], row["reason"]) == ("finished", outcome.sentence)
    assert "It was held, and released by alice: the host has driven it again." in outcome.sentence


def test_a_rejected_result_ends_without_a_score(held: World, takeovers: list[Takeover]) -> None:
    decide(held, reject)

    assert goes_on(held, takeovers[0]).name == "AgentFailed"
    [report] = held.evalai.reports
    assert (report.status, report.result) == (SubmissionStatus.FAILED, ())
    assert (report.stdout, report.metadata) == ("", "")  # they would have its figures
    assert "score_composed" not in report.stderr  # how it was found is the host's
    assert "rejected by alice: the host has driven it again." in report.stderr


def test_one_row_is_read_where_evalai_says_whose_submission_it_is(held: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[int] = []
    read_all = held.ledger.entries
    monkeypatch.setattr(held.ledger, "entries", lambda: whole.append(1) or read_all())  # type: ignore[func-returns-value]

    assert kept(held).held
    assert whole == []

    del held.evalai.statuses[7]  # EvalAI has lost it, or does not answer
    assert kept(held).held
    assert whole != []


def test_what_an_operator_decided_is_decided_once(held: World, takeovers: list[Takeover]) -> None:
    before = kept(held)
    asyncio.run(release(before, "alice", ""))

    for stale in (before, kept(held)):
        with pytest.raises(RequestRefused, match="7 is not held: its evaluation goes on, perhaps by another operator"):
            asyncio.run(reject(stale, "bob", ""))
    goes_on(held, takeovers[0])
    with pytest.raises(RequestRefused, match="it is finished"):
        asyncio.run(reject(kept(held), "bob", ""))


def test_a_decision_about_what_its_team_has_taken_back_publishes_nothing(
    held: World, takeovers: list[Takeover]
) -> None:
    decide(held, release)
    held.evalai.statuses[7] = SubmissionStatus.CANCELLED

    assert goes_on(held, takeovers[0]).name == "TakenBack"
    assert held.evalai.reports == []


def test_an_outcome_that_is_gone_is_said(held: World) -> None:
    key = str(held.ledger.rows[7]["outcome"])
    del held.store.objects[key]

    with pytest.raises(InvalidCheckpoint, match=rf"No outcome of submission 7 is kept: .*{key} is gone"):
        kept(held)


def test_a_running_submission_has_no_result_yet(held: World) -> None:
    for ended in ("outcome", "end-time"):
        del held.ledger.rows[7][ended]

    with pytest.raises(InvalidCheckpoint, match=r"its evaluation has not come to one\. See `leaderboard explain 7`"):
        kept(held)


@pytest.mark.parametrize("how", [release, reject])
def test_the_provenance_tells_who_decided_when_and_why(
    held: World, takeovers: list[Takeover], how: Callable[..., Any]
) -> None:
    key = ProvenanceKey(SecretStr(base64.b64encode(bytes(32)).decode()))
    held.store.objects[PROVENANCE] = key.signed(parse_envelope(held.store.objects[PROVENANCE], "7").statement).render()

    outcome = asyncio.run(how(replace(kept(held), key=key), "alice", "the host has driven it again"))

    text, right = check_provenance(held.store, 7, key)
    assert (right, text) == (True, f"Provenance: signed by the key {key.id[:16]}; 12 files are as they were.")
    details = json.loads(parse_envelope(held.store.objects[PROVENANCE], "7").statement)["predicate"]["runDetails"]
    [decided] = details["byproducts"]
    assert f"7/{decided['name']}" == held.ledger.rows[7]["outcome"]
    told = {key: decided["annotations"][key] for key in ("outcome", "by", "because")}
    assert told == {"outcome": outcome.ending.value, "by": "alice", "because": "the host has driven it again"}
    assert datetime.now(UTC) - datetime.fromisoformat(decided["annotations"]["at"]) < timedelta(hours=1)


def test_a_decision_signs_no_provenance_that_another_has_signed(held: World, takeovers: list[Takeover]) -> None:
    before = held.store.objects[PROVENANCE]  # unsigned, although there is a key

    asyncio.run(release(replace(kept(held), key=ProvenanceKey(SecretStr("A" * 43 + "="))), "alice", "why not"))

    assert held.store.objects[PROVENANCE] == before
    assert len(takeovers) == 1


def test_an_unknown_submission_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.held_results.load_cluster", world.load_cluster)

    with pytest.raises(UnknownSubmission, match="No ledger knows submission 7"):
        kept(world)


FIRST, OTHER = (f"sha256:{letter * 64}" for letter in "ab")


def running(world: World, digests: dict[int, str]) -> None:
    """The backend tells the digest of each shard's image."""
    watch = world.backend.watch

    async def telling(jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        async for statuses in watch(jobs):
            yield {index: replace(each, image_digest=digests.get(index, FIRST)) for index, each in statuses.items()}

    world.backend.watch = telling  # type: ignore[method-assign]


def test_the_first_images_digest_is_recorded_and_a_resume_runs_it(world: World) -> None:
    running(world, {})
    drive(world)
    assert world.ledger.rows[7]["image-digest"] == FIRST

    jobs: list[ShardJob] = []
    world.backend.checkpoint = lambda job: jobs.append(job) or checkpoint_of(job)  # type: ignore[func-returns-value]
    world.evalai.statuses[7] = SubmissionStatus.RESUMING
    world.ledger.rows[7].pop("claim-key")  # a resume has a later one than this
    drive(world)

    assert {job.image for job in jobs} == {f"demo/agent@{FIRST}"}


def test_a_pod_of_another_image_is_held_although_its_successor_ran_the_right_one(world: World) -> None:
    """The tag points elsewhere for a while: shard 2's first pod ran that, and was replaced."""
    watch = world.backend.watch

    async def telling(jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        statuses = [each async for each in watch(jobs)][-1]
        for of_shard_2 in (OTHER, FIRST):
            digests = {2: of_shard_2}
            yield {index: replace(each, image_digest=digests.get(index, FIRST)) for index, each in statuses.items()}

    world.backend.watch = telling  # type: ignore[method-assign]

    assert drive(world).name == "Held"
    assert f"shard 2: the image {OTHER} ran" in str(world.ledger.rows[7]["reason"])


def test_a_submission_whose_shards_ran_different_images_is_held(world: World) -> None:
    running(world, {2: OTHER})

    assert drive(world).name == "Held"
    assert world.evalai.reports == []
    assert f"shard 2: the image {OTHER} ran" in str(world.ledger.rows[7]["reason"])


def test_an_image_that_an_earlier_run_saw_counts_in_every_later_one(world: World) -> None:
    ran = {2: OTHER}
    running(world, ran)
    assert drive(world).name == "Held"
    assert world.ledger.rows[7]["images"] == {FIRST: [0, 1, 3], OTHER: [2]}
    ran.clear()
    world.evalai.statuses[7] = SubmissionStatus.RESUMING
    world.ledger.rows[7].pop("claim-key")

    assert drive(world).name == "Held"

    assert f"shard 2: the image {OTHER} ran" in str(world.ledger.rows[7]["reason"])
    statement = json.loads(parse_envelope(world.store.objects[PROVENANCE], "7").statement)
    used = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {OTHER, FIRST} <= {f"sha256:{each['digest']['sha256']}" for each in used if "digest" in each}


def test_a_digest_that_could_not_be_written_at_once_is_written_with_a_later_status(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, update = world.backend.watch, world.ledger.update
    refusals = ["the only one"]

    async def seen_at_first_only(jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        first = True
        async for statuses in watch(jobs):
            yield {index: replace(each, image_digest=FIRST if first else "") for index, each in statuses.items()}
            first = False

    def refused_once(claim: Claim, values: Row) -> None:
        if "images" in values and refusals:
            raise ServiceUnavailable(refusals.pop())
        update(claim, values)

    world.backend.watch = seen_at_first_only  # type: ignore[method-assign]
    monkeypatch.setattr(world.ledger, "update", refused_once)

    assert drive(world).is_completed()
    assert world.ledger.rows[7]["images"] == {FIRST: [0, 1, 2, 3]}
    assert world.ledger.rows[7]["image-digest"] == FIRST


def test_the_results_files_are_signed_by_their_digests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ProvenanceKey(SecretStr(base64.b64encode(bytes(32)).decode()))

    async def with_key() -> Services:
        return Services(world.evalai, world.phases, world.queue, key)

    monkeypatch.setattr("flows.evaluate_submission.load_services", with_key)
    assert drive(world).is_completed()

    text, right = check_provenance(world.store, 7, key)
    assert (right, text) == (True, f"Provenance: signed by the key {key.id[:16]}; 12 files are as they were.")
    world.store.objects["7/merged.json"] = b"{}"
    assert check_provenance(world.store, 7, key) == (
        f"Provenance: signed by the key {key.id[:16]}, but changed since: merged.json.",
        False,
    )
