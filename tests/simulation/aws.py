"""AWS as boto3's clients show it: DynamoDB, SQS and S3, with botocore's own retries and errors."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar

from botocore.exceptions import ClientError, ReadTimeoutError

from tests.simulation.calls import Calls, Trouble
from tests.simulation.dynamodb_expressions import Item, condition, update

T = TypeVar("T")
PAGE = 3  # rows of a scan in one answer: a megabyte in the real one
TIMEOUT = 60.0  # seconds; botocore's own
ATTEMPTS = 5  # of one call, botocore's own retries included


def client_error(code: str, operation: str, status: int, **more: Any) -> ClientError:
    response = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(response, operation)  # type: ignore[arg-type]


class _Client:
    """What every client does: some attempts, with pauses between them."""

    service = ""

    def __init__(self, calls: Calls, attempts: int = ATTEMPTS, timeout: float = TIMEOUT) -> None:
        self._calls = calls
        self._attempts = attempts
        self._timeout = timeout

    def _call(self, operation: str, effect: Callable[[], T]) -> T:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._calls.blocking(self.service, operation, effect, self._timeout)
            except Trouble as trouble:
                if attempt == self._attempts:
                    raise self._error(trouble, operation) from None
                self._calls.hub.block(self._calls.chance.random.random() * min(2.0**attempt, 20.0) / 2)
        raise AssertionError("unreachable")

    def _error(self, trouble: Trouble, operation: str) -> Exception:
        match trouble.kind:
            case "throttled":
                return client_error("ThrottlingException", operation, 400)
            case "broken":
                return client_error("InternalServerError", operation, 500)
            case _:
                return ReadTimeoutError(endpoint_url=f"https://{self.service}.example")


Watcher = Callable[[str, Item | None, Item | None], None]  # table, the row before and after a write


@dataclass
class Tables:
    """DynamoDB's rows by table and key. `watchers` see each write, `on_update` each call that is to make one."""

    keys: dict[str, tuple[str, ...]]  # table -> names of its key's attributes
    rows: dict[str, dict[tuple[str, ...], Item]] = field(default_factory=dict)
    watchers: list[Watcher] = field(default_factory=list)
    on_update: Callable[[tuple[str, ...]], None] = lambda key: None

    def table(self, name: str) -> dict[tuple[str, ...], Item]:
        return self.rows.setdefault(name, {})

    def key(self, table: str, item: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(item[name]["S"]) for name in self.keys[table])

    def write(self, table: str, key: tuple[str, ...], item: Item) -> None:
        before = self.table(table).get(key)
        self.table(table)[key] = item
        for watcher in self.watchers:
            watcher(table, before, item)


