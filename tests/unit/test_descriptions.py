"""What Prefect's pages show has a description: flows, tasks, blocks, deployments and automations."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from prefect import Flow, Task
from prefect.blocks.core import Block

import blocks
import flows

PROJECT = Path(__file__).parents[2]


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def test_flows_and_tasks_have_descriptions() -> None:
    found = [each for module in modules(flows) for each in vars(module).values() if isinstance(each, Flow | Task)]

    assert len({each.name for each in found}) > 20
    assert [each.name for each in found if not each.description] == []


def test_blocks_and_their_fields_have_descriptions() -> None:
    found = {
        kind
        for module in modules(blocks)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Block) and kind.__module__.startswith("blocks.")
    }

    assert len(found) > 5
    assert [kind.__name__ for kind in found if not kind._description] == []
    fields = [(kind.__name__, name, field) for kind in found for name, field in kind.model_fields.items()]
    assert [(kind, name) for kind, name, field in fields if not field.description] == []


@pytest.mark.parametrize("deployment", yaml.safe_load((PROJECT / "prefect.yaml").read_text("utf-8"))["deployments"])
def test_deployments_and_their_automations_have_descriptions(deployment: dict[str, object]) -> None:
    automations: list[dict[str, object]] = deployment.get("triggers", [])  # type: ignore[assignment]

    assert [each["name"] for each in [deployment, *automations] if not each.get("description")] == []
