"""The bridge from a queue to Prefect: one event per message, and no memory of its own.

It never deletes a good message: the flow run that takes the work does. So whatever is lost on the way, an event, a run,
a server, the message comes back and is published again. The price is that a run may find its work claimed.
A message that cannot be read or published, whatever its body holds, goes to the dead-letter queue at once. One that
no run claims never does, however often it was delivered: that is no fault of the message.
"""

import contextvars
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol
from uuid import NAMESPACE_URL, uuid5

from blocks.submission_queue import Received, SubmissionQueue
from compute_client.stop_signals import stopped_by_signals
from evaluation.errors import EvaluationError, InvalidMessage, NeedsOperator, RequestRefused, ServiceUnavailable
from evaluation.submission.message import SubmissionMessage, parse_message
from prefect_api.events import OutgoingEvent, prefect_events
from services.bridge_heartbeat import BridgeHeartbeat
from services.bridge_metrics import BridgeMetrics
from services.outage import Outage

EVENT = "leaderboard.submission.received"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BridgeSettings:
    """Times in whole seconds where SQS takes them."""

    challenge_pk: int | None = None  # EvalAI's development mode puts all challenges on one queue
    batch: int = 10  # messages a poll; SQS allows 10
    wait_seconds: int = 20  # how long a poll waits; SQS allows 20
    # A message stays hidden this long for a run to start and claim it, then it is delivered again. Each delivery
    # doubles it, up to the longest: runs that wait for a worker shall not get another one every five minutes.
    claim_seconds: int = 300
    longest_claim_seconds: int = 3600
    first_pause_seconds: float = 1
    longest_pause_seconds: float = 60

    def hidden_seconds(self, delivery: int) -> int:
        """How long the n-th delivery of a message is hidden."""
        return int(min(self.claim_seconds * 2 ** min(delivery - 1, 20), self.longest_claim_seconds))

    def deliveries_within(self, seconds: float) -> int:
        """How often a message is delivered in that time at most, if no run claims it."""
        deliveries, at = 1, self.hidden_seconds(1)
        while at < seconds:
            deliveries += 1
            at += self.hidden_seconds(deliveries)
        return deliveries


class EventPublisher(Protocol):
    """Where the bridge publishes; prefect_api.events.PrefectEvents is the real one."""

    def publish(self, event: OutgoingEvent) -> None:
        """Raises InvalidMessage where the event cannot be sent at all, RequestRefused where this very event is not
        taken, ServiceUnavailable where none is at present."""


def submission_received(message: SubmissionMessage, received: Received) -> OutgoingEvent:
    """The event that starts `evaluate_submission`, whose parameters are the payload's two keys.

    Its id comes from the receipt: the same receipt sent twice counts once, the next delivery is a new event.
    """
    pk = message.submission_pk
    return OutgoingEvent(
        name=EVENT,
        resource_id=f"leaderboard.submission.{pk}",
        resource_name=f"submission {pk}",
        payload={"message": message.model_dump(mode="json"), "delivery": received.delivery.model_dump(mode="json")},
        id=uuid5(NAMESPACE_URL, received.delivery.receipt_handle),
    )


def read_submission(received: Received, settings: BridgeSettings) -> SubmissionMessage:
    """The message, if an event is to be published; raises InvalidMessage with the reason why it cannot be evaluated."""
    message = parse_message(received.body)
    if settings.challenge_pk not in (None, message.challenge_pk):
        raise InvalidMessage(
            f"Submission {message.submission_pk} belongs to another challenge",
            f"challenge_pk is {message.challenge_pk}, this installation evaluates {settings.challenge_pk}",
        )
    return message


def read_submission_event(received: Received, settings: BridgeSettings) -> OutgoingEvent:
    """The reader of EvalAI's queue."""
    return submission_received(read_submission(received, settings), received)


# Makes a message's event; raises InvalidMessage with the reason why none is to be published.
Reader = Callable[[Received, BridgeSettings], OutgoingEvent]


def run_bridge(
    queue: SubmissionQueue,
    publisher: EventPublisher,
    stop: threading.Event,
    settings: BridgeSettings,
    read: Reader = read_submission_event,
    beat: Callable[[], None] = lambda: None,
    count: Callable[[str], None] = lambda _: None,
) -> None:
    """Carry messages until `stop` is set; blocks. Outages of SQS or Prefect are waited out.

    `beat` is called before each poll, but not after one that failed: it publishes that messages are received.
    `count` is told what became of each message: published, rejected (a dead letter now), refused (it stays).
    Raises NeedsOperator where the very first poll is refused: the queue's address or the credentials are wrong.
    """
    bridge = _Bridge(queue, publisher, stop, settings, read, count)
    received: Sequence[Received] | None = ()
    while not stop.is_set():
        if received is not None:
            beat()
        received = bridge.poll()
        bridge.carry(received or ())


