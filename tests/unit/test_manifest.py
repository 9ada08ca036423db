"""The manifest of a shard's Job: what Kubernetes makes of it, and whom it trusts with what."""

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.errors import InvalidConfiguration
from evaluation.pair import Verdict
from evaluation.shards import Shard
from evaluation.submission import Generation, Phase
from k8s_jobs import manifest as rendering
from k8s_jobs.cluster import ClusterSpec, GpuJoin
from k8s_jobs.example import example_cluster, example_job
from k8s_jobs.manifest import attempt_selector, job_manifest, network_policies, scripts_config_map, scripts_name

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35")
GENERATIONS = tuple(Generation)
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
UNTRUSTED_OR_BLIND = ("agent", "simulator", "evaluator")
texts = st.text(max_size=220) | st.text(st.characters(exclude_categories=()), max_size=220)

Manifest = dict[str, Any]


def render(generation: Generation = Generation.V2, **cluster: Any) -> Manifest:
    return job_manifest(example_job(generation), replace(example_cluster(generation), **cluster))


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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_supported_kubernetes_takes_the_manifest_strictly(generation: Generation, version: str) -> None:
    documents = [render(generation), scripts_config_map("leaderboard"), *network_policies(example_cluster(generation))]

    validated = [kubernetes_validate.validate(document, version, strict=True) for document in documents]

    assert validated == [version] * 5


@pytest.mark.parametrize("version", ["1.34", "1.35"])
def test_the_gpu_from_a_file_needs_a_newer_kubernetes(version: str) -> None:
    manifest = render(gpu_join=GpuJoin.ENV_FILE)

    assert kubernetes_validate.validate(manifest, version, strict=True) == version
    assert environment(containers(manifest)["simulator"])["NVIDIA_VISIBLE_DEVICES"] == {
        "fileKeyRef": {"volumeName": "gpu", "path": "env", "key": "NVIDIA_VISIBLE_DEVICES"}
    }


@settings(max_examples=60, deadline=None)
@given(team=texts, cluster=texts, track=texts, submission=st.integers(1, 2**63 - 1), index=st.integers(0, 99))
def test_any_team_and_phase_give_valid_names_and_labels(
    team: str, cluster: str, track: str, submission: int, index: int
) -> None:
    phase = Phase(f"{cluster}-{track}", cluster, track)
    job = replace(
        example_job(Generation.V2), team_name=team, phase=phase, submission=submission, shard=Shard(index, 100, (3,))
    )

    manifest = job_manifest(job, example_cluster(Generation.V2))

    assert DNS_LABEL.fullmatch(manifest["metadata"]["name"])
    for labels in (manifest["metadata"]["labels"], manifest["spec"]["template"]["metadata"]["labels"]):
        assert all(LABEL_VALUE.fullmatch(value) for value in labels.values()), labels
    annotations = manifest["spec"]["template"]["metadata"]["annotations"]
    assert len(annotations["leaderboard/team"]) <= 200
    assert json.loads(json.dumps(annotations).encode()) == annotations
    assert not any("\ud800" <= character <= "\udfff" for character in annotations["leaderboard/team"])


@given(team=texts)
@settings(max_examples=30, deadline=None)
def test_a_team_name_reaches_the_cluster_as_annotation_only_and_changes_nothing_else(team: str) -> None:
    job = example_job(Generation.V1)
    named = job_manifest(replace(job, team_name=team), example_cluster(Generation.V1))
    unnamed = job_manifest(replace(job, team_name=""), example_cluster(Generation.V1))

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
        replace(example_cluster(Generation.V2), **{field: " "})


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
        replace(example_cluster(Generation.V2), **changes)


@pytest.mark.parametrize(("changes", "words"), [({"image": ""}, "no image"), ({"deadline_seconds": 0}, "deadline")])
def test_a_job_that_cannot_run_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        job_manifest(replace(example_job(Generation.V2), **changes), example_cluster(Generation.V2))


def test_a_placeholder_without_a_value_is_no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_limits", lambda *_: {})

    with pytest.raises(KeyError):
        render()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_nothing_is_left_to_fill(generation: Generation) -> None:
    assert "{{" not in json.dumps(render(generation))


