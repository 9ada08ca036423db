"""Job queues and their compute environments: whether a shard may go there, and why one that waits is not started.

Pure. Batch's own reasons: https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from batch_jobs.job_description import BatchJob
from evaluation.errors import InvalidConfiguration
from evaluation.pair.diagnosis import quoted

Json = Mapping[str, Any]

# Families with NVIDIA's GPUs; "optimal" and the default_... groups have none.
_GPU_FAMILY = re.compile(r"(g[0-9]|p[0-9])")

_REASONS = {
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY": "AWS has no instance of the queue's types left just now",
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE": "it needs more vCPUs than its compute environments may have",
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT": "wrong instance types: none of the queue's has what it asks for",
    "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED": "EC2 refuses the instances' launch template or image",
    "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS": "Batch's service role lacks a right",
    "ACTION_REQUIRED": "Batch needs an operator to act",
    "UNDETERMINED": "Batch holds it back and does not know why",
}


def require_fit(name: str, queue: Json | None, environments: Sequence[Json], gpu: bool) -> None:
    """Raise InvalidConfiguration unless the queue exists, is valid, and leads to instances for such shards.

    A shard without a GPU on a GPU queue would work, and keep others from instances that it does not need.
    """
    if queue is None:
        raise InvalidConfiguration(f"There is no job queue {name}", remedy="Correct the cluster's block.")
    trouble = _queue_trouble(queue)
    if trouble:
        raise InvalidConfiguration(f"The job queue {name} takes no jobs", trouble, "Correct it in AWS Batch.")
    types = [kind for environment in environments for kind in _instance_types(environment)]
    if not types:
        return  # Fargate, or instances of somebody else's choosing
    fitting = [kind for kind in types if bool(_GPU_FAMILY.match(kind)) is gpu]
    if fitting:
        return
    wants, has = ("a GPU", "no GPU") if gpu else ("no GPU", "GPUs")
    raise InvalidConfiguration(
        f"The job queue {name} is for other work",
        f"the shards need {wants}, and its instances ({', '.join(sorted(set(types)))}) have {has}",
        "Name another queue, or another job definition, in the cluster's block.",
    )


def why_batch_says_it_waits(job: BatchJob) -> str:
    """Batch's own reason for a RUNNABLE job, in plain words; "" where it gives none."""
    code = job.reason.partition(" ")[0].rstrip(":")
    if code not in _REASONS:
        return job.reason
    rest = job.reason.removeprefix(code).lstrip(" :-")
    return f"{_REASONS[code]} ({code}{': ' + rest if rest else ''})"


def why_its_queue_waits(job: BatchJob, queue: Json | None, environments: Sequence[Json]) -> str:
    """What is wrong with a RUNNABLE job's queue or compute environments; "" where nothing is: it waits for its turn."""
    if queue is None:
        return "its job queue is gone"
    return _queue_trouble(queue) or _environments_trouble(job, environments)


def _queue_trouble(queue: Json) -> str:
    if queue.get("state") == "DISABLED":
        return f"the job queue {queue['jobQueueName']} is disabled"
    if queue.get("status") not in ("VALID", None):
        return _with_words(f"the job queue {queue['jobQueueName']} is {queue['status']}", queue)
    return ""


def _environments_trouble(job: BatchJob, environments: Sequence[Json]) -> str:
    """The first environment's trouble, unless another one could take the job."""
    troubles = [_environment_trouble(job, environment) for environment in environments]
    return "" if not all(troubles) else next(iter(troubles), "its job queue has no compute environment")


def _environment_trouble(job: BatchJob, environment: Json) -> str:
    name = environment["computeEnvironmentName"]
    if environment.get("state") == "DISABLED":
        return f"the compute environment {name} is disabled"
    if environment.get("status") not in ("VALID", "UPDATING", None):
        return _with_words(f"the compute environment {name} is {environment['status']}", environment)
    most = (environment.get("computeResources") or {}).get("maxvCpus")
    if most is not None and job.vcpus > float(most):
        return f"it needs {job.vcpus:g} vCPUs, and the compute environment {name} may have {float(most):g} (maxvCpus)"
    types = _instance_types(environment)
    if job.gpus and types and not any(_GPU_FAMILY.match(kind) for kind in types):
        return f"wrong instance types: it needs a GPU, and {name} has {', '.join(sorted(types))}"
    return ""


def _instance_types(environment: Json) -> list[str]:
    return list((environment.get("computeResources") or {}).get("instanceTypes") or [])


def _with_words(text: str, thing: Json) -> str:
    said = quoted(thing.get("statusReason"))
    return f"{text}: {said}" if said else text
