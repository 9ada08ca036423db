"""The Kubernetes objects of a shard, as plain dicts: pure, but for the package's own templates and scripts.

Templates: shard-job.yaml (with versions.yaml) and network-policies.yaml; docs/kubernetes.md explains them.
"""

import hashlib
import math
import re
from functools import cache
from importlib import resources
from typing import Any

from evaluation.errors import InvalidConfiguration
from evaluation.pair.protocol import PairExitCode
from evaluation.shards import ShardJob
from evaluation.submission.model import LeaderboardVersion
from k8s_jobs.cluster_spec import ClusterSpec, GpuJoin
from k8s_jobs.kueue import QUEUE_LABEL
from k8s_jobs.template_values import read_template, render_template
from shard_pod.environment import Party, job_environment, shard_ports

SUBMISSION, ATTEMPT, SHARD = "leaderboard/submission", "leaderboard/attempt", "leaderboard/shard"
CLUSTER, TRACK = "leaderboard/cluster", "leaderboard/track"
TEAM, PHASE, IMAGE, LOG_GROUP = "leaderboard/team", "leaderboard/phase", "leaderboard/image", "leaderboard/log-group"
SHARD_LABELS = {"app.kubernetes.io/name": "shard", "app.kubernetes.io/part-of": "leaderboard-flows"}

# Exit codes that another pod would only repeat. PAIR_LOST and CANCELLED may have been the node's doing.
FINAL_EXIT_CODES = tuple(
    sorted(set(PairExitCode) - {PairExitCode.FINISHED, PairExitCode.PAIR_LOST, PairExitCode.CANCELLED})
)
UNUSABLE_CONTENTS = (PairExitCode.CHECKPOINT_UNUSABLE, PairExitCode.MISCONFIGURED)

_TOKEN_FOLDER = "/var/run/secrets/submission-worker"  # noqa: S105 - a folder's name
_TEAM_CHARACTERS = 200


def job_manifest(job: ShardJob, cluster: ClusterSpec) -> dict[str, Any]:
    """The batch/v1 Job of one shard. Raises InvalidConfiguration where the job names no image or runs no time."""
    if not job.image.strip():
        raise InvalidConfiguration(f"{job.name} has no image of its agent", "the submission was admitted without one")
    if not job.deadline_seconds > 0:
        raise InvalidConfiguration(f"{job.name} has a deadline of {job.deadline_seconds} seconds", "it has to be > 0")
    values = _metadata(job, cluster) | _limits(job, cluster) | _placement(job, cluster) | _environment(job, cluster)
    (manifest,) = render_template("shard-job.yaml", values | _commands(job.version, cluster))
    if cluster.kueue.used:  # the Job's label, and not its pods': Kueue would queue them one by one
        queue = cluster.kueue.queue_of(job.team_name)
        manifest["metadata"]["labels"] = {**manifest["metadata"]["labels"], QUEUE_LABEL: queue}
        manifest["spec"]["suspend"] = True
    return manifest


def scripts_config_map(namespace: str) -> dict[str, Any]:
    """The pair's shell scripts. Immutable, and named by content: an upgrade never changes a Job that runs."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": scripts_name(),
            "namespace": namespace,
            "labels": {**SHARD_LABELS, "app.kubernetes.io/name": "pair-scripts"},
        },
        "immutable": True,
        "data": dict(_scripts()),
    }


def scripts_name() -> str:
    digest = hashlib.sha256(repr(sorted(_scripts().items())).encode()).hexdigest()
    return f"pair-scripts-{digest[:12]}"


def network_policies(cluster: ClusterSpec) -> list[dict[str, Any]]:
    """Default deny for the namespace; for shards, name servers and `storage_cidrs` on 443."""
    peers = [{"ipBlock": {"cidr": cidr}} for cidr in cluster.storage_cidrs]
    egress = [{"to": peers, "ports": [{"protocol": "TCP", "port": 443}]}] if peers else []
    values = {"namespace": cluster.namespace, "shard_labels": SHARD_LABELS, "storage_egress": egress}
    return render_template("network-policies.yaml", values)


def attempt_selector(submission: int, attempt: int) -> str:
    """The label selector of all Jobs, and of all pods, of one attempt."""
    return (
        f"app.kubernetes.io/name={SHARD_LABELS['app.kubernetes.io/name']},{SUBMISSION}={submission},{ATTEMPT}={attempt}"
    )


def label_value(text: str) -> str:
    """The nearest valid label value: 63 of [A-Za-z0-9._-], ends alphanumeric; empty where nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("-._")


def annotation_value(text: str) -> str:
    """Text that the API accepts: no half surrogates, no control characters, 200 characters at most."""
    whole = text.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else " " for character in whole)[:_TEAM_CHARACTERS]