class DynamoDB(_Client):
    """boto3.client("dynamodb")."""

    service = "dynamodb"

    def __init__(self, calls: Calls, tables: Tables, attempts: int = ATTEMPTS, timeout: float = TIMEOUT) -> None:
        super().__init__(calls, attempts, timeout)
        self._tables = tables

    def get_item(self, TableName: str, Key: Item, **_: Any) -> dict[str, Any]:  # noqa: N803 - boto3's names
        def effect() -> dict[str, Any]:
            item = self._tables.table(TableName).get(self._tables.key(TableName, Key))
            return {"Item": dict(item)} if item else {}

        return self._call("get_item", effect)

    def update_item(self, TableName: str, Key: Item, **given: Any) -> dict[str, Any]:  # noqa: N803
        key = self._tables.key(TableName, Key)
        names, values = given.get("ExpressionAttributeNames", {}), given.get("ExpressionAttributeValues", {})
        self._tables.on_update(key)

        def effect() -> dict[str, Any]:
            before = self._tables.table(TableName).get(key)
            self._check(given, before, names, values)
            change = given.get("UpdateExpression")
            after = update(change)(before or {}, names, values) if change else dict(before or {})
            self._tables.write(TableName, key, {**after, **Key})
            return {"Attributes": {**after, **Key}}

        return self._call("update_item", effect)

    def put_item(self, TableName: str, Item: Item, **given: Any) -> dict[str, Any]:  # noqa: N803
        key = self._tables.key(TableName, Item)
        names, values = given.get("ExpressionAttributeNames", {}), given.get("ExpressionAttributeValues", {})

        def effect() -> dict[str, Any]:
            self._check(given, self._tables.table(TableName).get(key), names, values)
            self._tables.write(TableName, key, dict(Item))
            return {}

        return self._call("put_item", effect)

    def _check(self, given: Mapping[str, Any], before: Item | None, names: Any, values: Any) -> None:
        text = given.get("ConditionExpression")
        if text and not condition(text)(before or {}, names, values):
            old = {"Item": dict(before)} if before else {}
            raise client_error("ConditionalCheckFailedException", "UpdateItem", 400, **old)

    def get_paginator(self, operation: str) -> "DynamoDB":
        assert operation == "scan"
        return self

    def paginate(self, TableName: str, **_: Any) -> Iterator[dict[str, Any]]:  # noqa: N803
        """Pages of a scan, each a call of its own: a row may change between two of them."""
        last: tuple[str, ...] | None = None
        while True:

            def effect(after: tuple[str, ...] | None = last) -> tuple[list[Item], tuple[str, ...] | None]:
                table = self._tables.table(TableName)
                keys = sorted(key for key in table if after is None or key > after)
                return [dict(table[key]) for key in keys[:PAGE]], keys[PAGE - 1] if len(keys) > PAGE else None

            items, last = self._call("scan", effect)
            yield {"Items": items}
            if last is None:
                return


class S3(_Client):
    """boto3.client("s3"); `objects` by bucket and key."""

    service = "s3"

    def __init__(self, calls: Calls, objects: dict[tuple[str, str], bytes], attempts: int = 4) -> None:
        super().__init__(calls, attempts, 30.0)
        self._objects = objects

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        def effect() -> dict[str, Any]:
            body = self._objects.get((Bucket, Key))
            if body is None:
                raise client_error("NoSuchKey", "GetObject", 404)
            return {"Body": _Body(body), "ContentLength": len(body), "ETag": _etag(body)}

        return self._call("get_object", effect)

    def put_object(self, Bucket: str, Key: str, Body: bytes, **given: Any) -> dict[str, Any]:  # noqa: N803
        def effect() -> dict[str, Any]:
            there = self._objects.get((Bucket, Key))
            if "IfMatch" in given and (there is None or _etag(there) != given["IfMatch"]):
                raise client_error("PreconditionFailed" if there else "NoSuchKey", "PutObject", 412 if there else 404)
            if "IfNoneMatch" in given and there is not None:
                raise client_error("PreconditionFailed", "PutObject", 412)
            self._objects[Bucket, Key] = Body
            return {"ETag": _etag(Body)}

        return self._call("put_object", effect)


def _etag(body: bytes) -> str:
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self) -> bytes:
        return self._content

    def close(self) -> None:
        return


@dataclass
class Message:
    body: str
    id: str
    visible_at: float
    count: int = 0
    handle: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Queue:
    """A standard queue of SQS."""

    url: str
    messages: dict[str, Message] = field(default_factory=dict)
    handles: dict[str, str] = field(default_factory=dict)  # receipt handle -> message id, the old ones as well
    deleted: list[tuple[str, str]] = field(default_factory=list)  # (message id, body)
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    on_delete: Callable[[Message], None] = lambda message: None
    on_send: Callable[[Message], None] = lambda message: None
    sent: int = 0


