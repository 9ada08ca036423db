"""The queue of submissions, its redrive policy, and the dead letters."""

from collections.abc import Iterator
from functools import partial

from blocks.dead_letters import QueueFacts, queue_facts
from doctor.context import DoctorContext
from doctor.findings import Check
from evaluation.errors import InvalidConfiguration
from services.bridge import BridgeSettings

QUEUE = "Update the stack of deployments/aws/queue.yaml."
SHORTEST_VISIBILITY = 10  # seconds in which the bridge has to have hidden what it received
_DAY = 24 * 3600


def queue_checks(context: DoctorContext) -> Iterator[Check]:
    yield Check("Queue: messages", partial(_messages, context))
    yield Check("Queue: redrive policy", partial(_redrive, context))
    yield Check("Queue: dead letters", partial(_dead_letters, context))


def _messages(context: DoctorContext) -> str:
    queue = context.queue()
    facts = queue_facts(queue, queue.queue_url)
    if facts.visibility_seconds < SHORTEST_VISIBILITY:
        raise InvalidConfiguration(
            f"The queue hides a message for {facts.visibility_seconds} s only",
            "it comes again before the bridge has hidden it",
            f"Give it a visibility timeout of {SHORTEST_VISIBILITY} s at least. {QUEUE}",
        )
    return f"{facts.visible} wait, {facts.hidden} are hidden while their runs start"


def _redrive(context: DoctorContext) -> str:
    queue = context.queue()
    facts = queue_facts(queue, queue.queue_url)
    dead = context.need(lambda: queue_facts(queue, queue.dead_letter_url), "the dead-letter queue")
    for problem in _problems(facts, dead):
        raise InvalidConfiguration("Messages may be lost, or become dead letters without a reason", problem, QUEUE)
    return f"after {facts.receives_before_dead} receives; dead letters are kept {dead.retention_seconds // _DAY} days"


def _problems(queue: QueueFacts, dead: QueueFacts) -> Iterator[str]:
    deliveries = BridgeSettings().deliveries_within(queue.retention_seconds)
    if queue.dead_letter_arn is None:
        yield "the queue has no redrive policy"
    elif queue.dead_letter_arn != dead.arn:
        yield f"the queue's redrive policy names {queue.dead_letter_arn}, the block {dead.arn}"
    elif queue.receives_before_dead is not None and queue.receives_before_dead <= deliveries:
        yield (
            f"SQS gives up after {queue.receives_before_dead} receives; a message that nobody claims is received "
            f"{deliveries} times while the queue keeps it"
        )
    if dead.retention_seconds <= queue.retention_seconds:
        yield "the dead-letter queue keeps messages no longer than the queue, and counts from their first sending"


def _dead_letters(context: DoctorContext) -> str:
    queue = context.queue()
    count = queue_facts(queue, queue.dead_letter_url).messages
    if count:
        raise InvalidConfiguration(
            f"{count} message{'s' if count > 1 else ''} could not be evaluated",
            "each with its reason",
            "`leaderboard queue dead` shows them, `leaderboard queue redrive` sends them back.",
        )
    return "none"
