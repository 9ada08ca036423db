"""The request of SubmitJob, and whether it and the job definition of deployments/aws make a complete pair."""

import re
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shard_pod
from batch_jobs.job_definitions import needs_gpu, require_base
from batch_jobs.shard_failures import INSTANCE_LOST
from batch_jobs.spec import BatchSpec
from batch_jobs.submit_request import attempt_of, share_identifier, submit_request, tag_value
from evaluation.errors import InvalidConfiguration
from evaluation.shards import Budgets, Shard, ShardJob
from evaluation.submission.model import LeaderboardVersion, parse_phase
from shard_pod.settings import read_settings
from tests.aws_templates import aws, properties
from tests.unit import rendered

SPEC = BatchSpec("leaderboard-20-shard", "production", "s3://private/routes.xml", log_group="leaderboard-20")


def job(**changes: Any) -> ShardJob:
    values: dict[str, Any] = {
        "submission": 7,
        "attempt": 2,
        "shard": Shard(1, 4, (5, 6, 7)),
        "phase": parse_phase("leaderboard-20-SENSORS"),
        "version": LeaderboardVersion.V2,
        "repetitions": 1,
        "image": "registry/team:1",
        "team_name": "Team",
        "bucket": "leaderboard-20",
        "budgets": Budgets(),
        "hang_seconds": 800.0,
        "deadline_seconds": 7200.5,
    }
    return ShardJob(**{**values, **changes})


def shard() -> dict[str, Any]:
    (definition,) = properties("batch-shards", "AWS::Batch::JobDefinition")
    return definition


def containers() -> dict[str, dict[str, Any]]:
    (task,) = shard()["EcsProperties"]["TaskProperties"]
    return {each["Name"]: each for each in task["Containers"]}


def environment(container: str) -> dict[str, str]:
    """What the container finds: the definition's values, then the shard's. A reference is a number there."""
    known = {each["Name"]: each["Value"] for each in containers()[container]["Environment"]}
    (task,) = submit_request(job(), SPEC, "arn")["ecsPropertiesOverride"]["taskProperties"]
    given = next(each for each in task["containers"] if each["name"] == container)["environment"]
    return {key: value if isinstance(value, str) else "1" for key, value in known.items()} | {
        each["name"]: each["value"] for each in given
    }


class TestRequest:
    def test_it_names_the_shard_and_overrides_nothing_but_its_own_values(self) -> None:
        request = submit_request(job(), SPEC, "arn:of:revision")

        assert request["jobName"] == "submission-7-attempt-2-shard-1"
        assert (request["jobQueue"], request["jobDefinition"]) == ("production", "arn:of:revision")
        assert request["timeout"] == {"attemptDurationSeconds": 7201}
        (task,) = request["ecsPropertiesOverride"]["taskProperties"]
        assert {key for each in task["containers"] for key in each} == {"name", "environment"}
        assert "arrayProperties" not in request

    def test_a_short_deadline_is_the_shortest_that_batch_takes(self) -> None:
        assert submit_request(job(deadline_seconds=1.0), SPEC, "arn")["timeout"] == {"attemptDurationSeconds": 60}
        with pytest.raises(InvalidConfiguration, match="deadline of 0"):
            submit_request(job(deadline_seconds=0), SPEC, "arn")

    @given(st.text())
    def test_any_team_has_a_share_and_a_tag(self, team: str) -> None:
        assert re.fullmatch(r"[A-Za-z0-9]{1,255}", share_identifier(team))
        assert re.fullmatch(r"[A-Za-z0-9 _.:/=+@-]{0,256}", tag_value(team))

    def test_teams_that_look_alike_do_not_share(self) -> None:
        assert len({share_identifier(team) for team in ("A B", "AB", "A-B", "ab", "", "🚗")}) == 6

    def test_a_name_is_read_back(self) -> None:
        assert attempt_of(job().name) == (7, 2)
        assert attempt_of("submission-7") is None


