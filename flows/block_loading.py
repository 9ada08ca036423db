"""Loads the saved blocks that a flow needs."""

from typing import TypeVar

from prefect.blocks.core import Block

from evaluation.errors import InvalidConfiguration
from prefect_api.errors import prefect_errors

SomeBlock = TypeVar("SomeBlock", bound=Block)


async def load_block(kind: type[SomeBlock], name: str) -> SomeBlock:
    """The block document of that kind and name; raises InvalidConfiguration, or ServiceUnavailable."""
    what = f"Loading the block {kind.get_block_type_slug()}/{name}"
    try:
        with prefect_errors(what):
            return await kind.aload(name)
    except ValueError as error:
        raise InvalidConfiguration(
            f"The block {kind.get_block_type_slug()}/{name} cannot be loaded", str(error), "Run `leaderboard setup`."
        ) from error
