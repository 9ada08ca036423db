"""The list that all runs share, by the flow's own code in virtual time: what it costs, and what reaches the runs."""

import asyncio
from collections import Counter

import pytest

from benchmarks.evalai_requests import simulate
from benchmarks.virtual_time import run_in_virtual_time
from evaluation.errors import ServiceUnavailable
from evaluation.submission.model import SubmissionStatus
from flows.evalai_list import NEWS_SECONDS, SharedList
from tests.fakes import FakeDocument, FakeEvalAI

RUNNING = SubmissionStatus.RUNNING


def test_twenty_submissions_in_flight_cost_at_most_a_fifth_of_a_request_a_minute() -> None:
    result = simulate(20, minutes=30)

    assert result.sent["look"] == 0
    assert result.sent["list"] / result.submissions / result.minutes <= 0.2
    assert result.per_submission_minute <= 0.35  # the status and the report included: four in half an hour
    assert result.noticed_after <= 40


def test_a_cancellation_reaches_its_run_soon_where_many_are_in_flight() -> None:
    result = simulate(60, minutes=10)

    assert result.noticed_after <= 25
    assert result.sent["list"] <= 6 * 10 + 5


def test_many_that_come_at_once_share_a_few_lists_and_look_nowhere_else() -> None:
    evalai = FakeEvalAI(statuses=dict.fromkeys(range(1, 101), RUNNING))
    document = FakeDocument()

    async def come() -> list[object]:
        processes = [SharedList(document, evalai, 1) for _ in range(4)]
        return await asyncio.gather(*(processes[pk % 4].now(pk) for pk in evalai.statuses))

    rows = run_in_virtual_time(come())

    assert None not in rows
    assert Counter(evalai.requests)["list"] <= 3


def test_a_submission_never_gets_a_list_that_was_begun_before_it_asked() -> None:
    evalai, document = FakeEvalAI(statuses={7: SubmissionStatus.FAILED}), FakeDocument()

    async def resume() -> object:
        listed = SharedList(document, evalai, 1)
        await listed.now(7)
        evalai.statuses[7] = SubmissionStatus.RESUMING
        return await listed.now(7)

    row = run_in_virtual_time(resume())

    assert getattr(row, "status", None) is SubmissionStatus.RESUMING


def test_what_has_ended_is_not_in_the_list() -> None:
    evalai = FakeEvalAI(statuses={7: SubmissionStatus.FINISHED})

    assert run_in_virtual_time(SharedList(FakeDocument(), evalai, 1).now(7)) is None


def test_who_asked_and_died_is_waited_for_and_then_replaced() -> None:
    evalai, document = FakeEvalAI(statuses={7: RUNNING}), FakeDocument()
    document.begin(0)

    row = run_in_virtual_time(SharedList(document, evalai, 1).now(7))

    assert row is not None
    assert document.made.done == document.made.begun == 3


def test_an_outage_of_evalai_is_told_at_once_to_who_asked() -> None:
    evalai = FakeEvalAI(statuses={7: RUNNING}, trouble=[ServiceUnavailable("EvalAI does not answer")])

    with pytest.raises(ServiceUnavailable, match="EvalAI does not answer"):
        run_in_virtual_time(SharedList(FakeDocument(), evalai, 1).now(7))


def test_without_any_list_the_wait_has_an_end() -> None:
    evalai, document = FakeEvalAI(statuses={7: RUNNING}), FakeDocument()

    async def others_begin_and_die() -> None:
        while True:
            document.begin(document.made.begun)
            await asyncio.sleep(10)

    async def come() -> float:
        others = asyncio.create_task(others_begin_and_die())
        await asyncio.sleep(0)
        try:
            with pytest.raises(ServiceUnavailable, match="does not come"):
                await SharedList(document, evalai, 1).now(7)
        finally:
            others.cancel()
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(come()) == pytest.approx(NEWS_SECONDS, abs=1)


def test_a_list_that_nobody_renews_says_nothing_any_more() -> None:
    evalai, document = FakeEvalAI(statuses={7: RUNNING}), FakeDocument()

    async def follow() -> tuple[object, object]:
        listed = SharedList(document, evalai, 1)
        await listed.now(7)
        fresh = await listed.lately(7, 30)
        evalai.trouble = [ServiceUnavailable("EvalAI does not answer")] * 100
        for _ in range(40):
            await asyncio.sleep(5)
            old = await listed.lately(7, 30)
        return fresh, old

    fresh, old = run_in_virtual_time(follow())

    assert (fresh is not None, old) == (True, None)
