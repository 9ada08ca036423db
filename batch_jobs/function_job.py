"""A Python function as a Batch job: what is called, where its values lie, what SubmitJob is given. Pure.

The job definition is infrastructure's (deployments/aws/batch-functions.yaml): image and roles are fixed there. A call
chooses the function, its arguments, its sizes, and with them the queue.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batch_jobs.submit_request import share_identifier, tag_value
from compute_client.job import to_json
from evaluation.errors import InvalidConfiguration, RequestRefused

FUNCTION, FLOW_RUN = "leaderboard:function", "leaderboard:flow-run"  # tags; only jobs with the first may be ended
CONTAINER = "function"  # of the job definition
FOLDER = "FUNCTION_FOLDER"  # variable of the container: s3://bucket/folder of this call

_LEAST_TIMEOUT = 60  # seconds; Batch accepts no shorter one
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_LOCAL = ("<lambda>", "<locals>")


@dataclass(frozen=True)
class BatchQueues:
    """The queues by hardware and urgency: the sizes of a call choose its queue, so that the two always match."""

    cpu: str = "leaderboard-cpu-production"
    cpu_adhoc: str = "leaderboard-cpu-adhoc"
    gpu: str = "leaderboard-gpu-production"
    gpu_adhoc: str = "leaderboard-gpu-adhoc"

    @property
    def all(self) -> tuple[str, ...]:
        return (self.cpu, self.cpu_adhoc, self.gpu, self.gpu_adhoc)

    def of(self, call: "FunctionCall") -> str:
        if call.gpus:
            return self.gpu_adhoc if call.adhoc else self.gpu
        return self.cpu_adhoc if call.adhoc else self.cpu


@dataclass(frozen=True)
class FunctionCall:
    """One call: `function(**arguments)`. Sizes that are None are the job definition's."""

    function: str  # module:qualified.name, as the image has it
    arguments: Mapping[str, Any] = field(default_factory=dict)  # what JSON can hold
    adhoc: bool = False  # a trial: the queue with the lower priority
    gpus: int = 0
    vcpus: float | None = None
    memory_mib: int | None = None
    limit_seconds: float = 3600

    def __post_init__(self) -> None:
        module, _, path = self.function.partition(":")
        if not (module and path):
            raise InvalidConfiguration(f"{self.function!r} names no function", "it has to be package.module:function")
        if wrong := [*self._wrong_sizes(), *self._wrong_arguments()]:
            raise InvalidConfiguration(f"{self.function} cannot run", "; ".join(wrong), "Correct the call.")

    def _wrong_sizes(self) -> Iterator[str]:
        for name, value, least in (("gpus", self.gpus, 0), ("memory_mib", self.memory_mib, 4)):
            if value is not None and not (type(value) is int and value >= least):
                yield f"{name} is {value!r:.40}, not a whole number from {least} on"
        for name, number in (("vcpus", self.vcpus), ("limit_seconds", self.limit_seconds)):
            if number is not None and not (isinstance(number, int | float) and 0 < number < math.inf):
                yield f"{name} is {number!r:.40}, not a number above 0"

    def _wrong_arguments(self) -> Iterator[str]:
        if not isinstance(self.arguments, Mapping) or not all(isinstance(name, str) for name in self.arguments):
            yield f"arguments are {self.arguments!r:.60}, not values by the names of the function's parameters"


def function_name(function: str | Callable[..., object]) -> str:
    """`module:qualified.name`; raises InvalidConfiguration for what another process cannot import by a name."""
    if isinstance(function, str):
        return function
    module, path = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not module or not path or module == "__main__" or any(part in path for part in _LOCAL):
        raise InvalidConfiguration(
            f"{function!r} cannot be imported in a Batch job",
            f"its module is {module!r}, its name {path!r}",
            "Define it at the top of a module that the job definition's image has.",
        )
    return f"{module}:{path}"


def require_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RequestRefused(f"{name[:140]!r} is no name of a Batch job", "letters, digits, '-' and '_', 128 at most")
    return name


def call_text(call: FunctionCall) -> str:
    """What the container reads; raises RequestRefused for arguments that are not JSON."""
    content = {"function": call.function, "arguments": dict(call.arguments)}
    return to_json(f"What {call.function} is called with", content)


def read_call(text: str) -> tuple[str, str]:
    """Function, and its arguments as JSON text."""
    content = json.loads(text)
    return str(content["function"]), json.dumps(content["arguments"])


def function_request(
    call: FunctionCall, name: str, definition: str, queue: str, folder: str, share: str | None, tags: Mapping[str, str]
) -> dict[str, Any]:
    """SubmitJob's arguments. No image, role or volume: those are the definition's alone."""
    vcpus = None if call.vcpus is None else f"{call.vcpus:g}"  # "2", not "2.0"
    sizes = {"GPU": call.gpus or None, "VCPU": vcpus, "MEMORY": call.memory_mib}
    needs = [{"type": kind, "value": str(value)} for kind, value in sizes.items() if value is not None]
    override = {"name": CONTAINER, "environment": [{"name": FOLDER, "value": folder}]}
    return {
        "jobName": require_name(name),
        "jobQueue": queue,
        "jobDefinition": definition,
        **({"shareIdentifier": share_identifier(share)} if share else {}),
        "timeout": {"attemptDurationSeconds": max(_LEAST_TIMEOUT, math.ceil(call.limit_seconds))},
        "tags": {FUNCTION: tag_value(call.function), **tags},
        "ecsPropertiesOverride": {
            "taskProperties": [{"containers": [{**override, **({"resourceRequirements": needs} if needs else {})}]}]
        },
    }
