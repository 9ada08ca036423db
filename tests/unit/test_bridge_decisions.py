"""What the bridge decides, without any server."""

import pytest

from blocks.submission_queue import Received
from evaluation.submission.message import Delivery, SubmissionMessage
from services.bridge import BridgeSettings, read_submission, submission_received

BODY = '{"challenge_pk": "1", "phase_pk": "2", "submission_pk": 3}'


def received(body: str = BODY, count: int = 1, receipt: str = "r-1") -> Received:
    return Received(body, Delivery(queue_url="q", receipt_handle=receipt, message_id="m"), count, None)


def test_a_message_is_hidden_longer_with_each_delivery() -> None:
    settings = BridgeSettings(claim_seconds=300, longest_claim_seconds=3600)
    assert [settings.hidden_seconds(n) for n in (1, 2, 3, 4, 5, 6, 100_000)] == [300, 600, 1200, 2400, 3600, 3600, 3600]


@pytest.mark.parametrize(("seconds", "deliveries"), [(1, 1), (300, 1), (301, 2), (4500, 4), (4501, 5), (345_600, 99)])
def test_how_often_a_message_is_delivered_in_a_time(seconds: float, deliveries: int) -> None:
    assert BridgeSettings().deliveries_within(seconds) == deliveries


def test_a_message_that_nobody_claims_is_published_again_however_often_it_was_delivered() -> None:
    assert read_submission(received(count=100_000), BridgeSettings()).submission_pk == 3


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
