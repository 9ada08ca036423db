"""Sending a message to a dead-letter queue, with what an operator needs to know of it as attributes."""

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aws_api.errors import aws_errors
from evaluation.errors import RequestRefused

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

# Why, from where, since when, after how many deliveries, and the message's group on a FIFO queue.
REASON, RECEIVED_FROM, RECEIVED_AT, DELIVERIES, GROUP = "reason", "received-from", "received-at", "deliveries", "group"

_LOG = logging.getLogger(__name__)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_REASON = 1024  # characters


def send_dead_letter(sqs: "SQSClient", url: str, message_id: str, body: str, known: Mapping[str, str | None]) -> None:
    """Send the body with the attributes that are not None; raises what `aws_errors` says.

    Attributes count as part of a message's size: a body of the full size is sent without them, and its reason logged.
    """
    try:
        _send(sqs, url, message_id, body, known)
    except RequestRefused as refusal:
        _LOG.warning(
            "message %s becomes a dead letter without its reason, which is: %s (%s)",
            message_id,
            known.get(REASON),
            refusal,
        )
        _send(sqs, url, message_id, body, {})


def _send(sqs: "SQSClient", url: str, message_id: str, body: str, known: Mapping[str, str | None]) -> None:
    attributes = {name: _attribute(value) for name, value in known.items() if value is not None}
    with aws_errors(f"Sending message {message_id} to {url}"):
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes, **_fifo(url, message_id))


def _fifo(url: str, message_id: str) -> dict[str, Any]:
    if not url.endswith(".fifo"):
        return {}
    # The message's id, so that a message sent but not yet deleted arrives once when it is sent again; and a group
    # of its own, because SQS hides a group's other messages from a reader that holds ten of them.
    return {"MessageGroupId": message_id, "MessageDeduplicationId": message_id}


def _attribute(value: str) -> Any:
    """A text as SQS takes it for an attribute of a message."""
    return {"DataType": "String", "StringValue": _UNPRINTABLE.sub("\ufffd", value)[:_LONGEST_REASON] or "-"}
