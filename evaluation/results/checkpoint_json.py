"""From a checkpoint file's bytes to a JSON object; what would cost too much memory is refused before it is built.

A file is written again, with the evaluators' indentation of four, and a nested list grows sixty times by that. So the
limit holds for what would be written, and is checked on the bytes.
"""

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

from evaluation.errors import InvalidCheckpoint
from evaluation.results.checkpoint import Document
from evaluation.results.records import REMEDY, refuse, shown

MAX_BYTES = 4 * 1024 * 1024  # of a file as it is, and as it would be written; the largest published one has 0.7 MB
MAX_DEPTH = 32  # the format needs five
_MAX_DIGITS = 1000  # of a whole number; Python refuses to read 4300
_INDENT = 4
_LONGEST_FLOAT = 24  # 1e15 is written as 1000000000000000.0
# Possessive, and a text without its end runs to the file's end: linear in whatever the file holds.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?(?:"|\Z)', re.DOTALL)
_EMPTY = re.compile(rb"\[\s*+\]|\{\s*+\}")
_EXPONENT = re.compile(rb"[0-9][eE]")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord(","): 0}  # each ends a line; the depth that follows
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEP)
_SPACE = b" \t\r\n"
_ASCII = bytes(range(128))


def check_size(size: int, source: str) -> None:
    """Refuse a file of so many bytes before it is read; raises InvalidCheckpoint."""
    if size > MAX_BYTES:
        refuse(source, "the file", f"has {size} bytes, more than {MAX_BYTES}")


def read_json(data: bytes, source: str) -> Document:
    """The file as a JSON object, or InvalidCheckpoint that names `source` and what is wrong."""
    check_size(len(data), source)
    _check_written_size(data, source)
    if not data.strip():
        refuse(source, "the file", "is empty")
    try:
        content = json.loads(
            data.decode(),
            parse_constant=_not_finite,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_without_repetition,
        )
    except _Unwanted as error:
        refuse(source, "the file", str(error))
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise InvalidCheckpoint(f"{source}: the file is not JSON, or was cut off", reason, REMEDY) from error
    if not isinstance(content, dict):
        refuse(source, "the file", f"must be a JSON object, not {shown(content)}")
    return content


class _Unwanted(ValueError):
    """JSON as Python reads it that no checkpoint holds."""


def _not_finite(constant: str) -> NoReturn:
    raise _Unwanted(f"holds {constant}, which is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Unwanted(f"holds {text[:40]}, which is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _Unwanted(f"holds a number of {len(text)} digits")
    return int(text)


def _without_repetition(pairs: list[tuple[str, Any]]) -> Document:
    """Refuse what readers could understand in two ways."""
    content: Document = {}
    for key, value in pairs:
        if key in content:
            raise _Unwanted(f"has the key {shown(key)} twice in one object")
        content[key] = value
    return content


def _check_written_size(data: bytes, source: str) -> None:
    """Refuse what is nested too deep to be read, or would be too long when it is written with indentation."""
    bare = _TEXT.sub(b"", data)
    _refuse_if_long(bare.count(b",") * (2 + _INDENT), source)  # before each empty list costs memory of its own
    bare = _EMPTY.sub(b"", bare)
    depths = list(accumulate(_STEP[byte] for byte in bare.translate(None, _NO_BRACKETS)))
    if max(depths, default=0) > MAX_DEPTH:
        refuse(source, "the file", f"is nested more than {MAX_DEPTH} levels deep")
    content = len(data) - len(bare) + len(bare.translate(None, _SPACE))
    content += 2 * len(data.translate(None, _ASCII))  # é has two bytes, and is written as six
    content += _LONGEST_FLOAT * len(_EXPONENT.findall(bare))
    _refuse_if_long(content + bare.count(b":") + len(depths) + _INDENT * sum(depths), source)


def _refuse_if_long(written: int, source: str) -> None:
    if written > MAX_BYTES:
        problem = f"would have at least {written} bytes when it is written with indentation, more than {MAX_BYTES}"
        refuse(source, "the file", problem)
