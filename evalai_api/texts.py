"""Texts and JSON texts that people outside wrote, made fit for EvalAI: nothing unstorable, and of bounded length."""

import re

from evaluation.text import storable

# The six characters of JSON's escape, unless the backslash is itself an escaped one.
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def storable_json(text: str) -> str:
    """The same for a JSON text, in which U+0000 may also stand as an escape."""
    return _ESCAPED_NUL.sub(lambda found: f"{found[1]}\\ufffd", storable(text))


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and end with a note between them, in at most about `limit` bytes of UTF-8."""
    text = storable(text)
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    half = limit // 2
    head, tail = (part.decode("utf-8", errors="ignore") for part in (data[:half], data[-half:]))
    return f"{head}\n[... {len(data) - 2 * half} of {len(data)} bytes left out ...]\n{tail}"
