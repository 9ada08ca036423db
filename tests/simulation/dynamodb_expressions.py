"""DynamoDB's condition and update expressions: the part of the language that the product writes."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

Item = dict[str, Any]  # attribute -> its form in DynamoDB, {"S": "text"}
Value = Callable[[Item, Mapping[str, str], Mapping[str, Any]], Any]
_TOKEN = re.compile(r"\s*([#:]?\w+|<=|>=|<>|[=<>(),+-])")
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "<>": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


@lru_cache(maxsize=1024)
def condition(text: str) -> Callable[[Item, Mapping[str, str], Mapping[str, Any]], bool]:
    """A condition as a function of the item, the names and the values."""
    return _Parser(text).whole_condition()


@lru_cache(maxsize=1024)
def update(text: str) -> Callable[[Item, Mapping[str, str], Mapping[str, Any]], Item]:
    """An update as a function that returns the item as it is afterwards."""
    return _Parser(text).whole_update()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        if "".join(self._tokens) != "".join(text.split()):
            raise ValueError(f"DynamoDB expression that the simulation does not know: {text}")
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self, expected: str = "") -> str:
        token = self._peek()
        if not token or (expected and token != expected):
            raise ValueError(f"{expected or 'more'} expected in {self._tokens}, not {token!r}")
        self._at += 1
        return token

    def whole_condition(self) -> Value:
        found = self._or()
        if self._peek():
            raise ValueError(f"The end of {self._tokens} is not understood")
        return found

    def _or(self) -> Value:
        parts = [self._and()]
        while self._peek() == "OR":
            self._next()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda *given: any(part(*given) for part in parts)

    def _and(self) -> Value:
        parts = [self._not()]
        while self._peek() == "AND":
            self._next()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda *given: all(part(*given) for part in parts)

    def _not(self) -> Value:
        if self._peek() == "NOT":
            self._next()
            inner = self._not()
            return lambda *given: not inner(*given)
        if self._peek() == "(":
            self._next()
            inner = self._or()
            self._next(")")
            return inner
        if self._peek() in ("attribute_exists", "attribute_not_exists"):
            exists = self._next() == "attribute_exists"
            self._next("(")
            name = self._next()
            self._next(")")
            return lambda item, names, values: (names.get(name, name) in item) is exists
        return self._comparison()

    def _comparison(self) -> Value:
        left = self._operand()
        if self._peek() == "BETWEEN":
            self._next()
            low = self._operand()
            self._next("AND")
            high = self._operand()
            return lambda *given: (
                _compared(low(*given), "<=", left(*given)) and _compared(left(*given), "<=", high(*given))
            )
        operator = self._next()
        right = self._operand()
        return lambda *given: _compared(left(*given), operator, right(*given))

    def _operand(self) -> Value:
        first = self._term()
        while self._peek() in ("+", "-"):
            operator, left, right = self._next(), first, self._term()
            first = _sum(left, right, 1 if operator == "+" else -1)
        return first

    def _term(self) -> Value:
        token = self._next()
        if token == "if_not_exists":
            self._next("(")
            name = self._next()
            self._next(",")
            otherwise = self._operand()
            self._next(")")
            return lambda item, names, values: item.get(names.get(name, name)) or otherwise(item, names, values)
        if token.startswith(":"):
            return lambda item, names, values: values[token]
        return lambda item, names, values: item.get(names.get(token, token))

    def whole_update(self) -> Any:
        sets: list[tuple[str, Value]] = []
        removes: list[str] = []
        while self._peek():
            clause = self._next()
            if clause not in ("SET", "REMOVE"):
                raise ValueError(f"{clause} in an update is not simulated")
            while True:
                name = self._next()
                if clause == "SET":
                    self._next("=")
                    sets.append((name, self._operand()))
                else:
                    removes.append(name)
                if self._peek() != ",":
                    break
                self._next()

        def apply(item: Item, names: Mapping[str, str], values: Mapping[str, Any]) -> Item:
            new = {names.get(name, name): value(item, names, values) for name, value in sets}
            gone = {names.get(name, name) for name in removes}
            return {name: value for name, value in {**item, **new}.items() if name not in gone}

        return apply


def _plain(value: Any) -> Any:
    (kind, content), *_ = value.items()
    return Decimal(content) if kind == "N" else content


def _compared(left: Any, operator: str, right: Any) -> bool:
    """An attribute that is missing, or of another type, fits no comparison but <>."""
    if left is None or right is None or left.keys() != right.keys():
        return operator == "<>"
    return _COMPARISONS[operator](_plain(left), _plain(right))


def _sum(left: Value, right: Value, sign: int) -> Value:
    return lambda *given: {"N": str(_plain(left(*given)) + sign * _plain(right(*given)))}
