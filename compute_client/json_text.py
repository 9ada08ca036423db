"""A value as JSON text, where no part of it is lost on the way."""

import json


def json_text(value: object) -> str:
    """Raises TypeError, ValueError or RecursionError where it has none: NaN, sets, lone surrogates, keys 1 and "1"."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    json.loads(text, object_pairs_hook=_require_different_keys)
    return text


def _require_different_keys(pairs: list[tuple[str, object]]) -> None:
    """JSON's keys are text: of a 1 and a "1" only one would arrive."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"two keys become {max(keys, key=keys.count)!r:.60}")
