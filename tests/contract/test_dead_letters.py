"""Dead letters on moto's SQS, standard and FIFO: seen without being lost or hidden, sent back without being lost."""

import json
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aws_blocks import create_queue, received_dead, remaining
from pydantic import SecretStr

from blocks.dead_letters import DeadLetters, queue_facts
from blocks.evalai import EvalAI
from blocks.submission_queue import SubmissionQueue
from cli import queue as queue_commands
from cli.queue import dead, discard, redrive
from evaluation.errors import InvalidConfiguration, NeedsOperator
from evaluation.submission.message import Delivery

BODY = {"challenge_pk": "1", "phase_pk": "2203", "submitted_image_uri": "reg/img:1", "submission_pk": 90}


def body(pk: int, **changes: object) -> str:
    return json.dumps(BODY | {"submission_pk": pk} | changes)


def send(aws: dict[str, Any], queue: SubmissionQueue, text: str, group: str = "2203-7") -> None:
    """As EvalAI does; its deduplication ids never repeat."""
    kind = {"MessageGroupId": group, "MessageDeduplicationId": f"evalai-{text}"} if fifo(queue) else {}
    boto3.client("sqs", **aws).send_message(QueueUrl=queue.queue_url, MessageBody=text, **kind)  # type: ignore[arg-type]


def reject(aws: dict[str, Any], queue: SubmissionQueue, *texts: str, reason: str = "The phase is unknown.") -> None:
    """Send messages and reject them, as the bridge does."""
    for text in texts:
        send(aws, queue, text)
        [received] = queue.receive(1, wait_seconds=0)
        queue.reject(received.delivery, received.body, reason, received.group, received.count)


def fifo(queue: SubmissionQueue) -> bool:
    return queue.queue_url.endswith(".fifo")


