"""Rows of a DynamoDB table by their key `job_id`, each change one conditional write."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from aws_api import ClientFactory
from aws_api.dynamodb_conditions import refusing_row
from aws_api.dynamodb_values import decode, encode_all
from aws_api.errors import aws_errors
from compute_client.job import ResultStatus, UnreadableJob

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

Row = Mapping[str, Any]
Values = Mapping[str, object]  # an expression's placeholders, `:name` -> text or number; those it lacks are left out


class Rows:
    """Conditions are DynamoDB's own expressions. Raises what `aws_errors` says; UnreadableJob for a strange row."""

    def __init__(self, table: str, client: ClientFactory) -> None:
        self._table = table
        self._client = client

    def get(self, job_id: str) -> Row | None:
        with aws_errors(f"Reading job {job_id} in DynamoDB table {self._table}"):
            answer = self._dynamodb().get_item(
                TableName=self._table, Key=encode_all({"job_id": job_id}), ConsistentRead=True
            )
        return _job(decode(answer["Item"])) if "Item" in answer else None

    def put(self, row: Row, condition: str, values: Values) -> Row | None:
        """Write a whole row; None, or the row that did not meet the condition."""
        with aws_errors(f"Recording job {row['job_id']} in DynamoDB table {self._table}"):
            try:
                self._dynamodb().put_item(
                    TableName=self._table,
                    Item=encode_all(row),
                    ConditionExpression=condition,
                    ExpressionAttributeValues=encode_all(values),
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                return _job(refusing_row(error))
        return None

    def update(self, job_id: str, update: str, condition: str, values: Values) -> tuple[Row | None, Row]:
        """(None, the row as it is now); or (the row that did not meet the condition, empty if there is none; {})."""
        used = {name: value for name, value in values.items() if name in f"{update} {condition}"}
        with aws_errors(f"Writing job {job_id} in DynamoDB table {self._table}"):
            try:
                answer = self._dynamodb().update_item(
                    TableName=self._table,
                    Key=encode_all({"job_id": job_id}),
                    UpdateExpression=update,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=encode_all(used),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                return _job(refusing_row(error)), {}
        return None, decode(answer["Attributes"])

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
                    ExpressionAttributeValues=encode_all(values),
                )
            )
            for page in pages:
                yield from map(decode, page["Items"])

    def _dynamodb(self) -> "DynamoDBClient":
        return cast("DynamoDBClient", self._client("dynamodb"))


def _job(row: Row) -> Row:
    """The row, if all that is calculated with is as this client writes it; {} stands for no row."""
    if not row:
        return row
    try:
        ResultStatus(row["job_status"])
        for name in ("expires_at", "submitted_at", "attempts"):
            _number(name, row[name])
        for name in ("lease_until", "sent_at", "started_at", "finished_at"):
            _number(name, row.get(name, 0))
    except KeyError as error:
        raise UnreadableJob(row.get("job_id"), f"{error.args[0]} is missing") from error
    except ValueError as error:
        raise UnreadableJob(row.get("job_id"), str(error)) from error
    return row


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r:.60}, no number")
