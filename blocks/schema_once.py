"""A block's JSON schema, made once a process.

Prefect asks for it when a block is shown, loaded and saved, then once a field, and makes it anew each time: 50 ms for a
block that holds others. That was half of the time of `leaderboard setup`.
"""

from copy import deepcopy
from typing import Any

_SCHEMAS: dict[tuple[Any, ...], dict[str, Any]] = {}


class SchemaOnce:
    """Named before Block in a block's bases. Each caller gets a copy, since Prefect changes some of them."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        key = (cls, args, tuple(sorted(kwargs.items())))
        if key not in _SCHEMAS:
            _SCHEMAS[key] = super().model_json_schema(*args, **kwargs)  # type: ignore[misc]
        return deepcopy(_SCHEMAS[key])
