"""The settings of shards on Kubernetes, as a cluster's block keeps them."""

import asyncio
from typing import Literal

import boto3
from prefect_aws import AwsCredentials
from pydantic import BaseModel, ConfigDict, Field

from evaluation.ports import JobBackend
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.cluster_spec import ClusterSpec, GpuJoin
from k8s_jobs.credentials import ClusterAccess, EksCluster, InCluster, Kubeconfig
from k8s_jobs.kueue import Kueue
from k8s_jobs.preflight import check_access


class EksAccess(BaseModel):
    """An EKS cluster, as its secret describes it; the credentials' block signs in."""

    kind: Literal["eks"] = "eks"
    name: str = Field(min_length=1, description="The EKS cluster's name.")
    endpoint: str = Field(pattern="^https://", description="Address of its API server.")
    certificate_authority: str = Field(min_length=1, description="Its certificate authority: PEM in base64.")


class KubeconfigAccess(BaseModel):
    """A cluster of a kubeconfig: kind, minikube, or any other."""

    kind: Literal["kubeconfig"] = "kubeconfig"
    path: str = Field(default="", description="The file; kubectl's defaults if empty.")
    context: str = Field(default="", description="The context in it; the current one if empty.")


class InClusterAccess(BaseModel):
    """The cluster in which the flow itself runs, as its pod's service account."""

    kind: Literal["in-cluster"] = "in-cluster"


class KubernetesCompute(BaseModel):
    """Shards as Kubernetes Jobs. The images come from the cluster's secret. Source: docs/aws.md, "The secrets"."""

    model_config = ConfigDict(extra="forbid")  # a setting that is misspelt, or that infrastructure decides, is said

    kind: Literal["kubernetes"] = "kubernetes"
    access: EksAccess | KubeconfigAccess | InClusterAccess = Field(discriminator="kind")
    namespace: str = Field(default="leaderboard", description="Where the Jobs run.")
    simulator_image: str = Field(description="CARLA.")
    leaderboard_image: str = Field(description="The evaluator and its private contents.")
    logcopy_image: str = Field(description="This project: keeps the pair and copies its results to S3.")
    worker_role_arn: str = Field(default="", description="IAM role that the supervisor takes on EKS.")
    storage_secret: str = Field(default="", description="Elsewhere: the Secret with the supervisor's AWS variables.")
    storage_endpoint: str = Field(default="", description="Address of S3 as pods see it, where it is not AWS's.")
    storage_cidrs: list[str] = Field(default=[], description="VPC endpoints: all that a shard's pod may reach.")
    service_account: str = Field(default="submission-worker", description="The pods' service account.")
    instance_types: list[str] = Field(default=["g5.12xlarge"], description="Nodes to run on; empty for any.")
    gpu_join: GpuJoin = Field(default=GpuJoin.ALL, description="How the simulator gets the agent's GPU.")
    local_queue: str = Field(
        default="", description="Kueue's LocalQueue in which all shards wait. Empty: without Kueue, or cluster_queue."
    )
    cluster_queue: str = Field(
        default="",
        description="Kueue's ClusterQueue: each team has a LocalQueue of its own in it, and its turn. Empty: no such.",
    )
    simulator_warmup_seconds: float = Field(default=60, ge=0, description="From CARLA's start to the agent's.")
    copy_seconds: float = Field(default=30, gt=0, description="How often the supervisor copies to S3.")
    poll_seconds: float = Field(default=1, gt=0, description="How often the pair's scripts poll.")
    simulator_command: str = Field(default="", description="Instead of CARLA's command, for stand-ins.")
    evaluator_command: str = Field(default="", description="Instead of the evaluator's command, for stand-ins.")

    def backend(self, routes: str, credentials: AwsCredentials, log_group: str) -> JobBackend:
        """The backend of this cluster; raises InvalidConfiguration that names a wrong setting."""
        spec = ClusterSpec(
            namespace=self.namespace,
            simulator_image=self.simulator_image,
            leaderboard_image=self.leaderboard_image,
            logcopy_image=self.logcopy_image,
            routes_location=routes,
            region=credentials.region_name or "",
            worker_role_arn=self.worker_role_arn,
            storage_secret=self.storage_secret,
            storage_endpoint=self.storage_endpoint,
            storage_cidrs=tuple(self.storage_cidrs),
            service_account=self.service_account,
            instance_types=tuple(self.instance_types),
            log_group=log_group,
            gpu_join=self.gpu_join,
            kueue=self._kueue,
            simulator_warmup_seconds=self.simulator_warmup_seconds,
            copy_seconds=self.copy_seconds,
            poll_seconds=self.poll_seconds,
            simulator_command=self.simulator_command,
            evaluator_command=self.evaluator_command,
        )
        return KubernetesJobBackend(self._access(credentials), spec)

    def preflight(self, credentials: AwsCredentials) -> str:
        """Ask the cluster for its version and for our rights there; what was found, in words. Call it in no event loop.

        Raises InvalidConfiguration, ServiceUnavailable and RequestRefused.
        """
        return asyncio.run(check_access(self._access(credentials), self.namespace, self._kueue))

    @property
    def _kueue(self) -> Kueue:
        return Kueue(self.local_queue, self.cluster_queue)

    def _access(self, credentials: AwsCredentials) -> ClusterAccess:
        match self.access:
            case EksAccess(name=name, endpoint=endpoint, certificate_authority=authority):
                region = credentials.region_name or ""
                return EksCluster(name, endpoint, authority, region, lambda: _session(credentials))
            case KubeconfigAccess(path=path, context=context):
                return Kubeconfig(path, context)
            case InClusterAccess():
                return InCluster()


def _session(credentials: AwsCredentials) -> boto3.Session:
    session: boto3.Session = credentials.get_boto3_session()
    return session
