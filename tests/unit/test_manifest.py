"""The manifest of a shard's Job: valid, complete, and what Kubernetes does with a pod that ends."""

import json
import re
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.errors import InvalidConfiguration
from evaluation.pair.protocol import PairExitCode
from evaluation.shards import Shard
from evaluation.submission.model import LeaderboardVersion, Phase
from k8s_jobs import manifest as rendering
from k8s_jobs.cluster_spec import ClusterSpec, GpuJoin
from k8s_jobs.example import example_cluster, example_job
from k8s_jobs.manifest import attempt_selector, job_manifest, network_policies, scripts_config_map
from tests.unit.rendered import VERSIONS, containers, environment, pod, render

KUBERNETES = ("1.31", "1.32", "1.33", "1.34", "1.35")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
texts = st.text(max_size=220) | st.text(st.characters(exclude_categories=()), max_size=220)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_supported_kubernetes_takes_the_manifest_strictly(version: LeaderboardVersion, kubernetes: str) -> None:
    documents = [render(version), scripts_config_map("leaderboard"), *network_policies(example_cluster(version))]

    validated = [kubernetes_validate.validate(document, kubernetes, strict=True) for document in documents]

    assert validated == [kubernetes] * 5


@pytest.mark.parametrize("version", ["1.34", "1.35"])
def test_the_gpu_from_a_file_needs_a_newer_kubernetes(version: str) -> None:
    manifest = render(gpu_join=GpuJoin.ENV_FILE)

    assert kubernetes_validate.validate(manifest, version, strict=True) == version
    assert environment(containers(manifest)["simulator"])["NVIDIA_VISIBLE_DEVICES"] == {
        "fileKeyRef": {"volumeName": "gpu", "path": "env", "key": "NVIDIA_VISIBLE_DEVICES"}
    }


@settings(max_examples=60)
@given(team=texts, cluster=texts, track=texts, submission=st.integers(1, 2**63 - 1), index=st.integers(0, 99))
def test_any_team_and_phase_give_valid_names_and_labels(
    team: str, cluster: str, track: str, submission: int, index: int
) -> None:
    phase = Phase(f"{cluster}-{track}", cluster, track)
    job = replace(
        example_job(LeaderboardVersion.V2),
        team_name=team,
        phase=phase,
        submission=submission,
        shard=Shard(index, 100, (3,)),
    )

    manifest = job_manifest(job, example_cluster(LeaderboardVersion.V2))

    assert DNS_LABEL.fullmatch(manifest["metadata"]["name"])
    for labels in (manifest["metadata"]["labels"], manifest["spec"]["template"]["metadata"]["labels"]):
        assert all(LABEL_VALUE.fullmatch(value) for value in labels.values()), labels
    annotations = manifest["spec"]["template"]["metadata"]["annotations"]
    assert len(annotations["leaderboard/team"]) <= 200
    assert json.loads(json.dumps(annotations).encode()) == annotations
    assert not any("\ud800" <= character <= "\udfff" for character in annotations["leaderboard/team"])


@given(team=texts)
@settings(max_examples=30)
def test_a_team_name_reaches_the_cluster_as_annotation_only_and_changes_nothing_else(team: str) -> None:
    job = example_job(LeaderboardVersion.V1)
    named = job_manifest(replace(job, team_name=team), example_cluster(LeaderboardVersion.V1))
    unnamed = job_manifest(replace(job, team_name=""), example_cluster(LeaderboardVersion.V1))

    for manifest in (named, unnamed):
        for metadata in (manifest["metadata"], manifest["spec"]["template"]["metadata"]):
            del metadata["annotations"]["leaderboard/team"]

    assert named == unnamed


def test_an_ordinary_team_name_is_kept_as_it_is() -> None:
    annotations = render()["metadata"]["annotations"]

    assert annotations["leaderboard/team"] == "Équipe 自動運転 🚗"


def test_the_selector_of_an_attempt_finds_its_jobs_and_pods() -> None:
    manifest = render()
    wanted = dict(part.split("=") for part in attempt_selector(4711, 1).split(","))

    assert wanted.items() <= manifest["metadata"]["labels"].items()
    assert wanted.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    "field", ["simulator_image", "leaderboard_image", "logcopy_image", "routes_location", "region"]
)
def test_a_missing_setting_is_named(field: str) -> None:
    with pytest.raises(InvalidConfiguration, match=field):
        replace(example_cluster(LeaderboardVersion.V2), **{field: " "})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespace": "Leader Board"}, "namespace"),
        ({"worker_role_arn": ""}, "way to S3"),
        ({"storage_secret": "s3"}, "way to S3"),
        ({"storage_cidrs": ("10.0.0.1/8x",)}, "storage_cidrs"),
    ],
)
def test_a_wrong_cluster_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        replace(example_cluster(LeaderboardVersion.V2), **changes)


@pytest.mark.parametrize(("changes", "words"), [({"image": ""}, "no image"), ({"deadline_seconds": 0}, "deadline")])
def test_a_job_that_cannot_run_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        job_manifest(replace(example_job(LeaderboardVersion.V2), **changes), example_cluster(LeaderboardVersion.V2))


def test_a_placeholder_without_a_value_is_no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_limits", lambda *_: {})

    with pytest.raises(KeyError):
        render()


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_left_to_fill(version: LeaderboardVersion) -> None:
    assert "{{" not in json.dumps(render(version))