class TestFailurePolicy:
    def test_the_first_rule_replaces_what_was_disrupted(self) -> None:
        first = render()["spec"]["podFailurePolicy"]["rules"][0]

        assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}

    def test_verdicts_that_another_pod_would_repeat_fail_the_job(self) -> None:
        rules = render()["spec"]["podFailurePolicy"]["rules"]

        (codes,) = [r["onExitCodes"] for r in rules if r.get("onExitCodes", {}).get("containerName") == "simulator"]

        assert set(codes["values"]) == set(Verdict) - {Verdict.FINISHED, Verdict.PAIR_LOST, Verdict.CANCELLED}
        assert codes["values"] == sorted(codes["values"])  # the API server insists

    def test_no_rule_believes_the_agents_container(self) -> None:
        rules = render()["spec"]["podFailurePolicy"]["rules"]
        believed = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}

        assert believed == {"simulator", "private-contents", "evaluator"}

    def test_limits_come_from_the_job(self) -> None:
        job = replace(example_job(Generation.V2), deadline_seconds=99.2)

        spec = job_manifest(job, example_cluster(Generation.V2))["spec"]

        assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (8, 100)
        assert spec["ttlSecondsAfterFinished"] >= 3600
        assert (spec["podReplacementPolicy"], spec["completions"], spec["parallelism"]) == ("Failed", 1, 1)
        assert spec["template"]["spec"]["restartPolicy"] == "Never"


