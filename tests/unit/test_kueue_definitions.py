"""Kueue's objects for EKS fit what the flows and the shards' Jobs need."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from evaluation.errors import InvalidConfiguration
from k8s_jobs.kueue import Kueue
from k8s_jobs.manifest import job_manifest
from k8s_jobs.preflight import KUEUE_RIGHTS
from tests.kubernetes_objects import cluster_spec, shard_job

FOLDER = Path(__file__).resolve().parents[2] / "deployments" / "eks" / "kueue"


def test_the_rights_are_those_of_the_role_that_is_handed_out() -> None:
    role = next(yaml.safe_load_all((FOLDER / "rbac.yaml").read_text("utf-8")))

    assert [(*rule["apiGroups"], *rule["resources"], tuple(rule["verbs"])) for rule in role["rules"]] == [*KUEUE_RIGHTS]


def test_the_cluster_queue_covers_all_that_a_shard_asks_for() -> None:
    _, queue, local = yaml.safe_load_all((FOLDER / "queues.yaml").read_text("utf-8"))
    [group] = queue["spec"]["resourceGroups"]
    pod = job_manifest(shard_job(), cluster_spec())["spec"]["template"]["spec"]
    containers = [each["resources"] for each in (*pod["containers"], *pod["initContainers"])]
    asked = {name for each in containers for part in ("requests", "limits") for name in each.get(part, {})}

    assert asked == set(group["coveredResources"])
    assert {each["name"] for each in group["flavors"][0]["resources"]} == asked
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]


def test_a_team_s_queue_is_a_label_and_no_other_team_s() -> None:
    teams = Kueue(cluster_queue="leaderboard")
    names = {teams.queue_of(team) for team in ("a", "A", "Ünïcödé; rm -rf / 🚗", "\ud800", "x" * 5000)}

    assert len(names) == 5
    assert all(len(name) <= 63 for name in names)
    assert Kueue(local_queue="all").queue_of("a") == "all"


@pytest.mark.parametrize("kueue", [Kueue("a", "b"), Kueue(local_queue="No Name"), Kueue(cluster_queue="x" * 64)])
def test_queues_that_cannot_be_are_refused(kueue: Kueue) -> None:
    with pytest.raises(InvalidConfiguration, match="queue"):
        replace(cluster_spec(), kueue=kueue)
