"""What the client's users may pass: a wrong argument is named where it is given, not where it is used first."""

import math
from typing import TypeVar

from evaluation.errors import InvalidConfiguration

T = TypeVar("T")


def require_text(name: str, value: object) -> str:
    """Raises InvalidConfiguration for what is no text, or empty."""
    if isinstance(value, str) and value.strip():
        return value
    raise InvalidConfiguration(
        f"{name} is {value!r:.100}", "it has to be a text", f"Give {name} the name that is meant."
    )


def require_number(name: str, value: object, least: float = 0) -> float:
    """Raises InvalidConfiguration for what is no finite number of at least `least`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= least:
        return value
    raise InvalidConfiguration(f"{name} is {value!r:.100}", f"it has to be a number of at least {least:g}")


def require_instance(name: str, value: object, kind: type[T]) -> T:
    """Raises InvalidConfiguration for what is not of that kind."""
    if isinstance(value, kind):
        return value
    raise InvalidConfiguration(f"{name} is {value!r:.100}", f"it has to be a {kind.__name__}")
