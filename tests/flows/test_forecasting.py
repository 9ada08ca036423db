"""What a run says of its place in a queue and of its expected times, and what the next submission learns from it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import State

from evaluation.lifecycle.forecast import Forecast, read_forecast
from evaluation.ports import Claim, Row
from evaluation.queue_place import QueuePlace
from evaluation.shards import ShardJob, ShardState, ShardStatus, ShardStatuses
from flows import forecasting, progress_display
from flows.evaluate_submission import evaluate_submission
from flows.reconciler.explain_submission import explain_submission
from flows.reconciler.explanation import Explanation
from tests.fakes import FakeBackend
from tests.flows.conftest import World

_PKS = count(7100)
WHY = "8 of 8 GPU slots are in use, and another team's turn comes first"


@dataclass
class QueuedBackend(FakeBackend):
    """Its shards wait in a queue first."""

    async def watch(self, jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        for ahead in (8, 4):
            places = {job.shard.index: QueuePlace(ahead + n, 12, 8, WHY) for n, job in enumerate(jobs, 1)}
            yield {n: ShardStatus(n, ShardState.WAITING, str(place), queue=place) for n, place in places.items()}
        async for statuses in super().watch(jobs):
            yield statuses


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(forecasting, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(progress_display, "SHOW_SECONDS", 0.0)
    world.backend = QueuedBackend(world.store, world.backend.checkpoint)
    return world


def evaluate(world: World, pk: int) -> State[None]:
    return asyncio.run(evaluate_submission(*world.submitted(pk), return_state=True))


def run(world: World, pk: int) -> Forecast:
    """Evaluate it; what its row says in the end."""
    assert evaluate(world, pk).is_completed()
    kept = read_forecast(world.ledger.rows[pk]["forecast"])
    assert kept
    return kept


async def _bar(pk: int) -> str:
    key = ArtifactFilter(key=ArtifactFilterKey(any_=[f"submission-{pk}-progress"]))
    async with get_client() as client:
        [artifact] = await client.read_artifacts(artifact_filter=key)
    return str(artifact.description)


def test_the_first_submission_has_no_estimate_and_the_next_one_is_measured_by_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = next(_PKS), next(_PKS)
    assert run(world, first).first_end is None
    seen: list[Forecast] = []
    update = world.ledger.update

    def noting(claim: Claim, values: Row) -> None:
        if forecast := read_forecast(values.get("forecast")):
            seen.append(forecast)
        update(claim, values)

    monkeypatch.setattr(world.ledger, "update", noting)

    ended = run(world, second)

    assert [(each.queue.position, each.queue.why) for each in seen if each.queue] == [(9, WHY), (5, WHY)]
    assert (ended.started, ended.ended) == (True, True)
    assert ended.first_start == seen[0].start
    past = json.loads(world.store.objects["times.json"])
    assert [each["submission"] for each in past] == [first, second]
    assert past[0]["pair_seconds"] == [3000.0] * 4  # what tests.fakes.observations_of says of five routes
    assert (past[0]["off"], past[1]["off"] is not None) == (None, True)
    assert "expected to end at" in asyncio.run(_bar(second))


def test_explain_says_the_place_why_the_expected_times_and_how_good_estimates_were(world: World) -> None:
    pk, past = next(_PKS), next(_PKS)
    run(world, past)
    kept = json.loads(world.store.objects["times.json"])
    world.store.objects["times.json"] = json.dumps([{**kept[0], "off": 0.12}, {**kept[0], "off": 0.2}]).encode()
    run(world, pk)
    now = datetime.now(UTC).replace(microsecond=0)
    expected = Forecast(1, start=now + timedelta(hours=1), end=now + timedelta(hours=2))
    row = {name: value for name, value in world.ledger.rows[pk].items() if name != "end-time"}
    world.ledger.rows[pk] = {**row, "stage": "simulating", "forecast": expected.described()}

    explained = asyncio.run(_explain(world, pk))

    assert explained.described() | {"where": "", "since": ""} == explained.described() | {
        "where": "",
        "since": "",
        "queue": {"position": 9, "waiting": 12, "running": 8, "why": WHY},
        "expected_start": (now + timedelta(hours=1)).isoformat(),
        "expected_end": (now + timedelta(hours=2)).isoformat(),
        "past_estimates": 3,
        "past_estimates_off_percent": 20.0,
    }
    lines = dict(explained.lines)
    assert lines["expected"].startswith(f"queued: 9 of 12 ({WHY}); expected to start at ")
    assert lines["estimates"] == "the end was off by 20 % in the median, over the last 3 that finished here"


async def _explain(world: World, pk: int) -> Explanation:
    return await explain_submission(await world.load_services(), pk)
