"""Conditional writes of DynamoDB that were refused."""

from typing import Any, cast

from botocore.exceptions import ClientError

from aws_api.dynamodb_values import decode
from aws_api.errors import error_code


def refusing_row(error: ClientError) -> dict[str, object]:
    """The row that a conditional write met, empty where there is none; re-raises any other refusal.

    The write has to ask for it: ReturnValuesOnConditionCheckFailure="ALL_OLD".
    """
    if error_code(error) != "ConditionalCheckFailedException":
        raise error
    return decode(cast("dict[str, Any]", error.response).get("Item", {}))
