"""What the bridge decides, without any server."""

import pytest

from blocks.submission_queue import Received
from evaluation.errors import InvalidMessage
from evaluation.submission.message import Delivery, SubmissionMessage
from services.bridge import BridgeSettings, read_submission, submission_received

BODY = '{"challenge_pk": "1", "phase_pk": "2", "submission_pk": 3}'


def received(body: str = BODY, count: int = 1, receipt: str = "r-1") -> Received:
    return Received(body, Delivery(queue_url="q", receipt_handle=receipt, message_id="m"), count, None)


def test_a_message_is_hidden_longer_with_each_delivery() -> None:
    settings = BridgeSettings(claim_seconds=300, longest_claim_seconds=3600)
    assert [settings.hidden_seconds(n) for n in (1, 2, 3, 4, 5, 6, 100_000)] == [300, 600, 1200, 2400, 3600, 3600, 3600]


def test_by_default_an_unclaimed_message_stays_for_most_of_a_day() -> None:
    settings = BridgeSettings()
    hours = sum(settings.hidden_seconds(n) for n in range(1, settings.deliveries + 1)) / 3600
    assert 16 < hours < 24  # well within the 4 days that EvalAI's queue keeps a message


def test_the_last_delivery_still_rings_and_the_next_one_does_not() -> None:
    settings = BridgeSettings(deliveries=3)
    assert read_submission(received(count=3), settings).submission_pk == 3
    with pytest.raises(InvalidMessage, match="No run has claimed submission 3: the message was delivered 3 times"):
        read_submission(received(count=4), settings)


@pytest.mark.parametrize("challenge", [None, 1])
def test_the_own_challenge_and_any_challenge(challenge: int | None) -> None:
    message = read_submission(received(), BridgeSettings(challenge_pk=challenge))
    assert message == SubmissionMessage(challenge_pk=1, phase_pk=2, submission_pk=3)


def test_one_receipt_is_one_event() -> None:
    message = SubmissionMessage(challenge_pk=1, phase_pk=2, submission_pk=3)
    events = [submission_received(message, received(receipt=receipt)) for receipt in ("r-1", "r-1", "r-2")]
    assert events[0] == events[1]
    assert events[0].id != events[2].id
    assert events[2].payload["message"] == {
        "challenge_pk": 1,
        "phase_pk": 2,
        "submission_pk": 3,
        "submitted_image_uri": None,
    }
