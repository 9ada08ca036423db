"""What the client writes while others write too: cancellations, deletions, a run that has gone on in the meantime."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from embedded.evalai_standin import Fault
from embedded.evalai_standin.responses import Answer
from embedded.evalai_standin.state import Submission
from evalai_api.client import EvalAIClient
from evaluation.errors import RequestRefused, SubmissionCancelled
from evaluation.lifecycle.write_permit import WritePermit
from evaluation.submission.model import SubmissionStatus
from tests.contract.evalai_world import World, evaluated, report


@pytest.fixture
def world(evalai_standin: Callable[[], World]) -> World:
    return evalai_standin()


Write = Callable[[EvalAIClient, Submission], None]
# How many requests each makes; all of their slots are taken before the status is read.
WRITES: list[tuple[int, Write]] = [
    (2, lambda client, row: client.mark_running(evaluated(row), "job")),
    (3, lambda client, row: client.report(report(row, SubmissionStatus.FINISHED))),
    (3, lambda client, row: client.report(report(row, SubmissionStatus.FAILED))),
    (3, lambda client, row: client.report_partial(report(row, SubmissionStatus.PARTIALLY_EVALUATED))),
]


@pytest.mark.parametrize(("requests", "write"), WRITES)
def test_a_cancellation_while_the_write_waits_for_its_slot_stands(world: World, requests: int, write: Write) -> None:
    row = world.add(SubmissionStatus.QUEUED)

    def cancel_at_the_last_wait(number: int) -> None:
        if number == requests:
            row.status = SubmissionStatus.CANCELLED

    world.before_request = cancel_at_the_last_wait

    with pytest.raises(SubmissionCancelled):
        write(world.client(), row)

    assert (row.status, world.state.entries, world.requests) == (SubmissionStatus.CANCELLED, [], requests)


def test_a_cancellation_while_a_retry_waits_for_its_slot_stands(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    world.state.fail(Fault.broken(), method="PUT")

    def cancel_at_the_last_wait_of_the_second_attempt(number: int) -> None:
        if number == 5:  # its phase; its status and the report, twice
            row.status = SubmissionStatus.CANCELLED

    world.before_request = cancel_at_the_last_wait_of_the_second_attempt

    with pytest.raises(SubmissionCancelled):
        world.client().report(report(row, SubmissionStatus.FINISHED))

    assert (row.status, world.state.entries) == (SubmissionStatus.CANCELLED, [])


def test_a_partial_report_whose_run_has_gone_on_is_not_written(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    permit = WritePermit()

    def end_while_it_waits_for_a_slot(number: int) -> None:
        if number == 2:
            permit.revoke()

    world.before_request = end_while_it_waits_for_a_slot

    world.client().report_partial(replace(report(row, SubmissionStatus.PARTIALLY_EVALUATED), permit=permit))

    assert (row.status, world.state.entries) == (SubmissionStatus.RUNNING, [])


def test_revoking_waits_for_the_write_that_is_under_way(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    permit = WritePermit()
    partial = replace(report(row, SubmissionStatus.PARTIALLY_EVALUATED), permit=permit)
    world.state.fail(Fault.slow(0.5), method="PUT")
    thread = threading.Thread(target=world.client().report_partial, args=(partial,))
    thread.start()
    while not permit._lock.locked() and thread.is_alive():
        thread.join(0.005)

    permit.revoke()

    assert row.status is SubmissionStatus.PARTIALLY_EVALUATED  # it came before the end, and nothing comes after
    world.client().report(report(row, SubmissionStatus.FINISHED))
    thread.join()
    assert row.status is SubmissionStatus.FINISHED


def test_a_list_since_a_moment_costs_six_requests_and_one_for_each_row_that_is_named_and_not_among_them(
    world: World,
) -> None:
    old, new = world.add(SubmissionStatus.FINISHED), world.add(SubmissionStatus.FINISHED)
    old.submitted_at = old.submitted_at.replace(year=2020)

    found = world.client().submissions(1, since=new.submitted_at.replace(year=2021), also=(new.pk, old.pk, 4242))

    assert [row.pk for row in found] == [old.pk, new.pk]
    assert world.requests == 6 + 2


def test_a_gateways_404_says_nothing_of_the_submission(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    world.state.fail(Fault(answer=Answer(404, {"message": "no route"})), method="GET")

    with pytest.raises(Exception, match="EvalAI's API is not at this address"):
        world.client().mark_running(evaluated(row), "job")


@pytest.mark.parametrize("disabled", [False, True])
def test_a_phase_without_logs_gets_none(world: World, disabled: bool) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    phases = tuple(phase.model_copy(update={"disable_logs": disabled}) for phase in world.state.config.phases)
    world.state.config = world.state.config.model_copy(update={"phases": phases})

    world.client().report(report(row, SubmissionStatus.FAILED, stdout="summary", stderr="It failed.\nagent's output"))

    written = [world.state.media[str(file)].decode() for file in (row.stdout_file, row.stderr_file)]
    assert written == (["", "It failed."] if disabled else ["summary", "It failed.\nagent's output"])


def test_an_unknown_challenge_is_no_unknown_submission(world: World) -> None:
    world.state.fail(Fault(answer=Answer(404, {"detail": "Challenge 9 does not exist"})))

    with pytest.raises(RequestRefused, match="Challenge 9 does not exist"):
        world.client().status(1)
