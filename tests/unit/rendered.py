"""A shard's manifest taken apart, for the tests of the renderer."""

from dataclasses import replace
from typing import Any

from evaluation.submission.model import LeaderboardVersion
from k8s_jobs.example import example_cluster, example_job
from k8s_jobs.manifest import job_manifest

VERSIONS = tuple(LeaderboardVersion)
Manifest = dict[str, Any]


def render(version: LeaderboardVersion = LeaderboardVersion.V2, **cluster: Any) -> Manifest:
    return job_manifest(example_job(version), replace(example_cluster(version), **cluster))


def pod(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]["template"]["spec"]
    return spec


def containers(manifest: Manifest) -> dict[str, Manifest]:
    return {container["name"]: container for container in pod(manifest)["initContainers"] + pod(manifest)["containers"]}


def environment(container: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def mounts(container: Manifest) -> dict[str, bool]:
    """Where -> whether it may be written."""
    return {mount["mountPath"]: not mount.get("readOnly", False) for mount in container["volumeMounts"]}


def texts_of(values: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in values.items() if isinstance(value, str) and name != "EVALUATOR_COMMAND"}
