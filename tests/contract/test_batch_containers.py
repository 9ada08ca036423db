"""The commands of the job definition's containers, run for real, with a folder for their root."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from pytest_httpserver import HTTPServer

import local_jobs
import shard_pod
from tests.aws_templates import properties
from tests.waiting import PATIENCE_SECONDS, eventually

SCRIPTS = Path(shard_pod.__file__).parent
ROUTES = Path(local_jobs.__file__).parent / "routes" / "leaderboard-20.xml"
FOLDERS = ("/scripts", "/evaluator", "/routes", "/pair")


def container(name: str) -> dict[str, Any]:
    (definition,) = properties("batch-shards", "AWS::Batch::JobDefinition")
    (task,) = definition["EcsProperties"]["TaskProperties"]
    return next(dict(each) for each in task["Containers"] if each["Name"] == name)


def command(name: str, root: Path) -> list[str]:
    """The container's command line, its folders below `root`."""
    *head, script = container(name)["Command"]
    for folder in FOLDERS:
        script = re.sub(rf"(?<![\w.]){folder}", f"{root}{folder}", script)  # not /pair/supervisor/evaluator.log
    return [*head, script]


def environment(name: str, root: Path, **changes: str) -> dict[str, str]:
    known = {each["Name"]: each["Value"] for each in container(name)["Environment"] if isinstance(each["Value"], str)}
    placed = {
        key: f"{root}{value}" if value.startswith((*FOLDERS, "/tmp")) else value  # noqa: S108 - the container's own
        for key, value in known.items()
    }
    return {
        "PATH": os.environ["PATH"],
        "SUPERVISORS_ROLE": "arn:aws:iam::123456789012:role/supervisor",
        **placed,
        **changes,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The container's root: its volumes are there, owned by somebody who shares them with nobody."""
    for folder in (
        "scripts",
        "evaluator/leaderboard",
        "routes",
        "pair/supervisor",
        "pair/simulator",
        "pair/agent",
        "tmp",
    ):
        (tmp_path / folder).mkdir(parents=True, mode=0o755)
    return tmp_path


@pytest.fixture
def program(root: Path) -> Path:
    """A folder for the programs of the container's PATH, before the machine's own."""
    (root / "bin").mkdir()
    return root / "bin"


def put(program: Path, name: str, script: str) -> None:
    (program / name).write_text(f"#!/bin/bash\n{script}\n")
    (program / name).chmod(0o755)


class TestInstance:
    """The start script of the compute environments' instances, with programs that stand for the instance's own."""

    def start(self, root: Path, program: Path, sysconfig: str) -> tuple[int, str, str]:
        """The code, Docker's options afterwards, and the commands that were run."""
        (template,) = properties("batch", "AWS::EC2::LaunchTemplate")
        user_data = template["LaunchTemplateData"]["UserData"]["Fn::Base64"]
        script = user_data.partition("#!/bin/bash")[2].partition("--==")[0]
        options = root / "sysconfig-docker"
        options.write_text(sysconfig)
        for name in ("systemctl", "iptables", "shutdown"):
            put(program, name, f'echo "{name} $*" >> {root}/commands')
        done = subprocess.run(
            ["bash", "-c", script.replace("/etc/sysconfig/docker", str(options))],
            env={"PATH": f"{program}:{os.environ['PATH']}"},
            timeout=60,
        )
        return done.returncode, options.read_text(), (root / "commands").read_text()

    @pytest.mark.parametrize("gpu", [True, False])
    def test_no_container_gains_privileges_or_reaches_the_metadata_service(
        self, root: Path, program: Path, gpu: bool
    ) -> None:
        if gpu:
            put(program, "nvidia-smi", "exit 0")

        code, options, commands = self.start(root, program, 'OPTIONS="--default-ulimit nofile=32768:65536"\n')

        runtime = " --default-runtime nvidia" if gpu else ""
        assert (code, options) == (
            0,
            f'OPTIONS="--no-new-privileges{runtime} --default-ulimit nofile=32768:65536"\n',
        )
        assert "iptables -I OUTPUT -d 169.254.169.254/32" in commands
        assert "systemctl restart docker" in commands
        assert "shutdown" not in commands

    def test_an_instance_that_cannot_be_confined_is_shut_down(self, root: Path, program: Path) -> None:
        _, _, commands = self.start(root, program, "# moved elsewhere\n")

        assert "shutdown -h now" in commands
        assert "restart docker" not in commands


class TestInit:
    def run(self, root: Path, changes: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("init", root),
            env=environment("init", root, AGAIN_SECONDS="0.1", **changes),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_it_takes_the_supervisors_role_by_the_key_and_brings_scripts_and_routes(
        self, root: Path, program: Path, aws: dict[str, Any], httpserver: HTTPServer
    ) -> None:
        s3 = boto3.client("s3", **aws)
        s3.create_bucket(Bucket="leaderboard-20", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        s3.put_object(Bucket="leaderboard-20", Key="routes.xml", Body=ROUTES.read_bytes())
        task_role = {
            "AccessKeyId": "of-the-task",
            "SecretAccessKey": "x",
            "Token": "x",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        httpserver.expect_request("/credentials").respond_with_json(task_role)
        put(program, "python", f'exec {sys.executable} "$@"')

        done = self.run(
            root,
            {
                "PATH": f"{program}:{os.environ['PATH']}",
                "PYTHONPATH": str(SCRIPTS.parents[1]),
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": httpserver.url_for("/credentials"),
                "AWS_ENDPOINT_URL": aws["endpoint_url"],
                "AWS_DEFAULT_REGION": "us-west-2",
                "SUPERVISORS_KEY": "the-key",
                "DEFINED_LEADERBOARD_VERSION": "2.0",
                **shard_values("s3://leaderboard-20/routes.xml"),
            },
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert {path.name for path in (root / "scripts").iterdir()} == {"agent.sh", "pair.sh", "simulator.sh"}
        assert (root / "routes" / "routes.xml").read_bytes() == ROUTES.read_bytes()
        assert "external_id = the-key" in (root / "tmp" / "aws-config").read_text()
        assert len(httpserver.log) >= 1  # the task's own role, which takes the supervisor's
        assert (root / "pair" / "agent").stat().st_mode & 0o777 == 0o777

    def test_a_definition_of_the_other_version_is_noticed(self, root: Path) -> None:
        done = self.run(root, {"DEFINED_LEADERBOARD_VERSION": "1.0", "LEADERBOARD_VERSION": "2.0"})

        assert done.returncode == 40
        assert "for leaderboard version 1.0, the cluster's block says 2.0" in done.stderr

    @pytest.mark.parametrize(("codes", "end", "tries"), [("1 1 0", 0, 3), ("22", 22, 1), ("1 1 1 1 1", 1, 5)])
    def test_what_may_pass_is_tried_again(self, root: Path, program: Path, codes: str, end: int, tries: int) -> None:
        put(program, "python", f'[[ "$1" == -c ]] && echo {SCRIPTS} && exit\n{following(root, codes)}')
        version = {"DEFINED_LEADERBOARD_VERSION": "2.0", "LEADERBOARD_VERSION": "2.0", "SUPERVISORS_KEY": "the-key"}

        done = self.run(root, {"PATH": f"{program}:{os.environ['PATH']}", **version})

        assert done.returncode == end
        assert (root / "tries").stat().st_size == tries


class TestSupervisorRole:
    def start(self, root: Path, program: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command("supervisor", root),
            env=environment(
                "supervisor",
                root,
                AGAIN_SECONDS="0.1",
                SUPERVISORS_KEY="the-key",
                PATH=f"{program}:{os.environ['PATH']}",
            ),
            text=True,
        )

    @pytest.mark.parametrize(("codes", "end", "tries"), [("0", 0, 1), ("1 137 13", 13, 3), ("1 1 1 1 1 1 1 1", 1, 8)])
    def test_one_that_breaks_is_started_again_and_a_exit_code_ends_it(
        self, root: Path, program: Path, codes: str, end: int, tries: int
    ) -> None:
        put(program, "python", following(root, codes))

        assert self.start(root, program).wait(PATIENCE_SECONDS) == end
        assert (root / "tries").stat().st_size == tries

    def test_term_goes_on_to_it_and_its_last_copy_is_waited_for(self, root: Path, program: Path) -> None:
        put(
            program,
            "python",
            f"trap 'sleep 0.3; touch {root}/copied; exit 30' TERM\ntouch {root}/up\nwhile :; do sleep 0.05; done",
        )
        supervisor = self.start(root, program)
        eventually((root / "up").exists)

        supervisor.send_signal(signal.SIGTERM)

        assert supervisor.wait(PATIENCE_SECONDS) == 30
        assert (root / "copied").exists()


@pytest.mark.parametrize("party", ["simulator", "agent"])
def test_a_container_that_ecs_ends_because_another_has_ended_keeps_the_exit_code(root: Path, party: str) -> None:
    (root / "scripts" / "waits").touch()
    values = {
        **shard_values("unused"),
        "PAIR_DIR": str(root / "pair"),
        "POLL_SECONDS": "0.05",
        "SIMULATOR_COMMAND": "sleep 100",
        "EVALUATOR_COMMAND": "sleep 100",
        "SIMULATOR_WARMUP_SECONDS": "0.1",
        "SIMULATOR_WAIT_SECONDS": "60",
        "CHECKPOINT_ENDPOINT": "unused",
        "ROUTES": "unused",
        "CARLA_PORT": "2000",
        "CHALLENGE_TRACK_CODENAME": "SENSORS",
    }
    running = subprocess.Popen(["bash", str(SCRIPTS / f"{party}.sh")], env={"PATH": os.environ["PATH"], **values})
    eventually((root / "pair" / party / f"{party}.log").exists)

    (root / "pair" / "supervisor" / "exit_code").write_text("13\n")
    running.send_signal(signal.SIGTERM)

    assert running.wait(PATIENCE_SECONDS) == 13


def following(root: Path, codes: str) -> str:
    """A program that ends with the next of these codes whenever it is started."""
    return f"printf x >> {root}/tries\ncodes=({codes})\nexit ${{codes[$(stat -c %s {root}/tries) - 1]}}"


def shard_values(routes: str) -> dict[str, str]:
    return {
        "SUBMISSION": "7",
        "ATTEMPT": "1",
        "WORKER_ID": "0",
        "SHARD_COUNT": "4",
        "LEADERBOARD_VERSION": "2.0",
        "BUCKET": "leaderboard-20",
        "ROUTES_LOCATION": routes,
        "ROUTES_SUBSET": "0-4",
        "REPETITIONS": "1",
        "AGENT_RESTARTS": "4",
        "INFRASTRUCTURE_RESTARTS": "8",
        "SIMULATOR_CRASHES_PER_ROUTE": "3",
        "HANG_SECONDS": "800",
        "COPY_SECONDS": "30",
        "POLL_SECONDS": "1",
        "LOG_GROUP": "",
    }
