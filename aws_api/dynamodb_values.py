"""Between Python's values and DynamoDB's: floats are Decimals there, and infinity does not exist."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, DecimalException
from typing import TYPE_CHECKING

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from evaluation.errors import RequestRefused

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

_SMALLEST = 1e-128  # DynamoDB keeps no number between this and zero


def encode(name: str, value: object) -> "AttributeValueTypeDef":
    """The DynamoDB form of an attribute's value; raises RequestRefused, naming the attribute, where there is none."""
    try:
        return TypeSerializer().serialize(_storable(value))
    except (TypeError, ValueError, DecimalException) as error:
        raise RequestRefused(f"The attribute {name!r} cannot be stored", f"{error or type(error).__name__}") from error


def encode_all(values: Mapping[str, object]) -> "dict[str, AttributeValueTypeDef]":
    """The same of several, by name: a row, a key, or an expression's placeholders."""
    return {name: encode(name, value) for name, value in values.items()}


def decode(item: "Mapping[str, AttributeValueTypeDef]") -> dict[str, object]:
    """A row's attributes as Python's own types: whole numbers are ints, others floats."""
    read = TypeDeserializer().deserialize
    return {name: _natural(read(value)) for name, value in item.items()}


def _storable(value: object) -> object:
    if isinstance(value, float):
        return Decimal(0) if abs(value) < _SMALLEST else Decimal(repr(float(value)))
    if isinstance(value, str):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _storable(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_storable(item) for item in value]
    return value


def _natural(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: _natural(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_natural(item) for item in value]
    return value
