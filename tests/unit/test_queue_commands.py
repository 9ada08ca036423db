"""Which dead letters an argument names."""

from datetime import UTC, datetime

import pytest

from blocks.dead_letters import DeadLetter
from blocks.submission_queue import Received
from cli.queue import Fate, choose, reported
from evaluation.errors import NeedsOperator
from evaluation.submission.message import Delivery


def a_letter(message_id: str, body: str) -> DeadLetter:
    delivery = Delivery(queue_url="q", receipt_handle="r", message_id=message_id)
    return DeadLetter(Received(body, delivery, 1, None), "A reason.", datetime(2026, 11, 21, tzinfo=UTC), 1)


def about(pk: int, message_id: str) -> DeadLetter:
    return a_letter(message_id, f'{{"challenge_pk": 1, "phase_pk": 2, "submission_pk": {pk}}}')


FIRST = about(12345678, "aaaaaaaa-1111")
SECOND = about(7, "12345678-2222")
THIRD = a_letter("aaaaaaaa-3333", "not JSON")
LETTERS = [FIRST, SECOND, THIRD]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("12345678", FIRST),  # a submission's id before a message's
        ("7", SECOND),
        ("12345678-", SECOND),
        ("aaaaaaaa-3", THIRD),
    ],
)
def test_a_letter_is_meant_by_its_submission_or_its_beginning(wanted: str, chosen: DeadLetter) -> None:
    assert choose(LETTERS, wanted) == [chosen]


@pytest.mark.parametrize(
    ("wanted", "problem"), [("aaaaaaaa", "2 of the 3 begin so"), ("aaaaaaa", "there are 3"), ("8", "there are 3")]
)
def test_what_means_none_or_several_is_refused(wanted: str, problem: str) -> None:
    with pytest.raises(NeedsOperator, match=f"No single dead letter matches {wanted}: {problem}"):
        choose(LETTERS, wanted)


def test_a_fate_names_message_submission_and_reason() -> None:
    assert reported(SECOND, Fate.SENT, "") == "sent back: 12345678-2222 (submission 7)"
    assert reported(THIRD, Fate.REFUSED, "no.") == "refused: aaaaaaaa-3333 (of no submission): no."
