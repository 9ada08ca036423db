"""An update of a DynamoDB row, put together clause by clause."""

from collections.abc import Mapping
from typing import Any

from aws_api.dynamodb_values import encode


class Expression:
    """An update with a placeholder for every name and value: the names of metrics contain spaces."""

    def __init__(self) -> None:
        self.sets: list[str] = []
        self._removes: list[str] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        return self._names.setdefault(attribute, f"#n{len(self._names)}")

    def value(self, attribute: str, value: object) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = encode(attribute, value)
        return placeholder

    def set(self, values: Mapping[str, object]) -> None:
        self.sets += [f"{self.name(attribute)} = {self.value(attribute, value)}" for attribute, value in values.items()]

    def remove(self, *attributes: str) -> None:
        self._removes += [self.name(attribute) for attribute in attributes]

    def arguments(self) -> dict[str, Any]:
        clauses = [("SET", self.sets), ("REMOVE", self._removes)]
        update = " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses if parts)
        return {
            **({"UpdateExpression": update} if update else {}),
            "ExpressionAttributeNames": {placeholder: name for name, placeholder in self._names.items()},
            "ExpressionAttributeValues": self._values,
        }
