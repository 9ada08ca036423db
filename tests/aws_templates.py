"""The files of deployments/aws and deployments/eks, read."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cfnlint.decode import decode

DEPLOYMENTS = Path(__file__).resolve().parents[1] / "deployments"
TEMPLATES = sorted((DEPLOYMENTS / "aws").glob("*.yaml"))
Document = dict[str, Any]


@cache
def template(path: Path) -> Document:
    """A CloudFormation template, its short forms (!Sub) written out."""
    content, problems = decode(path)
    assert not problems, problems
    return dict(content)


def aws(name: str) -> Document:
    return template(DEPLOYMENTS / "aws" / f"{name}.yaml")


def properties(name: str, kind: str) -> list[Document]:
    return [each["Properties"] for each in aws(name)["Resources"].values() if each["Type"] == kind]


def default(name: str, parameter: str) -> Any:
    return aws(name)["Parameters"][parameter]["Default"]


def eks(path: str) -> Document:
    content: Document = yaml.safe_load((DEPLOYMENTS / "eks" / path).read_text("utf-8"))
    return content


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
