"""moto's Batch with what it lacks of AWS Batch: tasks of several containers, retries, pages, and machines to run on.

moto runs a job as one Docker container, or pretends to. Here a `Machine` runs it, and the job goes through Batch's
states around that. Everything else stays moto's: server, HTTP, queues, definitions, tags, IAM, logs, CloudFormation.
The extensions follow the API reference; where that is silent (what evaluateOnExit sees of several containers), the
stand-in assumes the least: a status reason, no exit code, no container's reason.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Protocol

import moto.batch.models as batch
from moto.batch import urls
from moto.batch.exceptions import ClientException
from moto.batch.models import BatchBackend, JobDefinition, batch_backends
from moto.batch.responses import BatchResponse
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.secretsmanager.models import secretsmanager_backends

Json = dict[str, Any]

urls.url_paths["{0}/v1/getjobqueuesnapshot"] = BatchResponse.dispatch  # before a server reads them

TASK_ENDED = "Essential container in task exited"
NO_NUMBERS = ("Value",)  # CloudFormation makes text of them


@dataclass
class Ended:
    """How one attempt ended. `codes` are the containers' exit codes, where they have any."""

    reason: str
    codes: Mapping[str, int] = field(default_factory=dict)


class Machine(Protocol):
    """What Batch starts tasks on."""

    def waits(self, job: "TaskJob") -> str | None:
        """Batch's reason for not starting the job, "" where it gives none; None where there is a machine."""

    def run(self, job: "TaskJob", attempt: int) -> Ended:
        """Run the task to its end, or until `job.stop`; keep `job.streams` up to date, and say when it `runs`."""


class TaskDefinition(JobDefinition):
    """A job definition with ecsProperties."""

    ecs_properties: Json
    scheduling_priority: int | None

    def _validate(self) -> None:
        """The base wants containerProperties."""

    def describe(self) -> Json:
        known = {
            **super().describe(),
            "ecsProperties": self.ecs_properties,
            "schedulingPriority": self.scheduling_priority,
        }
        return {key: value for key, value in known.items() if value is not None}


class TaskJob(batch.Job):
    """A job of one task. Its thread is Batch's scheduler for this job alone."""

    machine: ClassVar[Machine]

    def __init__(self, request: Json, definition: TaskDefinition, queue: Any, backend: BatchBackend) -> None:
        self._state = "SUBMITTED"
        super().__init__(
            request["jobName"],
            definition,
            queue,
            backend,
            log_backend=backend.logs_backend,
            container_overrides=None,
            eks_properties_override=None,
            depends_on=None,
            parameters=None,
            all_jobs=backend._jobs,
            timeout=request.get("timeout"),
            array_properties={},
            tags=request.get("tags"),
        )
        self.share = request.get("shareIdentifier")
        self.definition = definition
        override = request.get("ecsPropertiesOverride") or {"taskProperties": [{"containers": []}]}
        self.override = {each["name"]: each for each in override["taskProperties"][0]["containers"]}
        self.streams: dict[str, str] = {}
        self.past: list[Json] = []
        self.ended: Ended | None = None

    @property
    def status(self) -> str:
        return self._state

    @status.setter
    def status(self, value: str) -> None:
        self._state = value

    def containers(self) -> list[Json]:
        """The definition's containers with the submission's environment and sizes."""
        known = self.definition.ecs_properties["taskProperties"][0]["containers"]
        return [
            {**each, "environment": self._environment(each), "resourceRequirements": self._sizes(each)}
            for each in known
        ]

    def run(self) -> None:
        strategy = self.definition.retry_strategy
        for attempt in range(1, int(strategy.get("attempts", 1)) + 1):
            self.streams = {}
            ended = self._attempt(attempt)
            self.past.append({"statusReason": ended.reason, "taskProperties": self._attempts_task(ended)})
            well = bool(ended.codes) and not any(ended.codes.values())
            if self.stop or well or not _retried(strategy, ended):
                break
        self.ended = ended
        self.job_stopped_reason = self.job_stopped_reason if self.stop else ended.reason
        self._mark_stopped(success=well and not self.stop)

    def _attempt(self, attempt: int) -> Ended:
        self.status = "RUNNABLE"
        while not self.stop and (why := self.machine.waits(self)) is not None:
            self.job_stopped_reason = why or None
            time.sleep(0.02)
        if self.stop:
            return Ended(self.job_stopped_reason or "")
        self.job_stopped_reason = None
        self.status = "STARTING"
        return self.machine.run(self, attempt)

    def runs(self) -> None:
        """All of its containers have been started."""
        if self.status == "STARTING":
            self.job_started_at = batch.datetime.now()
            self.status = "RUNNING"

    def describe(self) -> Json:
        codes = self.ended.codes if self.ended else {}
        entries = [
            {
                **each,
                **({"logStreamName": self.streams[each["name"]]} if each["name"] in self.streams else {}),
                **({"exitCode": codes[each["name"]]} if each["name"] in codes else {}),
            }
            for each in self.containers()
        ]
        return {
            **self.describe_short(),
            "jobQueue": self.job_queue.arn,
            "shareIdentifier": self.share,
            "tags": self.backend.list_tags_for_resource(self.arn),
            "timeout": self.timeout,
            "attempts": list(self.past),
            "isTerminated": self.stop,
            "container": {},
            "ecsProperties": {"taskProperties": [{"containers": entries}]},
        }

    def _environment(self, container: Json) -> list[Json]:
        given = (container, self.override.get(container["name"], {}))
        merged = {each["name"]: each["value"] for part in given for each in part.get("environment") or []}
        return [{"name": name, "value": value} for name, value in merged.items()]

    def _sizes(self, container: Json) -> list[Json]:
        given = (container, self.override.get(container["name"], {}))
        merged = {each["type"]: each for part in given for each in part.get("resourceRequirements") or []}
        return list(merged.values())

    def _attempts_task(self, ended: Ended) -> list[Json]:
        names = [each["name"] for each in self.containers()]
        return [{"containers": [{"name": name, "exitCode": ended.codes.get(name)} for name in names]}]