@cache
def _scripts() -> dict[str, str]:
    folder = resources.files("shard_pod")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sh")), key=lambda file: file.name)
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _metadata(job: ShardJob, cluster: ClusterSpec) -> dict[str, object]:
    annotations = {
        TEAM: annotation_value(job.team_name),
        PHASE: annotation_value(job.phase.codename),
        IMAGE: job.image,
        **({LOG_GROUP: cluster.log_group} if cluster.log_group else {}),
    }
    return {
        "name": job.name,
        "namespace": cluster.namespace,
        "labels": {
            **SHARD_LABELS,
            "app.kubernetes.io/managed-by": "leaderboard-flows",
            SUBMISSION: str(job.submission),
            ATTEMPT: str(job.attempt),
            SHARD: str(job.shard.index),
            CLUSTER: label_value(job.phase.cluster),
            TRACK: label_value(job.phase.track),
        },
        "annotations": annotations,
        "pod_annotations": {
            **annotations,
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "karpenter.sh/do-not-disrupt": "true",
            # The service account carries no role, so EKS's webhook has nothing to inject; should somebody give it
            # one, then still not here.
            "eks.amazonaws.com/skip-containers": "agent,simulator,evaluator",
        },
    }


def _limits(job: ShardJob, cluster: ClusterSpec) -> dict[str, object]:
    return {
        "backoff_limit": job.budgets.infrastructure_restarts,
        "deadline_seconds": math.ceil(job.deadline_seconds),
        "finished_job_seconds": cluster.finished_job_seconds,
        "final_exit_codes": [int(exit_code) for exit_code in FINAL_EXIT_CODES],
        "unusable_contents": [int(exit_code) for exit_code in UNUSABLE_CONTENTS],
    }


def _placement(job: ShardJob, cluster: ClusterSpec) -> dict[str, object]:
    return {
        "affinity": _affinity(cluster.instance_types),
        "service_account": cluster.service_account,
        "leaderboard_image": cluster.leaderboard_image,
        "logcopy_image": cluster.logcopy_image,
        "simulator_image": cluster.simulator_image,
        "agent_image": job.image,
        "scripts_name": scripts_name(),
        "gpu_join": cluster.gpu_join.value,
        "simulator_gpu": _simulator_gpu(cluster.gpu_join),
        **_credentials(cluster),
    }


def _environment(job: ShardJob, cluster: ClusterSpec) -> dict[str, object]:
    """The variables of shard_pod.environment, by container; the paths are those of the template's volumes."""
    environment = job_environment(
        job,
        routes_location=cluster.routes_location,
        routes="/routes/routes.xml",
        pair_dir="/pair",
        checkpoint="/pair/agent/checkpoint.json",
        log_group=cluster.log_group,
        copy_seconds=cluster.copy_seconds,
        poll_seconds=cluster.poll_seconds,
        simulator_warmup_seconds=cluster.simulator_warmup_seconds,
        simulator_wait_seconds=cluster.simulator_wait_seconds,
        **shard_ports(job.shard.index),
    )
    return {
        f"{party}_variables": tuple(_variable(*each) for each in environment.to_environment(party).items())
        for party in Party
    }


def _commands(version: LeaderboardVersion, cluster: ClusterSpec) -> dict[str, object]:
    """The version's environments and commands; the cluster's own commands, of stand-ins, take their place."""
    (versions,) = read_template("versions.yaml")
    own = {"simulator_command": cluster.simulator_command, "evaluator_command": cluster.evaluator_command}
    values = versions[version.value] | {name: command for name, command in own.items() if command}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _literal(value: str) -> str:
    """An environment variable's value in which Kubernetes expands no `$(NAME)`."""
    return value.replace("$", "$$")


def _affinity(instance_types: tuple[str, ...]) -> dict[str, Any] | None:
    if not instance_types:
        return None
    term = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": list(instance_types)}
    required = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _simulator_gpu(join: GpuJoin) -> dict[str, Any]:
    name = "NVIDIA_VISIBLE_DEVICES"
    if join is GpuJoin.ENV_FILE:
        source = {"volumeName": "gpu", "path": "env", "key": name}
        return {"name": name, "valueFrom": {"fileKeyRef": source}}
    return {"name": name, "value": "all" if join is GpuJoin.ALL else "void"}


def _credentials(cluster: ClusterSpec) -> dict[str, object]:
    """What only supervisor and `prepare` get. The token is one for AWS: the API server does not accept its audience."""
    environment = [_variable("AWS_DEFAULT_REGION", cluster.region), _variable("AWS_EC2_METADATA_DISABLED", "true")]
    if cluster.storage_endpoint:
        environment.append(_variable("AWS_ENDPOINT_URL", cluster.storage_endpoint))
    if not cluster.worker_role_arn:
        secret = [{"secretRef": {"name": cluster.storage_secret}}]
        return {
            "storage_environment": tuple(environment),
            "storage_secret": secret,
            "token_mount": (),
            "token_volume": (),
        }
    environment += [
        _variable("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        _variable("AWS_ROLE_ARN", cluster.worker_role_arn),
        _variable("AWS_WEB_IDENTITY_TOKEN_FILE", f"{_TOKEN_FOLDER}/token"),
    ]
    token = {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}
    volume = {"name": "aws-token", "projected": {"sources": [{"serviceAccountToken": token}]}}
    mount = {"name": "aws-token", "mountPath": _TOKEN_FOLDER, "readOnly": True}
    return {
        "storage_environment": tuple(environment),
        "storage_secret": None,
        "token_mount": (mount,),
        "token_volume": (volume,),
    }


def _variable(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": _literal(value)}
