"""Saved blocks, loaded by flows and by commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from prefect.blocks.core import Block
from pydantic import ValidationError

from evaluation.errors import InvalidConfiguration
from prefect_api.client import prefect_client
from prefect_api.errors import prefect_errors

SomeBlock = TypeVar("SomeBlock", bound=Block)


async def load_block(kind: type[SomeBlock], name: str) -> SomeBlock:
    """The block of that kind and name, inside a flow run; raises InvalidConfiguration, ServiceUnavailable."""
    with _block_errors(kind, name):
        return await kind.aload(name)


def load_saved_block(kind: type[SomeBlock], name: str) -> SomeBlock:
    """The same outside of flow runs, from the server of PREFECT_API_URL."""
    with prefect_client(), _block_errors(kind, name):
        return cast(SomeBlock, kind.load(name))


@contextmanager
def _block_errors(kind: type[Block], name: str) -> Iterator[None]:
    title = f"block {kind.get_block_type_slug()}/{name}"
    try:
        with prefect_errors(f"Loading the {title}"):
            yield
    except ValueError as error:  # there is none, or it is one of an earlier version
        raise InvalidConfiguration(
            f"The {title} cannot be used", _problem(error), "Run `leaderboard setup`."
        ) from error


def _problem(error: ValueError) -> str:
    """What pydantic complains of without what it was given: that may be a token."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
