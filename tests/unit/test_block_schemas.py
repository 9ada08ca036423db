"""The blocks' JSON schemas are kept: they are Prefect's own, and a caller who changes one has a copy."""

import pytest
from prefect.blocks.core import Block

import blocks.collection
from blocks.schema_once import SchemaOnce

BLOCKS = [each for each in vars(blocks.collection).values() if isinstance(each, type) and issubclass(each, Block)]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_kept_schema_is_what_prefect_makes(block: type[Block]) -> None:
    made = super(SchemaOnce, block).model_json_schema()  # type: ignore[misc]

    assert issubclass(block, SchemaOnce)
    assert block.model_json_schema() == made
    assert "$defs" not in made
    by_name = block.model_json_schema(by_alias=False)
    assert by_name == super(SchemaOnce, block).model_json_schema(by_alias=False)  # type: ignore[misc]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_change_of_one_callers_schema_does_not_reach_the_next_caller(block: type[Block]) -> None:
    before = block._calculate_schema_checksum()
    schema = block.model_json_schema()
    schema["properties"].clear()
    schema.clear()

    assert block._calculate_schema_checksum() == before
