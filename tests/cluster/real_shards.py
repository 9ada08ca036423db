"""A namespace and a bucket for shards on the real node, and what tests do with them there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster_under_test import ClusterUnderTest
from images import AgentImage
from kubernetes_asyncio import client
from kubernetes_asyncio.stream import WsApiClient
from real_node import INSTANCE_TYPE
from simulated_jobs import pods, running_pod, until

from evaluation import storage_keys
from evaluation.pair.protocol import PairProgress, parse_progress
from evaluation.shards import Shard, ShardJob
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.cluster_spec import ClusterSpec, GpuJoin
from k8s_jobs.credentials import Kubeconfig
from k8s_jobs.manifest import job_manifest
from tests.kubernetes_objects import cluster_spec, shard_job

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.literals import BucketLocationConstraintType

REGION: "BucketLocationConstraintType" = "us-west-2"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
# No developer's machine has the production's ten cores and 36 GiB for a pair.
SMALL = {"cpu": "10m", "memory": "16Mi", "ephemeral-storage": "16Mi"}

KILL_SIMULATOR = """
for process in /proc/[0-9]*; do
  [[ "$(<"$process/comm")" == python3 ]] && kill -KILL "${process#/proc/}" && echo killed
done
"""
TRY_TO_WRITE = """
for folder in /pair/supervisor /pair/simulator /pair/agent /routes /scripts /workspace/leaderboard; do
  (echo > "$folder/try") 2> /dev/null && echo "wrote $folder"
done
"""
CONFINEMENT = """
while read -r name value _; do
  case "$name" in Uid: | CapEff: | NoNewPrivs: | Seccomp:) echo "$name $value" ;; esac
done < /proc/self/status
"""
AGENTS = (
    AgentImage("steady"),
    AgentImage("slow", route_seconds=2),
    AgentImage("bad-sensors"),
    AgentImage("first-version", version="1.0"),
)


@dataclass(frozen=True)
class RealHarness:
    """Raises TimeoutError where what a method waits for does not come."""

    cluster: ClusterUnderTest
    api: client.ApiClient
    namespace: str
    images: str  # the registry's host
    storage: str  # S3's address
    s3: "S3Client"

    @property
    def bucket(self) -> str:
        return self.namespace

    async def furnish(self, routes: bytes) -> None:
        """What a shard's pod needs: a bucket, and its namespace's objects."""
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.s3.put_object(Bucket=self.bucket, Key="routes.xml", Body=routes)
        core = client.CoreV1Api(self.api)
        account, secret = (client.V1ObjectMeta(name=name) for name in ("submission-worker", "storage"))
        await core.create_namespaced_service_account(self.namespace, client.V1ServiceAccount(metadata=account))
        await core.create_namespaced_secret(self.namespace, client.V1Secret(metadata=secret, string_data=KEYS))

    def backend(self) -> KubernetesJobBackend:
        return KubernetesJobBackend(Kubeconfig(str(self.cluster.kubeconfig)), self._spec())

    def job(self, agent: str, routes: Sequence[int] = (), **changes: Any) -> ShardJob:
        """A shard of these routes, driven by demo/agent:`agent`."""
        shard = changes.pop("shard", Shard(0, 1, tuple(routes)))
        return shard_job(shard=shard, image=f"{self.images}/demo/agent:{agent}", bucket=self.bucket, **changes)

    async def launch(self, *jobs: ShardJob) -> KubernetesJobBackend:
        """The Jobs as they are rendered but for their requests; the backend adopts them."""
        for job in jobs:
            manifest: Any = with_small_requests(job_manifest(job, self._spec()))
            await client.BatchV1Api(self.api).create_namespaced_job(self.namespace, manifest)
        backend = self.backend()
        await backend.ensure(jobs)
        return backend

    async def driving(self, job: ShardJob, routes_done: int) -> Any:
        """The Job's pod, once S3 says that its pair has driven so many routes and is in the next one."""

        async def is_driving() -> bool:
            progress = self.progress(job)
            return progress is not None and progress.routes_done >= routes_done and progress.route is not None

        await until(is_driving, 60)
        return await running_pod(self.api, self.namespace, job.name)

    async def run(self, pod: Any, container: str, script: str) -> str:
        """What bash prints in the container, errors too."""
        command: Any = ["bash", "-c", script]  # the client's annotation knows one word only
        async with WsApiClient(configuration=self.api.configuration) as streams:
            answer: str = await client.CoreV1Api(streams).connect_get_namespaced_pod_exec(
                pod.metadata.name,
                self.namespace,
                container=container,
                command=command,
                stdout=True,
                stderr=True,
            )
        return answer

    async def pods(self, job: ShardJob) -> list[Any]:
        return await pods(self.api, self.namespace, job.name)

    def progress(self, job: ShardJob) -> PairProgress | None:
        return parse_progress(self.stored(storage_keys.progress_key(job.submission, job.shard.index)))

    def records(self, job: ShardJob) -> list[Any]:
        content = json.loads(self.stored(storage_keys.checkpoint_key(job.submission, job.shard.index)))
        return list(content["_checkpoint"]["records"])

    def log(self, job: ShardJob, process: str) -> str:
        return self.stored(storage_keys.log_key(job.submission, job.shard.index, job.attempt, process)).decode()

    def stored(self, key: str) -> bytes:
        """Empty where there is no such object."""
        try:
            content: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return b""
        return content

    def _spec(self) -> ClusterSpec:
        return cluster_spec(
            self.namespace,
            simulator_image=f"{self.images}/simulator:1",
            leaderboard_image=f"{self.images}/leaderboard:1",
            logcopy_image=f"{self.images}/logcopy:1",
            routes_location=f"s3://{self.bucket}/routes.xml",
            instance_types=(INSTANCE_TYPE,),
            gpu_join=GpuJoin.ALL,
            storage_endpoint=self.storage,
            simulator_warmup_seconds=0.5,
            copy_seconds=0.3,
            poll_seconds=0.1,
        )


def with_small_requests(manifest: dict[str, Any]) -> dict[str, Any]:
    """The only difference from production; limits stay, and so does the GPU."""
    pod = manifest["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        container["resources"]["requests"].update(SMALL)
    return manifest