def _retried(strategy: Json, ended: Ended) -> bool:
    """What evaluateOnExit says; a job that no rule fits is retried."""
    seen = {"onStatusReason": ended.reason}
    for rule in strategy.get("evaluateOnExit") or []:
        wanted = {key: pattern for key, pattern in rule.items() if key != "action"}
        if all(key in seen and fnmatchcase(seen[key], pattern) for key, pattern in wanted.items()):
            return str(rule["action"]).lower() == "retry"
    return True


def register(backend: BatchBackend, request: Json) -> TaskDefinition:
    name = request["jobDefinitionName"]
    previous = backend.get_job_definition_by_name(name)
    definition = TaskDefinition(
        name,
        request.get("parameters"),
        request["type"],
        container_properties=None,
        node_properties=None,
        eks_properties=None,
        tags=request.get("tags") or {},
        retry_strategy=request.get("retryStrategy") or {},
        timeout=request.get("timeout") or {},
        backend=backend,
        platform_capabilities=request.get("platformCapabilities") or ["EC2"],
        propagate_tags=bool(request.get("propagateTags")),
        revision=previous.revision if previous else 0,
    )
    definition.ecs_properties = request["ecsProperties"]
    definition.scheduling_priority = request.get("schedulingPriority")
    backend._job_definitions[definition.arn] = definition
    return definition


def _register(self: BatchResponse) -> str:
    definition = register(self.batch_backend, json.loads(self.body))
    names = {"jobDefinitionArn": definition.arn, "jobDefinitionName": definition.name}
    return json.dumps({**names, "revision": definition.revision})


def _submit(self: BatchResponse) -> str:
    request, backend = json.loads(self.body), self.batch_backend
    definition, queue = backend.get_job_definition(request["jobDefinition"]), backend.get_job_queue(request["jobQueue"])
    if queue is None or not isinstance(definition, TaskDefinition):
        raise ClientException("The job queue or the job definition does not exist")
    if bool(queue.schedule_policy) is not bool(request.get("shareIdentifier")):
        raise ClientException("A share identifier goes with a queue that has a scheduling policy, and only with one")
    known = {each["name"] for each in definition.ecs_properties["taskProperties"][0]["containers"]}
    job = TaskJob(request, definition, queue, backend)
    if not known.issuperset(job.override):
        raise ClientException("An override names a container that the job definition does not have")
    backend._jobs[job.job_id] = job
    job.start()
    return json.dumps({"jobId": job.job_id, "jobName": job.job_name, "jobArn": job.arn})