class _Bridge:
    def __init__(
        self,
        queue: SubmissionQueue,
        publisher: EventPublisher,
        stop: threading.Event,
        settings: BridgeSettings,
        read: Reader,
        count: Callable[[str], None],
    ) -> None:
        self._count = count
        self._queue = queue
        self._publisher = publisher
        self._stop = stop
        self._settings = settings
        self._read = read
        self._prefect = self._outage("Prefect")
        self._sqs = self._outage("SQS")
        self._visibility = self._outage("hiding messages")
        self._dead_letters = self._outage("the dead-letter queue")

    def _outage(self, of: str) -> Outage:
        return Outage(of, self._stop, self._settings.first_pause_seconds, self._settings.longest_pause_seconds)

    def poll(self) -> Sequence[Received] | None:
        """What SQS has; None, after a pause, where it does not answer."""
        try:
            received = self._queue.receive(self._settings.batch, self._settings.wait_seconds)
        except EvaluationError as error:
            if isinstance(error, NeedsOperator) and not self._sqs.used:
                raise
            self._sqs.failed(error)
            self._sqs.pause()
            return None
        self._sqs.worked()
        return received

    def carry(self, received: Sequence[Received]) -> None:
        waiting = deque(received)
        while waiting and not self._stop.is_set():
            first = waiting.popleft()
            if not self._settled(first):
                # Prefect is down. One message waits here and tries again; the others stay on the queue, uncounted,
                # because the queue is not polled meanwhile.
                self._give_back(waiting)
                waiting.clear()
                self._wait_out(first)
        self._give_back(waiting)

    def _settled(self, received: Received) -> bool:
        """Handle one message; False only where Prefect is down."""
        if not self._hide(received, self._settings.hidden_seconds(received.count)):
            return True  # its visibility timeout is over: it will be received again
        try:
            event = self._event(received)
            self._publisher.publish(event)
        except InvalidMessage as error:
            self._reject(received, error)
            return True
        except RequestRefused as error:
            # Not rejected at once: a Prefect server of another version would refuse the whole queue.
            _LOG.error("message %s stays on the queue: %s", received.delivery.message_id, error)
            self._count("refused")
            return True
        except ServiceUnavailable as error:
            self._prefect.failed(error)
            return False
        self._prefect.worked()
        self._count("published")
        _LOG.info("%s: event accepted, delivery %s", event.resource_name, received.count)
        return True

    def _event(self, received: Received) -> OutgoingEvent:
        try:
            return self._read(received, self._settings)
        except InvalidMessage:
            raise
        except Exception as error:
            # Reading depends on the body alone. An error that the reader does not know would end the bridge, which
            # would receive the same message at its next start.
            raise InvalidMessage("The message cannot be read", type(error).__name__) from error

    def _wait_out(self, received: Received) -> None:
        self._prefect.pause()
        while not self._stop.is_set():
            if self._settled(received):
                return
            self._prefect.pause()
        self._give_back([received])

    def _reject(self, received: Received, error: EvaluationError) -> None:
        message_id = received.delivery.message_id
        try:
            self._queue.reject(received.delivery, received.body, str(error), received.group, received.count)
        except EvaluationError as failure:  # the message comes back and tries again, the next ones go on
            self._dead_letters.failed(failure)
            return
        self._dead_letters.worked()
        self._count("rejected")
        _LOG.warning("message %s moved to the dead-letter queue: %s", message_id, error)

    def _give_back(self, messages: Sequence[Received]) -> None:
        for received in messages:
            self._hide(received, 0)

    def _hide(self, received: Received, seconds: int) -> bool:
        """False where the receipt no longer holds the message. A failed call is no reason to stop: the message is only
        delivered again too early."""
        try:
            held = self._queue.hide(received.delivery, seconds)
        except EvaluationError as error:
            self._visibility.failed(error)
            return True
        self._visibility.worked()
        return held


def serve_bridge(
    queue: SubmissionQueue,
    settings: BridgeSettings,
    grace_seconds: float = 1.0,
    read: Reader = read_submission_event,
    metrics: BridgeMetrics | None = None,
) -> None:
    """Run the bridge until SIGTERM or SIGINT, as all that its process does. Raises what run_bridge raises.

    Call it in the main thread. A poll cannot be interrupted, so the loop runs in a thread of its own. At a signal, a
    thread that is still in its poll after `grace_seconds` ends with the process, at once and with exit code 0: what
    the poll may still receive comes back after the queue's visibility timeout.
    """
    stop = threading.Event()
    outcome: Future[None] = Future()

    def loop() -> None:
        try:
            with prefect_events() as publisher:
                heartbeat = BridgeHeartbeat(publisher, queue.queue_url)
                seen = metrics or BridgeMetrics()

                def beat() -> None:
                    heartbeat.beat()
                    seen.polls()

                run_bridge(queue, publisher, stop, settings, read, beat, seen.count)
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            outcome.set_exception(error)
        finally:
            stop.set()

    # In the caller's context: a thread of its own would not know the installation's address, which may be in there.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(loop,), name="bridge", daemon=True)
    with stopped_by_signals(stop):
        thread.start()
        _LOG.info("bridge: publishes the messages of %s to Prefect", queue.queue_url)
        stop.wait()
    thread.join(grace_seconds)
    if outcome.done():
        outcome.result()
    _LOG.info("bridge: stopped")
    if thread.is_alive():
        # An ordinary end aborts (exit code -6) where it meets that thread in the middle of a log line.
        logging.shutdown()
        os._exit(0)