class TestFailurePolicy:
    def test_the_first_rule_replaces_what_was_disrupted(self) -> None:
        first = render()["spec"]["podFailurePolicy"]["rules"][0]

        assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}

    def test_exit_codes_that_another_pod_would_repeat_fail_the_job(self) -> None:
        rules = render()["spec"]["podFailurePolicy"]["rules"]

        (codes,) = [r["onExitCodes"] for r in rules if r.get("onExitCodes", {}).get("containerName") == "simulator"]

        assert set(codes["values"]) == set(PairExitCode) - {
            PairExitCode.FINISHED,
            PairExitCode.PAIR_LOST,
            PairExitCode.CANCELLED,
        }
        assert codes["values"] == sorted(codes["values"])  # the API server insists

    def test_no_rule_believes_the_agents_container(self) -> None:
        rules = render()["spec"]["podFailurePolicy"]["rules"]
        believed = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}

        assert believed == {"simulator", "private-contents", "evaluator"}

    def test_limits_come_from_the_job(self) -> None:
        job = replace(example_job(LeaderboardVersion.V2), deadline_seconds=99.2)

        spec = job_manifest(job, example_cluster(LeaderboardVersion.V2))["spec"]

        assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (8, 100)
        assert spec["ttlSecondsAfterFinished"] >= 3600
        assert (spec["podReplacementPolicy"], spec["completions"], spec["parallelism"]) == ("Failed", 1, 1)
        assert spec["template"]["spec"]["restartPolicy"] == "Never"


class TestPod:
    def test_the_supervisor_is_a_native_sidecar_behind_the_init_containers(self) -> None:
        spec = pod(render())

        assert [container["name"] for container in spec["initContainers"]] == [
            "evaluator",
            "private-contents",
            "supervisor",
        ]
        assert [container.get("restartPolicy") for container in spec["initContainers"]] == [None, None, "Always"]
        assert [container["name"] for container in spec["containers"]] == ["simulator", "agent"]

    def test_one_gpu_a_pair(self) -> None:
        gpus = {
            name: c["resources"].get("limits", {}).get("nvidia.com/gpu") for name, c in containers(render()).items()
        }

        # An init container's device goes on to the pod's containers, so the pod takes max(1, 1) = 1.
        assert {name for name, count in gpus.items() if count} == {"evaluator", "agent"}
        assert set(gpus.values()) == {None, 1}

    @pytest.mark.parametrize("join", GpuJoin)
    def test_the_agent_sees_the_gpu_that_the_device_plugin_gives_it(self, join: GpuJoin) -> None:
        parties = containers(render(gpu_join=join))

        # A variable of the pod's spec would win over the device plugin's.
        assert not {name for name in environment(parties["agent"]) if name.startswith("NVIDIA_")}
        assert "NVIDIA_VISIBLE_DEVICES" not in environment(parties["evaluator"])
        assert environment(parties["supervisor"])["NVIDIA_VISIBLE_DEVICES"] == "void"

    def test_four_pairs_fit_on_a_machine_with_four_gpus(self) -> None:
        main = [c["resources"]["requests"] for c in pod(render())["containers"]]
        cpus, gibibytes = sum(int(r["cpu"]) for r in main) + 0.1, sum(int(r["memory"][:-2]) for r in main) + 0.25

        assert 4 * cpus < 47  # g5.12xlarge: 48 cores, 192 GiB; g5.4xlarge: 16 cores, 64 GiB
        assert 4 * gibibytes < 170

    def test_shards_have_their_own_ports(self) -> None:
        job = example_job(LeaderboardVersion.V2)
        ports = []
        for index in range(4):
            sharded = replace(job, shard=Shard(index, 4, (index,)))
            values = environment(containers(job_manifest(sharded, example_cluster(LeaderboardVersion.V2)))["agent"])
            ports += [int(values["CARLA_PORT"]) + i for i in range(3)] + [int(values["TRAFFIC_MANAGER_PORT"])]

        assert len(set(ports)) == 16
        assert "hostNetwork" not in pod(render())

    def test_nodes_are_chosen_by_instance_type_or_not_at_all(self) -> None:
        chosen = pod(render(instance_types=("g5.4xlarge", "g5.8xlarge")))["affinity"]["nodeAffinity"]
        (term,) = chosen["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]

        assert term["matchExpressions"][0]["values"] == ["g5.4xlarge", "g5.8xlarge"]
        assert "affinity" not in pod(render(instance_types=()))

    def test_every_mount_has_its_volume_and_every_volume_a_mount(self) -> None:
        for cluster in ({}, {"worker_role_arn": "", "storage_secret": "s3"}):
            manifest = render(**cluster)
            used = {mount["name"] for c in containers(manifest).values() for mount in c["volumeMounts"]}

            assert used == {volume["name"] for volume in pod(manifest)["volumes"]}

    def test_two_renderings_share_nothing(self) -> None:
        first = render()
        first["metadata"]["labels"]["leaderboard/shard"] = "changed"
        first["spec"]["template"]["spec"]["volumes"].clear()

        assert render()["metadata"]["labels"]["leaderboard/shard"] == "1"
        assert first["spec"]["template"]["metadata"]["labels"]["leaderboard/shard"] == "1"
        assert pod(render())["volumes"]


def test_a_spec_without_a_role_may_name_a_secret() -> None:
    spec = ClusterSpec(
        namespace="leaderboard",
        simulator_image="s:1",
        leaderboard_image="l:1",
        logcopy_image="k:1",
        routes_location="s3://b/routes.xml",
        region="us-west-2",
        storage_secret="s3-keys",
    )

    assert job_manifest(example_job(LeaderboardVersion.V2), spec)["metadata"]["namespace"] == "leaderboard"