class TestSpec:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"definition": "arn:aws:batch:us-west-2:1:job-definition/x:1"}, "not the name of a job definition"),
            ({"queue": ""}, "not the name of a job queue"),
            ({"adhoc_queue": "a b"}, "not the name of a job queue"),
            ({"adhoc_phases": frozenset({"leaderboard-20-MAP"})}, "without an adhoc_queue"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidConfiguration, match=words):
            BatchSpec(**{"definition": "shard", "queue": "production", "routes_location": "r", **changes})


class TestDefinition:
    def test_with_the_shards_values_the_supervisor_has_all_its_settings(self) -> None:
        settings = read_settings(environment("supervisor"))

        assert environment("init") == environment("supervisor")
        assert (settings.submission, settings.attempt, settings.shard) == (7, 2, 1)
        assert [run.route for run in settings.expected] == [5, 6, 7]
        assert settings.log_group == "leaderboard-20"

    @pytest.mark.parametrize("party", ["simulator", "agent"])
    def test_with_the_shards_values_the_scripts_have_all_they_require(self, party: str) -> None:
        script = resources.files(shard_pod).joinpath(f"{party}.sh").read_text("utf-8")
        required = re.search(r"^require ((?:.*\\\n)*.*)$", script, re.MULTILINE)
        assert required

        assert set(required[1].replace("\\\n", " ").split()) <= set(environment(party))
        assert containers()[party]["Command"] == ["bash", f"/scripts/{party}.sh"]

    @pytest.mark.parametrize("version", ["1.0", "2.0"])
    def test_the_evaluators_command_is_the_one_of_kubernetes(self, version: str) -> None:
        agent = rendered.containers(rendered.render(LeaderboardVersion(version)))["agent"]
        command = rendered.environment(agent)["EVALUATOR_COMMAND"]

        assert aws("batch-shards")["Mappings"]["Commands"][version]["Evaluator"] == command

    def test_lost_machines_are_retried_and_everything_else_ends(self) -> None:
        first, *rest = shard()["RetryStrategy"]["EvaluateOnExit"]

        assert first == {"Action": "RETRY", "OnStatusReason": "Host EC2*"}
        assert INSTANCE_LOST.match("Host EC2 (instance i-0abc) terminated.")
        assert {each.pop("Action") for each in map(dict, rest)} == {"EXIT"}
        assert {key: each[key] for each in rest for key in each if key != "Action"} == {
            "OnReason": "*",
            "OnStatusReason": "*",
            "OnExitCode": "*",
        }
        assert len(rest) <= 4  # Batch takes five rules

    def test_the_key_to_the_storage_is_in_containers_of_ours_only(self) -> None:
        with_key = {name for name, each in containers().items() if each.get("Secrets")}

        assert with_key == {"init", "supervisor"}
        assert not any(each.get("Privileged") for each in containers().values())
        writable = {each["ContainerPath"] for each in containers()["agent"]["MountPoints"] if not each.get("ReadOnly")}
        assert writable == {"/pair/agent"}

    def test_a_shard_fills_one_machine(self) -> None:
        needs = [each for entry in containers().values() for each in entry["ResourceRequirements"] if "Type" in each]
        vcpus = sum(int(each["Value"]) for each in needs if each["Type"] == "VCPU")
        memory = sum(int(each["Value"]) for each in needs if each["Type"] == "MEMORY")

        assert 8 < vcpus <= 16  # g5.4xlarge: a second shard has no room
        assert memory <= 60 * 1024  # of 64 GiB, ECS and the system take some

    def test_a_definition_that_is_no_pairs_is_refused(self) -> None:
        task = {"containers": [{"name": "agent", "resourceRequirements": [{"type": "GPU", "value": "1"}]}]}
        definition = {"ecsProperties": {"taskProperties": [task]}, "jobDefinitionName": "x"}

        assert needs_gpu(definition)
        with pytest.raises(InvalidConfiguration, match="no container simulator, supervisor"):
            require_base("x", [definition])