class SQS(_Client):
    """boto3.client("sqs")."""

    service = "sqs"

    def __init__(self, calls: Calls, queues: dict[str, Queue]) -> None:
        super().__init__(calls)
        self._queues = queues

    def send_message(self, QueueUrl: str, MessageBody: str, **given: Any) -> dict[str, Any]:  # noqa: N803
        def effect() -> dict[str, Any]:
            put_message(self._calls, self._queues[QueueUrl], MessageBody, given.get("MessageAttributes"))
            return {}

        return self._call("send_message", effect)

    def receive_message(
        self,
        QueueUrl: str,  # noqa: N803
        MaxNumberOfMessages: int = 1,  # noqa: N803
        WaitTimeSeconds: int = 0,  # noqa: N803
        VisibilityTimeout: int = 30,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        queue, hub = self._queues[QueueUrl], self._calls.hub
        deadline = hub.now + WaitTimeSeconds
        while not any(message.visible_at <= hub.now for message in queue.messages.values()) and hub.now < deadline:
            self._wait(queue, deadline)
        return self._call("receive_message", lambda: self._received(queue, MaxNumberOfMessages, VisibilityTimeout))

    def _wait(self, queue: Queue, deadline: float) -> None:
        """Until a message comes, one is visible again, or the poll is over."""
        hub = self._calls.hub
        unpark = hub.park()
        queue.waiting.append(unpark)
        hub.at(min([deadline, *(message.visible_at for message in queue.messages.values())]), hub.current, unpark)
        hub.wait()

    def _received(self, queue: Queue, most: int, hidden: float) -> dict[str, Any]:
        hub, chance = self._calls.hub, self._calls.chance
        visible = [message for message in queue.messages.values() if message.visible_at <= hub.now]
        chance.random.shuffle(visible)
        found = []
        for message in visible[:most]:
            queue.sent += 1
            message.count += 1
            message.handle = f"receipt-{queue.sent}-{message.id}"
            queue.handles[message.handle] = message.id
            if not chance.strikes("delivered twice", "sqs", hub.now):
                message.visible_at = hub.now + hidden
            attributes = {"ApproximateReceiveCount": str(message.count)}
            found.append(
                {
                    "Body": message.body,
                    "ReceiptHandle": message.handle,
                    "MessageId": message.id,
                    "Attributes": attributes,
                }
            )
        return {"Messages": found} if found else {}

    def delete_message(self, QueueUrl: str, ReceiptHandle: str) -> dict[str, Any]:  # noqa: N803
        def effect() -> dict[str, Any]:
            queue, hub = self._queues[QueueUrl], self._calls.hub
            message = queue.messages.get(queue.handles.get(ReceiptHandle, ""))
            if message is None:
                return {}
            queue.on_delete(message)
            if message.handle != ReceiptHandle and self._calls.chance.random.random() < 0.5:
                return {}  # received again since: SQS says yes and may keep it
            if self._calls.chance.strikes("comes back deleted", "sqs", hub.now):
                message.visible_at = hub.now + self._calls.chance.random.uniform(1, 600)
                return {}
            del queue.messages[message.id]
            queue.deleted.append((message.id, message.body))
            return {}

        return self._call("delete_message", effect)

    def change_message_visibility(self, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> dict[str, Any]:  # noqa: N803
        def effect() -> dict[str, Any]:
            queue, hub = self._queues[QueueUrl], self._calls.hub
            message = queue.messages.get(queue.handles.get(ReceiptHandle, ""))
            if message is None or message.handle != ReceiptHandle:
                raise client_error("ReceiptHandleIsInvalid", "ChangeMessageVisibility", 400)
            if message.visible_at <= hub.now:
                raise client_error("MessageNotInflight", "ChangeMessageVisibility", 400)
            message.visible_at = hub.now + VisibilityTimeout
            return {}

        return self._call("change_message_visibility", effect)


def put_message(calls: Calls, queue: Queue, body: str, attributes: Any = None) -> None:
    """A new message; whoever polls is woken."""
    queue.sent += 1
    message = Message(body, f"message-{queue.sent}", calls.hub.now, attributes=attributes or {})
    queue.messages[message.id] = message
    queue.on_send(message)
    while queue.waiting:
        queue.waiting.popleft()()
