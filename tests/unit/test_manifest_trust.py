"""The manifest of a shard's Job: which container has access to what."""

import re
from dataclasses import replace

import pytest

from evaluation.submission.model import LeaderboardVersion, Phase
from k8s_jobs.example import example_cluster, example_job
from k8s_jobs.manifest import job_manifest, network_policies
from tests.unit.rendered import VERSIONS, containers, environment, mounts, pod, render

UNTRUSTED_OR_BLIND = ("agent", "simulator", "evaluator")


class TestTrust:
    def test_only_the_supervisor_and_prepare_have_a_way_to_aws(self) -> None:
        parties = containers(render())

        for name, container in parties.items():
            aws = {key for key in environment(container) if key.startswith("AWS_")} if "env" in container else set()
            token = "/var/run/secrets/submission-worker" in mounts(container)
            assert (bool(aws), token) == ((name not in UNTRUSTED_OR_BLIND,) * 2), name
        assert environment(parties["supervisor"])["AWS_EC2_METADATA_DISABLED"] == "true"

    def test_a_secret_outside_aws_goes_to_the_same_two(self) -> None:
        manifest = render(worker_role_arn="", storage_secret="s3-keys", storage_endpoint="https://s3.example")

        with_secret = {name for name, container in containers(manifest).items() if "envFrom" in container}

        assert with_secret == {"private-contents", "supervisor"}
        assert environment(containers(manifest)["supervisor"])["AWS_ENDPOINT_URL"] == "https://s3.example"
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
        assert written["supervisor"] == {"/pair/supervisor", "/pair/agent", "/routes", "/tmp"}  # noqa: S108 - likewise
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
        job = replace(example_job(LeaderboardVersion.V2), phase=Phase(f"x-{track}", "x", track))

        values = environment(containers(job_manifest(job, example_cluster(LeaderboardVersion.V2)))["agent"])

        assert values["CHALLENGE_TRACK_CODENAME"] == "MAP$$(AWS_ROLE_ARN)"  # Kubernetes makes $$ a $

    @pytest.mark.parametrize("version", VERSIONS)
    def test_no_command_is_changed_by_kubernetes_expansion(self, version: LeaderboardVersion) -> None:
        for container in containers(render(version)).values():
            names = {entry["name"] for entry in container.get("env", [])}
            values = environment(container).values() if "env" in container else ()
            for text in [*container["command"], *(value for value in values if isinstance(value, str))]:
                assert "$$" not in text
                assert not names & set(re.findall(r"\$\(([^)]*)\)", text))

    def test_the_policies_deny_all_but_names_and_storage(self) -> None:
        deny, names, storage = network_policies(example_cluster(LeaderboardVersion.V2, ("10.20.1.7/32",)))
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
        *_, storage = network_policies(replace(example_cluster(LeaderboardVersion.V2), storage_cidrs=()))

        assert storage["spec"]["egress"] == []