class TestPod:
    def test_the_keeper_is_a_native_sidecar_behind_the_init_containers(self) -> None:
        spec = pod(render())

        assert [container["name"] for container in spec["initContainers"]] == [
            "evaluator",
            "private-contents",
            "logcopy",
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
        assert environment(parties["logcopy"])["NVIDIA_VISIBLE_DEVICES"] == "void"

    def test_four_pairs_fit_on_a_machine_with_four_gpus(self) -> None:
        main = [c["resources"]["requests"] for c in pod(render())["containers"]]
        cpus, gibibytes = sum(int(r["cpu"]) for r in main) + 0.1, sum(int(r["memory"][:-2]) for r in main) + 0.25

        assert 4 * cpus < 47  # g5.12xlarge: 48 cores, 192 GiB; g5.4xlarge: 16 cores, 64 GiB
        assert 4 * gibibytes < 170

    def test_shards_have_their_own_ports(self) -> None:
        job = example_job(Generation.V2)
        ports = []
        for index in range(4):
            sharded = replace(job, shard=Shard(index, 4, (index,)))
            values = environment(containers(job_manifest(sharded, example_cluster(Generation.V2)))["agent"])
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


class TestTrust:
    def test_only_the_keeper_and_prepare_have_a_way_to_aws(self) -> None:
        parties = containers(render())

        for name, container in parties.items():
            aws = {key for key in environment(container) if key.startswith("AWS_")} if "env" in container else set()
            token = "/var/run/secrets/submission-worker" in mounts(container)
            assert (bool(aws), token) == ((name not in UNTRUSTED_OR_BLIND,) * 2), name
        assert environment(parties["logcopy"])["AWS_EC2_METADATA_DISABLED"] == "true"

    def test_a_secret_outside_aws_goes_to_the_same_two(self) -> None:
        manifest = render(worker_role_arn="", storage_secret="s3-keys", storage_endpoint="https://s3.example")

        with_secret = {name for name, container in containers(manifest).items() if "envFrom" in container}

        assert with_secret == {"private-contents", "logcopy"}
        assert environment(containers(manifest)["logcopy"])["AWS_ENDPOINT_URL"] == "https://s3.example"
        assert "aws-token" not in {volume["name"] for volume in pod(manifest)["volumes"]}

    def test_no_token_of_the_api_server_is_mounted_anywhere(self) -> None:
        spec = pod(render())
        projected = [volume["projected"]["sources"] for volume in spec["volumes"] if "projected" in volume]

        assert spec["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"] == "submission-worker"
        assert [source["serviceAccountToken"]["audience"] for (source,) in projected] == ["sts.amazonaws.com"]

    def test_the_injecting_webhook_is_told_to_leave_the_others_alone(self) -> None:
        annotations = render()["spec"]["template"]["metadata"]["annotations"]

        assert set(annotations["eks.amazonaws.com/skip-containers"].split(",")) == set(UNTRUSTED_OR_BLIND)

    def test_each_party_writes_in_its_own_folder_only(self) -> None:
        parties = containers(render())

        written = {
            name: {path for path, writable in mounts(container).items() if writable}
            for name, container in parties.items()
        }

        assert written["agent"] == {"/pair/agent", "/dev/shm"}  # noqa: S108 - a path in the pod
        assert written["simulator"] == {"/pair/simulator"}
        assert written["logcopy"] == {"/pair/keeper", "/pair/agent", "/tmp"}  # noqa: S108 - likewise
        assert "/gpu" not in mounts(parties["agent"])

    def test_nobody_can_gain_privileges(self) -> None:
        for name, container in containers(render()).items():
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context.get("runAsNonRoot", False) is (name != "agent"), name
            assert "privileged" not in context, name
        assert pod(render())["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}

    def test_every_folder_has_a_limit(self) -> None:
        volumes = [volume for volume in pod(render())["volumes"] if "emptyDir" in volume]

        assert all("sizeLimit" in volume["emptyDir"] for volume in volumes)
        assert not [volume for volume in pod(render())["volumes"] if "hostPath" in volume]

    def test_no_value_of_ours_is_expanded_by_kubernetes(self) -> None:
        track = "MAP$(AWS_ROLE_ARN)"
        job = replace(example_job(Generation.V2), phase=Phase(f"x-{track}", "x", track))

        values = environment(containers(job_manifest(job, example_cluster(Generation.V2)))["agent"])

        assert values["CHALLENGE_TRACK_CODENAME"] == "MAP$$(AWS_ROLE_ARN)"  # Kubernetes makes $$ a $

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_no_command_is_changed_by_kubernetes_expansion(self, generation: Generation) -> None:
        for container in containers(render(generation)).values():
            names = {entry["name"] for entry in container.get("env", [])}
            values = environment(container).values() if "env" in container else ()
            for text in [*container["command"], *(value for value in values if isinstance(value, str))]:
                assert "$$" not in text
                assert not names & set(re.findall(r"\$\(([^)]*)\)", text))

    def test_the_policies_deny_all_but_names_and_storage(self) -> None:
        deny, names, storage = network_policies(example_cluster(Generation.V2, ("10.20.1.7/32",)))
        labels = render()["spec"]["template"]["metadata"]["labels"]

        assert (deny["spec"]["podSelector"], deny["spec"]["policyTypes"]) == ({}, ["Ingress", "Egress"])
        assert not {"ingress", "egress"} & deny["spec"].keys()
        assert {port["port"] for rule in names["spec"]["egress"] for port in rule["ports"]} == {53}
        (rule,) = storage["spec"]["egress"]
        assert rule == {"to": [{"ipBlock": {"cidr": "10.20.1.7/32"}}], "ports": [{"protocol": "TCP", "port": 443}]}
        for policy in (names, storage):
            assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()

    def test_without_an_address_nothing_is_reachable(self) -> None:
        # An empty list of peers would mean: anybody.
        *_, storage = network_policies(replace(example_cluster(Generation.V2), storage_cidrs=()))

        assert storage["spec"]["egress"] == []


class TestScripts:
    def test_the_config_map_holds_what_the_containers_start(self) -> None:
        data = scripts_config_map("leaderboard")["data"]
        started = {pod(render())["containers"][i]["command"][-1] for i in (0, 1)}

        assert {f"/scripts/{name}" for name in data} >= started | {"/scripts/pair.sh"}
        assert all(name.endswith(".sh") for name in data)

    def test_its_name_changes_with_its_content_and_it_never_changes_itself(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = scripts_config_map("leaderboard")
        (volume,) = [volume for volume in pod(render())["volumes"] if volume["name"] == "scripts"]
        monkeypatch.setattr(rendering, "_scripts", lambda: {"agent.sh": "exit 0\n"})

        assert before["immutable"] is True
        assert volume["configMap"]["name"] == before["metadata"]["name"]
        assert scripts_name() != before["metadata"]["name"]
        assert DNS_LABEL.fullmatch(scripts_name())


class TestGenerations:
    def test_templates_differ_in_their_commands_only(self) -> None:
        job, cluster = example_job(Generation.V1), example_cluster(Generation.V1)
        first, second = (job_manifest(replace(job, generation=generation), cluster) for generation in GENERATIONS)
        own = {"SIMULATOR_COMMAND", "EVALUATOR_COMMAND", "GENERATION", "SDL_VIDEODRIVER", "SCENARIOS"}

        for manifest in (first, second):
            for container in containers(manifest).values():
                container["env"] = [entry for entry in container.get("env", []) if entry["name"] not in own]

        assert first == second

    def test_1_0_draws_with_opengl_and_names_its_scenarios(self) -> None:
        parties = containers(render(Generation.V1))
        agent = environment(parties["agent"])

        assert "-opengl" in environment(parties["simulator"])["SIMULATOR_COMMAND"]
        assert {"--trafficManagerPort", "--scenarios"} <= flags(agent["EVALUATOR_COMMAND"])
        assert agent["REPETITIONS"] == "5"

    def test_2_0_draws_with_vulkan(self) -> None:
        parties = containers(render(Generation.V2))

        assert "-vulkan" in environment(parties["simulator"])["SIMULATOR_COMMAND"]
        assert "--traffic-manager-port" in flags(environment(parties["agent"])["EVALUATOR_COMMAND"])

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_the_evaluator_gets_the_arguments_of_the_leaderboard(self, generation: Generation) -> None:
        agent = containers(render(generation))["agent"]
        command = environment(agent)["EVALUATOR_COMMAND"]
        used = set(re.findall(r"\$\{?([A-Z_]+)", command))

        assert {"--agent", "--agent-config", "--track", "--routes", "--routes-subset", "--repetitions", "--resume"} <= (
            flags(command)
        )
        # RESUME is set by agent.sh, the team's two by its image, the rest by us.
        assert used - {"RESUME", "TEAM_AGENT", "TEAM_CONFIG", "HOME", "PYTHONPATH"} <= environment(agent).keys()

    def test_stand_ins_replace_both_commands(self) -> None:
        parties = containers(render(simulator_command="sleep 1", evaluator_command="true", gpu_join=GpuJoin.NONE))

        assert environment(parties["simulator"])["SIMULATOR_COMMAND"] == "sleep 1"
        assert environment(parties["agent"])["EVALUATOR_COMMAND"] == "true"
        assert environment(parties["simulator"])["NVIDIA_VISIBLE_DEVICES"] == "void"


class TestCommands:
    """The shell in the templates, run with the paths of this machine."""

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_all_of_it_is_bash(self, generation: Generation) -> None:
        parties = containers(render(generation))
        commands = [
            parties["evaluator"]["command"][-1],
            environment(parties["simulator"])["SIMULATOR_COMMAND"],
            environment(parties["agent"])["EVALUATOR_COMMAND"],
        ]

        checks = [subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True) for command in commands]

        assert [(check.returncode, check.stderr) for check in checks] == [(0, "")] * 3

    def test_the_evaluator_is_copied_and_the_gpu_noted(self, tmp_path: Path) -> None:
        for name in ("leaderboard", "scenario_runner", "carla"):
            (tmp_path / "image" / name).mkdir(parents=True)
            (tmp_path / "image" / name / "file.py").write_text(name)

        result = copy_evaluator(tmp_path, NVIDIA_VISIBLE_DEVICES="GPU-1234", GPU_JOIN="all")

        assert (result.returncode, result.stderr) == (0, "")
        assert (tmp_path / "evaluator/leaderboard/file.py").read_text() == "leaderboard"
        assert (tmp_path / "evaluator/CARLA/file.py").read_text() == "carla"
        assert (tmp_path / "gpu/uuid").read_text() == "GPU-1234\n"
        assert (tmp_path / "gpu/env").read_text() == "NVIDIA_VISIBLE_DEVICES='GPU-1234'\n"

    @pytest.mark.parametrize(("device", "folders"), [("", True), ("0", True), ("GPU-1234", False)])
    def test_a_wrong_image_or_device_plugin_is_a_misconfiguration(
        self, tmp_path: Path, device: str, folders: bool
    ) -> None:
        for name in ("leaderboard", "scenario_runner", "carla") if folders else ():
            (tmp_path / "image" / name).mkdir(parents=True)

        result = copy_evaluator(tmp_path, NVIDIA_VISIBLE_DEVICES=device, GPU_JOIN="all")

        assert result.returncode == Verdict.MISCONFIGURED
        assert result.stderr.startswith("evaluator: ")

    def test_stand_ins_need_neither(self, tmp_path: Path) -> None:
        assert copy_evaluator(tmp_path, GPU_JOIN="none").returncode == 0

    @pytest.mark.parametrize(
        ("generation", "told"),
        [
            (Generation.V1, "-opengl -nosound -carla-rpc-port=2010 SDL_HINT_CUDA_DEVICE=2"),
            (
                Generation.V2,
                "-vulkan -RenderOffScreen -nosound -carla-rpc-port=2010 "
                "-ini:[/Script/Engine.RendererSettings]:r.GraphicsAdapter=2 SDL_HINT_CUDA_DEVICE=",
            ),
        ],
    )
    def test_the_simulator_draws_on_the_agents_gpu(self, tmp_path: Path, generation: Generation, told: str) -> None:
        (tmp_path / "uuid").write_text("GPU-1234\n")
        stub(tmp_path / "nvidia-smi", '[[ "$*" == "--id=GPU-1234 --query-gpu=index --format=csv,noheader" ]] && echo 2')
        stub(tmp_path / "CarlaUE4.sh", 'echo "$* SDL_HINT_CUDA_DEVICE=${SDL_HINT_CUDA_DEVICE:-}"')
        values = environment(containers(render(generation))["simulator"])
        command = values["SIMULATOR_COMMAND"].replace("/gpu/uuid", f"{tmp_path}/uuid")

        result = bash(command, tmp_path, CARLA_PORT=values["CARLA_PORT"])

        assert (result.returncode, result.stdout.strip()) == (0, told)

    @pytest.mark.parametrize(("resume", "resumed"), [("", False), ("1", True)])
    def test_the_evaluator_resumes_when_told_to_only(self, tmp_path: Path, resume: str, resumed: bool) -> None:
        stub(tmp_path / "python3", 'for argument in "$@"; do echo "$argument"; done')
        values = environment(containers(render())["agent"])

        result = bash(values["EVALUATOR_COMMAND"], tmp_path, RESUME=resume, HOME=str(tmp_path), **texts_of(values))
        arguments = dict(line.split("=", 1) for line in result.stdout.splitlines() if line.startswith("--"))

        assert result.returncode == 0, result.stderr
        assert bool(arguments["--resume"]) is resumed  # as type=bool reads it
        assert arguments["--routes-subset"] == "5-9"
        assert arguments["--port"] == "2010"


def copy_evaluator(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "gpu").mkdir()
    script: str = containers(render())["evaluator"]["command"][-1]
    roots = {
        "LEADERBOARD_ROOT": "leaderboard",
        "SCENARIO_RUNNER_ROOT": "scenario_runner",
        "CARLA_PYTHON_API_ROOT": "carla",
    }
    script = script.replace("/evaluator/", f"{folder}/evaluator/").replace("> /gpu/", f"> {folder}/gpu/")
    return bash(script, folder, **variables, **{name: f"{folder}/image/{root}" for name, root in roots.items()})


def bash(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", command], env=path | variables, cwd=folder, capture_output=True, text=True)


def stub(path: Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def texts_of(values: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in values.items() if isinstance(value, str) and name != "EVALUATOR_COMMAND"}


def flags(command: str) -> set[str]:
    return set(re.findall(r"(--[a-zA-Z-]+)=", command))


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

    assert job_manifest(example_job(Generation.V2), spec)["metadata"]["namespace"] == "leaderboard"
