"""Fills a YAML template's `{{ name }}` placeholders, after it has been parsed: no value can change the structure.

A scalar that is one placeholder becomes the value with its type. A list item that is one placeholder of a tuple
is replaced by the tuple's items, and a mapping's entry whose value is None is left out.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib import resources
from typing import Any

import yaml

_PLACEHOLDER = re.compile(r"\{\{ ([a-z_]+) \}\}")

Values = Mapping[str, object]


def render_template(template: str, values: Values) -> list[dict[str, Any]]:
    """The template's documents, filled; raises KeyError for a placeholder without a value."""
    return [_filled(document, values) for document in read_template(template)]


@cache
def read_template(template: str) -> tuple[Any, ...]:
    """The documents of a file in k8s_jobs/templates, unfilled and shared: not to be changed."""
    text = resources.files("k8s_jobs").joinpath("templates", template).read_text(encoding="utf-8")
    return tuple(yaml.safe_load_all(text))


def _filled(node: Any, values: Values) -> Any:
    if isinstance(node, dict):
        filled = {key: _filled(value, values) for key, value in node.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(node, list):
        items: list[Any] = []
        for item in node:
            value = _filled(item, values)
            items.extend(value if isinstance(value, tuple) else (value,))
        return items
    return _filled_text(node, values) if isinstance(node, str) else node


def _filled_text(text: str, values: Values) -> object:
    if whole := _PLACEHOLDER.fullmatch(text):
        return deepcopy(values[whole[1]])  # documents share nothing
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)
