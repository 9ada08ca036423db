"""Job definitions: infrastructure's base, and its revision with a submission's image. Pure.

The base says everything: roles, containers, volumes, retries. A revision for a submission is the base with one word
changed, the image of the agent's container. It gets a name of its own, so that the role which registers it has no right
to touch the base, and the newest revision of the base is always infrastructure's.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from evaluation.errors import InvalidConfiguration
from evaluation.pair.diagnosis import AGENT, SIMULATOR, SUPERVISOR

Json = Mapping[str, Any]

BASE = "leaderboard:base"  # the tag that says of which revision of the base it is a copy
_COPIED = (
    "type",
    "parameters",
    "schedulingPriority",
    "ecsProperties",
    "retryStrategy",
    "propagateTags",
    "timeout",
    "platformCapabilities",
)
_PAIR = (SIMULATOR, AGENT, SUPERVISOR)


def submission_definition(base: str, submission: int) -> str:
    return f"{base}-submission-{submission}"


def require_base(name: str, revisions: Sequence[Json]) -> Json:
    """Infrastructure's newest revision; raises InvalidConfiguration where there is none or it is not a pair's."""
    if not revisions:
        raise InvalidConfiguration(
            f"There is no active job definition {name}", remedy="Create the stack of deployments/aws/batch-shards.yaml."
        )
    base = revisions[0]
    names = {each.get("name") for each in _containers(base)}
    if not names.issuperset(_PAIR):
        missing = ", ".join(each for each in _PAIR if each not in names)
        raise InvalidConfiguration(f"The job definition {name} is not a pair's", f"it has no container {missing}")
    return base


def find_revision(revisions: Sequence[Json], base: Json, image: str) -> str | None:
    """The ARN of the newest copy of exactly this base with this image."""
    for revision in revisions:
        same_base = (revision.get("tags") or {}).get(BASE) == base["jobDefinitionArn"]
        if same_base and _image(revision) == image:
            return str(revision["jobDefinitionArn"])
    return None


def revision_request(base: Json, submission: int, image: str) -> dict[str, Any]:
    """RegisterJobDefinition's arguments for the base with this image."""
    request = {key: deepcopy(base[key]) for key in _COPIED if base.get(key) not in (None, {}, [])}
    (agent,) = [each for each in _containers(request) if each["name"] == AGENT]
    agent["image"] = image
    tags = {key: value for key, value in (base.get("tags") or {}).items() if not key.startswith("aws:")}
    name = submission_definition(base["jobDefinitionName"], submission)
    return {**request, "jobDefinitionName": name, "tags": {**tags, BASE: base["jobDefinitionArn"]}}


def needs_gpu(definition: Json) -> bool:
    needs = [need for each in _containers(definition) for need in each.get("resourceRequirements") or []]
    return any(need["type"] == "GPU" and float(need["value"]) > 0 for need in needs)


def _image(definition: Json) -> str:
    return next((str(each["image"]) for each in _containers(definition) if each["name"] == AGENT), "")


def _containers(definition: Json) -> list[Any]:
    tasks = (definition.get("ecsProperties") or {}).get("taskProperties") or []
    return [each for task in tasks for each in task.get("containers") or []]
