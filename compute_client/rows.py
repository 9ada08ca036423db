"""Rows of a DynamoDB table by their key `job_id`, each change one conditional write."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from aws_api.errors import aws_errors, error_code
from compute_client.payloads import ClientFactory

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

Row = Mapping[str, Any]
Values = Mapping[str, object]  # an expression's placeholders, `:name` -> text or number; those it lacks are left out


class Rows:
    """Numbers are floats. Conditions are DynamoDB's own expressions. Raises what `aws_errors` says."""

    def __init__(self, table: str, client: ClientFactory) -> None:
        self._table = table
        self._client = client

    def get(self, job_id: str) -> Row | None:
        with aws_errors(f"Reading job {job_id} in DynamoDB table {self._table}"):
            answer = self._dynamodb().get_item(
                TableName=self._table, Key=_encode({"job_id": job_id}), ConsistentRead=True
            )
        return _decode(answer["Item"]) if "Item" in answer else None

    def put(self, row: Row, condition: str, values: Values) -> Row | None:
        """Write a whole row; None, or the row that did not meet the condition."""
        with aws_errors(f"Recording job {row['job_id']} in DynamoDB table {self._table}"):
            try:
                self._dynamodb().put_item(
                    TableName=self._table,
                    Item=_encode(row),
                    ConditionExpression=condition,
                    ExpressionAttributeValues=_encode(values),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                return _refusing_row(error)
        return None

    def update(self, job_id: str, update: str, condition: str, values: Values) -> tuple[Row | None, Row]:
        """(None, the row as it is now); or (the row that did not meet the condition, empty if there is none; {})."""
        used = {name: value for name, value in values.items() if name in f"{update} {condition}"}
        with aws_errors(f"Writing job {job_id} in DynamoDB table {self._table}"):
            try:
                answer = self._dynamodb().update_item(
                    TableName=self._table,
                    Key=_encode({"job_id": job_id}),
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=_encode(used),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                return _refusing_row(error), {}
        return None, _decode(answer["Attributes"])

    def query(self, index: str, condition: str, values: Values) -> Iterator[Row]:
        """What an index holds, page by page."""
        with aws_errors(f"Reading the index {index} of DynamoDB table {self._table}"):
            pages = (
                self._dynamodb()
                .get_paginator("query")
                .paginate(
                    TableName=self._table,
                    IndexName=index,
                    KeyConditionExpression=condition,
                    ExpressionAttributeValues=_encode(values),
                )
            )
            for page in pages:
                yield from map(_decode, page["Items"])

    def _dynamodb(self) -> "DynamoDBClient":
        return cast("DynamoDBClient", self._client("dynamodb"))


def _encode(values: Values) -> dict[str, Any]:
    return {name: TypeSerializer().serialize(_storable(value)) for name, value in values.items()}


def _storable(value: object) -> object:
    if isinstance(value, float):
        return Decimal(repr(value))
    return str(value) if isinstance(value, str) else value  # an enum's member is a text, too


def _decode(item: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: TypeDeserializer().deserialize(value) for name, value in item.items()}
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in values.items()}


def _refusing_row(error: ClientError) -> Row:
    """The row that a conditional write met, empty where there is none; re-raises any other refusal."""
    if error_code(error) != "ConditionalCheckFailedException":
        raise error
    return _decode(cast("dict[str, Any]", error.response).get("Item", {}))
