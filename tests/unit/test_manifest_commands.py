"""The manifest of a shard's Job: its scripts, their environment, and the commands of each version, run in bash."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.pair.protocol import PairExitCode
from evaluation.submission.model import LeaderboardVersion
from k8s_jobs import manifest as rendering
from k8s_jobs.cluster_spec import GpuJoin
from k8s_jobs.example import example_cluster, example_job
from k8s_jobs.manifest import job_manifest, scripts_config_map, scripts_name
from shard_pod.settings import read_settings
from tests.unit.rendered import VERSIONS, containers, environment, pod, render, texts_of


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
        assert re.fullmatch(r"pair-scripts-[0-9a-f]{12}", scripts_name())


class TestContract:
    """What the scripts and the supervisor ask their environment for is there."""

    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("name", ["private-contents", "supervisor"])
    def test_the_supervisor_understands_its_environment(self, version: LeaderboardVersion, name: str) -> None:
        job = example_job(version)

        read = read_settings(texts_of(environment(containers(render(version))[name])))

        assert (read.submission, read.attempt, read.shard) == (job.submission, job.attempt, job.shard.index)
        assert (read.version, read.expected, read.budgets) == (version, job.expected, job.budgets)
        assert (read.bucket, read.hang_seconds, read.copy_seconds) == (job.bucket, 800, 30)

    @pytest.mark.parametrize("party", ["simulator", "agent"])
    def test_a_script_finds_every_variable_it_requires(self, party: str) -> None:
        script = scripts_config_map("leaderboard")["data"][f"{party}.sh"]
        (required,) = re.findall(r"^require ((?:.*\\\n)*.*)$", script, re.MULTILINE)

        assert set(required.replace("\\", " ").split()) <= environment(containers(render())[party]).keys()

    def test_what_both_sides_name_is_the_same(self) -> None:
        parties = containers(render())
        shared = ("PAIR_DIR", "CHECKPOINT_ENDPOINT", "ROUTES", "ROUTES_SUBSET", "REPETITIONS", "WORKER_ID")

        for name in shared:
            assert environment(parties["supervisor"])[name] == environment(parties["agent"])[name]
        assert environment(parties["agent"])["CARLA_PORT"] == environment(parties["simulator"])["CARLA_PORT"]

    def test_small_times_are_written_as_the_scripts_read_them(self) -> None:
        values = environment(containers(render(poll_seconds=0.00005, simulator_warmup_seconds=0.5))["simulator"])

        assert values["POLL_SECONDS"] == "0.00005"  # not 5e-05
        assert values["SIMULATOR_WARMUP_SECONDS"] == "0.5"


class TestVersions:
    def test_versions_differ_in_their_commands_only(self) -> None:
        job, cluster = example_job(LeaderboardVersion.V1), example_cluster(LeaderboardVersion.V1)
        first, second = (job_manifest(replace(job, version=version), cluster) for version in VERSIONS)
        own = {"SIMULATOR_COMMAND", "EVALUATOR_COMMAND", "LEADERBOARD_VERSION", "SDL_VIDEODRIVER", "SCENARIOS"}

        for manifest in (first, second):
            for container in containers(manifest).values():
                container["env"] = [entry for entry in container.get("env", []) if entry["name"] not in own]

        assert first == second

    def test_1_0_draws_with_opengl_and_names_its_scenarios(self) -> None:
        parties = containers(render(LeaderboardVersion.V1))
        agent = environment(parties["agent"])

        assert "-opengl" in environment(parties["simulator"])["SIMULATOR_COMMAND"]
        assert {"--trafficManagerPort", "--scenarios"} <= flags(agent["EVALUATOR_COMMAND"])
        assert agent["REPETITIONS"] == "5"

    def test_2_0_draws_with_vulkan(self) -> None:
        parties = containers(render(LeaderboardVersion.V2))

        assert "-vulkan" in environment(parties["simulator"])["SIMULATOR_COMMAND"]
        assert "--traffic-manager-port" in flags(environment(parties["agent"])["EVALUATOR_COMMAND"])

    @pytest.mark.parametrize("version", VERSIONS)
    def test_the_evaluator_gets_the_arguments_of_the_leaderboard(self, version: LeaderboardVersion) -> None:
        agent = containers(render(version))["agent"]
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

    @pytest.mark.parametrize("version", VERSIONS)
    def test_all_of_it_is_bash(self, version: LeaderboardVersion) -> None:
        parties = containers(render(version))
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

        assert result.returncode == PairExitCode.MISCONFIGURED
        assert result.stdout.splitlines()[-1].startswith("evaluator: ")
        assert (tmp_path / "pair/supervisor/evaluator.log").read_text() == result.stdout

    def test_stand_ins_need_neither(self, tmp_path: Path) -> None:
        assert copy_evaluator(tmp_path, GPU_JOIN="none").returncode == 0

    @pytest.mark.parametrize(
        ("version", "printed"),
        [
            (LeaderboardVersion.V1, "-opengl -nosound -carla-rpc-port=2010 SDL_HINT_CUDA_DEVICE=2"),
            (
                LeaderboardVersion.V2,
                "-vulkan -RenderOffScreen -nosound -carla-rpc-port=2010 "
                "-ini:[/Script/Engine.RendererSettings]:r.GraphicsAdapter=2 SDL_HINT_CUDA_DEVICE=",
            ),
        ],
    )
    def test_the_simulator_draws_on_the_agents_gpu(
        self, tmp_path: Path, version: LeaderboardVersion, printed: str
    ) -> None:
        (tmp_path / "uuid").write_text("GPU-1234\n")
        stub(tmp_path / "nvidia-smi", '[[ "$*" == "--id=GPU-1234 --query-gpu=index --format=csv,noheader" ]] && echo 2')
        stub(tmp_path / "CarlaUE4.sh", 'echo "$* SDL_HINT_CUDA_DEVICE=${SDL_HINT_CUDA_DEVICE:-}"')
        values = environment(containers(render(version))["simulator"])
        command = values["SIMULATOR_COMMAND"].replace("/gpu/uuid", f"{tmp_path}/uuid")

        result = bash(command, tmp_path, CARLA_PORT=values["CARLA_PORT"])

        assert (result.returncode, result.stdout.strip()) == (0, printed)

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
    (folder / "pair/supervisor").mkdir(parents=True)
    script: str = containers(render())["evaluator"]["command"][-1]
    roots = {
        "LEADERBOARD_ROOT": "leaderboard",
        "SCENARIO_RUNNER_ROOT": "scenario_runner",
        "CARLA_PYTHON_API_ROOT": "carla",
    }
    script = script.replace("/evaluator/", f"{folder}/evaluator/").replace("> /gpu/", f"> {folder}/gpu/")
    script = script.replace("tee /pair/", f"tee {folder}/pair/")
    return bash(script, folder, **variables, **{name: f"{folder}/image/{root}" for name, root in roots.items()})


def bash(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", command], env=path | variables, cwd=folder, capture_output=True, text=True)


def stub(path: Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def flags(command: str) -> set[str]:
    return set(re.findall(r"(--[a-zA-Z-]+)=", command))
