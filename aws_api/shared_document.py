"""A document that several processes read and that one of them at a time makes anew: a row in DynamoDB.

Its versions are numbered, so that no clocks are compared: a version is begun, which gives it the next number, and
published under it. A reader who knows the number that was begun when it asked knows that a higher one is newer.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from aws_api.dynamodb_conditions import refusing_row
from aws_api.dynamodb_expression import Expression
from aws_api.dynamodb_values import decode
from aws_api.errors import aws_errors
from evaluation.errors import RequestRefused
from evaluation.ports import Made

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

LIMIT_BYTES = 380_000  # DynamoDB keeps 400 KB in a row, names included
_BEGUN, _DONE, _BODY = "begun", "done", "body"


class SharedRow:
    """Implements evaluation.ports.SharedDocument. Every method blocks and raises what `aws_errors` says."""

    def __init__(self, client: "DynamoDBClient", table: str, key: Mapping[str, str]) -> None:
        """`key` names the row: attribute -> text."""
        self._client = client
        self._table = table
        self._key: dict[str, Any] = {name: {"S": value} for name, value in key.items()}

    def read(self) -> Made:
        """The document as it is now."""
        with aws_errors(f"Reading a shared document in DynamoDB table {self._table}"):
            answer = self._client.get_item(TableName=self._table, Key=self._key, ConsistentRead=True)
        row = decode(answer.get("Item", {}))
        body = row.get(_BODY, b"")
        return Made(_number(row, _BEGUN), _number(row, _DONE), bytes(getattr(body, "value", body)))  # type: ignore[call-overload]

    def begin(self, after: int) -> int | None:
        """The number of a new making, if `after` is still the last that was begun; None where another was quicker."""
        expression = Expression()
        begun = expression.name(_BEGUN)
        expression.set({_BEGUN: after + 1})
        condition = f"{begun} = {expression.value(_BEGUN, after)}"
        if after == 0:
            condition = f"attribute_not_exists({begun}) OR {condition}"
        return after + 1 if self._update(expression, condition) else None

    def publish(self, number: int, body: bytes) -> None:
        """Put the body that this making made, unless a later one is there; raises RequestRefused if too large."""
        if len(body) > LIMIT_BYTES:
            raise RequestRefused("A shared document is too large", f"{len(body)} bytes of {LIMIT_BYTES}")
        expression = Expression()
        done = expression.name(_DONE)
        expression.set({_DONE: number, _BODY: body})
        self._update(expression, f"attribute_not_exists({done}) OR {done} < {expression.value(_DONE, number)}")

    def _update(self, expression: Expression, condition: str) -> bool:
        """Whether the condition held."""
        with aws_errors(f"Writing a shared document in DynamoDB table {self._table}"):
            try:
                self._client.update_item(
                    TableName=self._table, Key=self._key, ConditionExpression=condition, **expression.arguments()
                )
            except ClientError as error:
                refusing_row(error)
                return False
        return True


def _number(row: Mapping[str, object], name: str) -> int:
    value = row.get(name, 0)
    return value if isinstance(value, int) else 0