def _in_pages(whole: Any, items: str) -> Any:
    """moto's own listing, cut into pages as AWS does."""

    def page(self: BatchResponse) -> str:
        found, request = json.loads(whole(self))[items], json.loads(self.body)
        start, size = int(request.get("nextToken") or 0), int(request.get("maxResults") or 100)
        more = {"nextToken": str(start + size)} if start + size < len(found) else {}
        return json.dumps({items: found[start : start + size], **more})

    return page


class _Stacked:
    """What moto has, but not in CloudFormation; known by its ARN."""

    arn: str

    @property
    def physical_resource_id(self) -> str:
        return self.arn

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr == "Arn"

    def get_cfn_attribute(self, attribute_name: str) -> str:
        return self.arn

    @staticmethod
    def cloudformation_name_type() -> str:
        return "Name"


class SchedulingPolicy(_Stacked, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Batch::SchedulingPolicy"

    @classmethod
    def create_from_cloudformation_json(  # type: ignore[misc]
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **_: Any
    ) -> "SchedulingPolicy":
        share = _lowered(cloudformation_json["Properties"]["FairsharePolicy"])
        made = cls()
        made.arn = batch_backends[account_id][region_name].create_scheduling_policy(resource_name, share, {}).arn
        return made


class Secret(_Stacked, CloudFormationModel):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SecretsManager::Secret"

    @classmethod
    def create_from_cloudformation_json(  # type: ignore[misc]
        cls, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **_: Any
    ) -> "Secret":
        made, name = cls(), cloudformation_json["Properties"].get("Name", resource_name)
        text = secretsmanager_backends[account_id][region_name].create_secret(
            name, "made-up", None, None, None, None, None, [], False
        )
        made.arn = json.loads(text)["ARN"]
        return made


def _definition_of_stack(
    cls: type, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **kwargs: Any
) -> TaskDefinition:
    request = _lowered(cloudformation_json["Properties"])
    return register(batch_backends[account_id][region_name], {**request, "jobDefinitionName": resource_name})


def _queue_of_stack(
    cls: type, resource_name: str, cloudformation_json: Json, account_id: str, region_name: str, **kwargs: Any
) -> Any:
    properties = cloudformation_json["Properties"]
    return batch_backends[account_id][region_name].create_job_queue(
        resource_name,
        properties["Priority"],
        properties["SchedulingPolicyArn"],
        "ENABLED",
        [_lowered(each) for each in properties["ComputeEnvironmentOrder"]],
    )


def _lowered(value: Any) -> Any:
    """CloudFormation's names as the API's: the first letter small; and text where the API has text."""
    if isinstance(value, dict):
        return {
            key[0].lower() + key[1:]: str(each) if key in NO_NUMBERS else _lowered(each) for key, each in value.items()
        }
    return [_lowered(each) for each in value] if isinstance(value, list) else value


def _snapshot(self: BatchResponse) -> str:
    """GetJobQueueSnapshot: the first RUNNABLE jobs. By age, as in a fair share that no team has used."""
    backend = self.batch_backend
    queue = backend.get_job_queue(json.loads(self.body)["jobQueue"])
    jobs = [job for job in backend._jobs.values() if job.job_queue is queue and job.status == "RUNNABLE"]
    front = [{"jobArn": job.arn, "earliestTimeAtPosition": 0} for job in jobs[:100]]
    return json.dumps({"frontOfQueue": {"jobs": front, "lastUpdatedAt": int(time.time() * 1000)}})


_MOTOS_LISTINGS = {"listjobs": "jobSummaryList", "describejobdefinitions": "jobDefinitions"}


def teach(machine: Machine) -> None:
    """From now on, moto's Batch in this process runs its jobs on this machine."""
    TaskJob.machine = machine
    if BatchResponse.submitjob is _submit:
        return
    BatchResponse.registerjobdefinition = _register  # type: ignore[method-assign]
    BatchResponse.submitjob = _submit  # type: ignore[method-assign]
    BatchResponse.getjobqueuesnapshot = _snapshot  # type: ignore[attr-defined]
    for name, items in _MOTOS_LISTINGS.items():
        setattr(BatchResponse, name, _in_pages(getattr(BatchResponse, name), items))
    batch.JobDefinition.create_from_cloudformation_json = classmethod(_definition_of_stack)  # type: ignore[assignment]
    batch.JobQueue.create_from_cloudformation_json = classmethod(_queue_of_stack)  # type: ignore[assignment]
    for cached in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
        cached.cache_clear()