def redrive_policy(aws: dict[str, Any], queue: SubmissionQueue, receives: int) -> None:
    policy = {"deadLetterTargetArn": queue_facts(queue, queue.dead_letter_url).arn, "maxReceiveCount": receives}
    boto3.client("sqs", **aws).set_queue_attributes(
        QueueUrl=queue.queue_url, Attributes={"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "0"}
    )


def moved_by_sqs(aws: dict[str, Any], queue: SubmissionQueue, *texts: str) -> None:
    """Receive the messages once more often than the policy allows."""
    redrive_policy(aws, queue, receives=2)
    for text in texts:
        send(aws, queue, text)
    for _ in range(3):
        queue.receive(10, wait_seconds=0)
        queue.receive(10, wait_seconds=0)


def quick(queue: SubmissionQueue) -> DeadLetters:
    return DeadLetters(queue, wait_seconds=0)


def send_all_back(queue: SubmissionQueue) -> None:
    with quick(queue) as letters:
        for letter in letters:
            letters.send_back(letter)


def dead_counts(queue: SubmissionQueue) -> tuple[int, int]:
    facts = queue_facts(queue, queue.dead_letter_url)
    return facts.visible, facts.hidden


@pytest.fixture(params=["standard", "fifo"])
def queue(aws: dict[str, Any], request: pytest.FixtureRequest) -> SubmissionQueue:
    created: SubmissionQueue = create_queue(aws, fifo=request.param == "fifo")
    return created


def test_more_letters_than_one_poll_brings_are_seen_once_each_and_given_back(
    aws: dict[str, Any], queue: SubmissionQueue
) -> None:
    sent = {body(pk) for pk in range(100, 123)}
    reject(aws, queue, *sorted(sent))

    with quick(queue) as letters:
        found = [letter.received.body for letter in letters]
        assert dead_counts(queue) == (0, 23)
        assert letters.unseen() == 0

    assert (len(found), set(found)) == (23, sent)
    assert dead_counts(queue) == (23, 0)


def test_a_letter_keeps_its_reason_its_time_and_how_often_it_was_delivered(
    aws: dict[str, Any], queue: SubmissionQueue
) -> None:
    send(aws, queue, body(90))
    [first] = queue.receive(wait_seconds=0)
    queue.hide(first.delivery, 0)
    [second] = queue.receive(wait_seconds=0)

    queue.reject(second.delivery, second.body, "The phase is unknown.", second.group, second.count)

    with quick(queue) as letters:
        [letter] = letters
    assert (letter.reason, letter.deliveries) == ("The phase is unknown.", 2)
    assert abs(datetime.now(UTC) - letter.since) < timedelta(minutes=1)
    assert letter.received.group == ("2203-7" if fifo(queue) else None)


def test_a_letter_that_sqs_moved_says_after_how_many_receives(aws: dict[str, Any], queue: SubmissionQueue) -> None:
    moved_by_sqs(aws, queue, body(90))

    with quick(queue) as letters:
        [letter] = letters

    assert letter.reason.startswith("SQS gave up after 2 receives")
    assert (letter.deliveries, letter.received.body) == (2, body(90))


def test_a_letter_that_somebody_put_there_by_hand_says_so(aws: dict[str, Any]) -> None:
    queue = create_queue(aws)
    boto3.client("sqs", **aws).send_message(QueueUrl=queue.dead_letter_url, MessageBody="by hand")

    with quick(queue) as letters:
        [letter] = letters

    assert letter.reason.startswith("The message has no reason")
    assert letter.deliveries is None


def test_a_letter_sent_back_arrives_as_it_was_and_is_gone_from_the_dead(
    aws: dict[str, Any], queue: SubmissionQueue
) -> None:
    reject(aws, queue, body(90))

    send_all_back(queue)

    [received] = queue.receive(wait_seconds=0)
    assert (received.body, received.count) == (body(90), 1)
    assert received.group == ("2203-7" if fifo(queue) else None)
    assert dead_counts(queue) == (0, 0)


def test_a_letter_of_a_flow_goes_back_to_a_fifo_queue_without_its_group(aws: dict[str, Any]) -> None:
    queue = create_queue(aws, fifo=True)
    send(aws, queue, body(90))
    [received] = queue.receive(wait_seconds=0)
    queue.reject(received.delivery, received.body, "EvalAI does not know the submission.")  # it only has the delivery

    with quick(queue) as letters:
        [letter] = list(letters)
        letters.send_back(letter)

    [again] = queue.receive(wait_seconds=0)
    assert (again.body, again.group, letter.deliveries) == (body(90), received.delivery.message_id, None)


class Killed(BaseException):
    """The process ends here."""


def test_a_letter_whose_redrive_died_halfway_is_on_both_queues_and_redriven_once_more(
    aws: dict[str, Any], queue: SubmissionQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reject(aws, queue, body(90))

    def die(_queue: SubmissionQueue, _delivery: Delivery) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(SubmissionQueue, "acknowledge", die)
        with pytest.raises(Killed):
            send_all_back(queue)
    assert (remaining(aws, queue), dead_counts(queue)) == ((1, 0), (1, 0))

    send_all_back(queue)

    # A FIFO queue drops the second one; on a standard queue the claim makes it a no-op.
    copies = queue.receive(wait_seconds=0) + queue.receive(wait_seconds=0)
    assert [copy.body for copy in copies] == [body(90)] * (1 if fifo(queue) else 2)
    assert dead_counts(queue) == (0, 0)


def test_a_letter_that_cannot_be_sent_stays(aws: dict[str, Any], queue: SubmissionQueue) -> None:
    reject(aws, queue, body(90))
    ending = ".fifo" if fifo(queue) else ""
    absent = queue.model_copy(update={"queue_url": queue.queue_url.removesuffix(".fifo") + "-absent" + ending})

    with pytest.raises(InvalidConfiguration, match=r"to .*-absent(\.fifo)? failed"):
        send_all_back(absent)

    assert dead_counts(queue) == (1, 0)


def test_letters_that_another_command_holds_are_counted(aws: dict[str, Any], queue: SubmissionQueue) -> None:
    reject(aws, queue, body(90), body(91))

    with quick(queue) as letters:
        next(iter(letters))
        with quick(queue) as others:
            assert (list(others), others.unseen()) == ([], 2)

    assert dead_counts(queue) == (2, 0)


def test_a_fifo_group_that_hides_its_rest_is_counted_and_redriven_to_its_end(aws: dict[str, Any]) -> None:
    queue = create_queue(aws, fifo=True)
    on_the_dead = queue.model_copy(update={"queue_url": queue.dead_letter_url})
    for pk in range(100, 112):  # as SQS moves them: in their group, whose rest it hides from who holds ten of it
        send(aws, on_the_dead, body(pk))

    with quick(queue) as letters:
        assert (len(list(letters)), letters.unseen()) == (10, 2)
    send_all_back(queue)

    assert (remaining(aws, queue), dead_counts(queue)) == ((12, 0), (0, 0))


# The commands. Where the blocks come from is another matter: tests/e2e runs them on a whole stack.


@pytest.fixture
def commanded(aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> SubmissionQueue:
    """The queue of the installation that `leaderboard queue` talks to, which knows the phase 2203 and challenge 1."""
    queue: SubmissionQueue = create_queue(aws)
    phases = {"2203": "leaderboard-20-SENSORS"}
    evalai = EvalAI(api_server="https://evalai.example", auth_token=SecretStr("t"), phases=phases, challenge_pk=1)
    monkeypatch.setattr(queue_commands, "installation", lambda _settings: nullcontext())
    monkeypatch.setattr(queue_commands, "load_queue", lambda: queue)
    monkeypatch.setattr(queue_commands, "load_saved_block", lambda _kind, _name: evalai)
    monkeypatch.setattr(queue_commands, "DeadLetters", quick)
    monkeypatch.setenv("COLUMNS", "160")
    return queue


def test_the_table_says_which_submission_and_why(
    aws: dict[str, Any], commanded: SubmissionQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    reject(aws, commanded, "not [bold]JSON", reason="The message is not JSON.")
    reject(aws, commanded, body(90), body(91, phase_pk=7), reason="The phase [7] is unknown.")

    dead()

    shown = capsys.readouterr().out
    [broken] = [line for line in shown.splitlines() if "The message is not JSON." in line]
    [known] = [line for line in shown.splitlines() if "leaderboard-20-SENSORS" in line]
    assert "3 dead letters" in shown
    assert broken.count(" - ") == 1
    assert " 90 " in known
    assert shown.count("The phase [7] is unknown.") == 2
    assert dead_counts(commanded) == (3, 0)


def test_an_empty_queue_says_so(commanded: SubmissionQueue, capsys: pytest.CaptureFixture[str]) -> None:
    dead()
    assert redrive() == 0

    assert capsys.readouterr().out == "There are no dead letters.\n" * 2


def test_json_has_whole_ids_and_bodies(
    aws: dict[str, Any], commanded: SubmissionQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    reject(aws, commanded, body(90))

    dead(as_json=True)

    shown = json.loads(capsys.readouterr().out)
    [letter] = shown["dead_letters"]
    assert shown["unseen"] == 0
    assert len(letter.pop("message_id")) == 36
    assert letter.pop("since").endswith("+00:00")
    assert letter == {
        "submission": 90,
        "phase": "leaderboard-20-SENSORS",
        "reason": "The phase is unknown.",
        "deliveries": 1,
        "body": body(90),
    }


def test_a_redrive_sends_the_valid_ones_and_refuses_what_would_come_back(
    aws: dict[str, Any], commanded: SubmissionQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    reject(aws, commanded, "not JSON", body(90), body(91, phase_pk=7), body(92, challenge_pk=2))

    code = redrive()

    shown = capsys.readouterr().out
    assert code == 1
    assert shown.endswith("1 sent back, 3 refused\n")
    for reason in ("The message is not JSON", "Phase 7 is not in the secret evalai-tracks", "another challenge"):
        [line] = [line for line in shown.splitlines() if reason in line]
        assert line.startswith("refused: ")
        assert "would come back" in line
        assert line.endswith("--force sends it all the same.")
    assert [received.body for received in commanded.receive(wait_seconds=0)] == [body(90)]
    assert dead_counts(commanded) == (3, 0)


def test_a_dry_run_changes_nothing(
    aws: dict[str, Any], commanded: SubmissionQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    reject(aws, commanded, body(90), body(91))

    assert redrive(dry_run=True) == 0

    assert capsys.readouterr().out.endswith("2 would be sent back\n")
    assert (remaining(aws, commanded), dead_counts(commanded)) == ((0, 0), (2, 0))


def test_force_sends_even_what_is_invalid(aws: dict[str, Any], commanded: SubmissionQueue) -> None:
    reject(aws, commanded, "not JSON")

    assert redrive(force=True) == 0

    assert [received.body for received in commanded.receive(wait_seconds=0)] == ["not JSON"]


def test_one_letter_is_chosen_by_its_submission(aws: dict[str, Any], commanded: SubmissionQueue) -> None:
    reject(aws, commanded, body(90), body(91), body(91))

    assert redrive("91") == 0

    assert [received.body for received in commanded.receive(wait_seconds=0)] == [body(91), body(91)]
    assert [text for text, _ in received_dead(aws, commanded)] == [body(90)]


@pytest.mark.parametrize("length", [8, 36])
def test_one_letter_is_chosen_by_its_message_id(
    aws: dict[str, Any], commanded: SubmissionQueue, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    reject(aws, commanded, body(90), body(91))
    dead(as_json=True)
    wanted = json.loads(capsys.readouterr().out)["dead_letters"][1]

    assert redrive(wanted["message_id"][:length]) == 0

    assert [received.body for received in commanded.receive(wait_seconds=0)] == [wanted["body"]]


@pytest.mark.parametrize("wanted", ["92", "9", "nonsense-id"])
def test_a_letter_that_is_not_there_is_named(aws: dict[str, Any], commanded: SubmissionQueue, wanted: str) -> None:
    reject(aws, commanded, body(90), body(91))

    with pytest.raises(NeedsOperator, match=f"No single dead letter matches {wanted}: there are 2"):
        redrive(wanted)

    assert dead_counts(commanded) == (2, 0)


@pytest.mark.parametrize(("dry_run", "left", "said"), [(True, 2, "1 would be discarded"), (False, 1, "1 discarded")])
def test_a_letter_that_is_discarded_is_printed_whole_and_deleted(
    aws: dict[str, Any],
    commanded: SubmissionQueue,
    capsys: pytest.CaptureFixture[str],
    dry_run: bool,
    left: int,
    said: str,
) -> None:
    reject(aws, commanded, body(90), body(91))

    discard("90", dry_run=dry_run)

    out = capsys.readouterr().out
    assert body(90) in out
    assert body(91) not in out
    assert out.splitlines()[-1] == said
    assert dead_counts(commanded) == (left, 0)


def test_all_letters_are_discarded_where_that_is_said(aws: dict[str, Any], commanded: SubmissionQueue) -> None:
    reject(aws, commanded, body(90), "not json")
    discard("all")
    assert dead_counts(commanded) == (0, 0)
