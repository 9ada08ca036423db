"""Every policy of deployments/aws and deployments/eks: no wildcard where a name is known."""

import json
import re
from collections.abc import Iterator
from typing import Any

from embedded.aws import CLUSTERS
from tests.aws_templates import DEPLOYMENTS, TEMPLATES, Document, as_list, eks, template

# Actions that AWS cannot narrow to a resource (its "Service Authorization Reference" names no resource type for them).
WITHOUT_RESOURCES = {
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeAutoScalingInstances",
    "autoscaling:DescribeLaunchConfigurations",
    "autoscaling:DescribeScalingActivities",
    "autoscaling:DescribeTags",
    "batch:DescribeComputeEnvironments",
    "batch:DescribeJobDefinitions",
    "batch:DescribeJobQueues",
    "batch:DescribeJobs",
    "batch:ListJobs",
    "cloudwatch:GetMetricStatistics",
    "cloudwatch:PutMetricData",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:GetInstanceTypesFromInstanceRequirements",
    "ecr:GetAuthorizationToken",
    "ecs:DiscoverPollEndpoint",
    "sts:GetCallerIdentity",
}
# Names that nobody knows beforehand, and where the wildcard stands for them.
UNKNOWN_NAMES = {
    r"arn:aws:s3:::[^*]+/\*": "objects are named by submissions",
    r"\$\{(Bucket|Contents\.Arn)\}/(routes/)?\*": "the same, in a template",
    r"arn:.*:log-group:[^*]+:\*": "a group's streams are named by pods",
    r"arn:.*:log-group:\*": "a list of groups is a list of all groups",
    r"arn:.*:secret:[^*?]+-\?{6}": "AWS ends a secret's ARN with six characters of its own",
    r"arn:.*:job-definition/[^*]+-shard-submission-\*": "one definition for each submission's image",
    r"arn:.*:job-definition/\$\{Prefix\}\$\{Name\}:\*": "Batch numbers a definition's revisions",
    r"arn:.*:batch:.*:job/\*": "Batch numbers its jobs",
    r"arn:.*:ecs:.*:task/\$\{Cluster\}/\*": "ECS numbers its tasks",
    r"arn:.*:(cluster|container-instance)/AWSBatch-\*": "Batch ends its clusters' names with a UUID",
    r"arn:aws:eks:[^*]+:nodegroup/leaderboard-[12]0/\*": "eksctl and AWS number the node groups",
    r"arn:aws:iam::[0-9]+:role/(eksctl-)?leaderboard-[12]0-\*": "eksctl names the clusters' own roles",
}
# Statements that may name "*", by file and Sid (or first action): a condition on this key narrows them.
TAGGED = "autoscaling:SetDesiredCapacity"
NARROWED_BY_CONDITION = {("sts-endpoint-policy.json", "EverythingElseOfThisAccount"): "aws:PrincipalAccount"} | {
    (f"{name}.yaml", TAGGED): f"aws:ResourceTag/k8s.io/cluster-autoscaler/{name}" for name in CLUSTERS
}


def policies_in(value: Any) -> Iterator[Document]:
    """Every policy document, however deep; also those written as JSON text."""
    if isinstance(value, dict):
        if "Statement" in value:
            yield value
        for each in value.values():
            yield from policies_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from policies_in(each)
    elif isinstance(value, str) and '"Statement"' in value:
        yield json.loads(value)


def statements() -> Iterator[tuple[str, Document]]:
    """Every statement that allows something, with the file where it stands."""
    documents = [(path, template(path)) for path in TEMPLATES]
    documents += [(path, json.loads(path.read_text("utf-8"))) for path in (DEPLOYMENTS / "eks/iam").glob("*.json")]
    documents += [(DEPLOYMENTS / "eks" / f"{name}.yaml", eks(f"{name}.yaml")) for name in CLUSTERS]
    for path, document in documents:
        for policy in policies_in(document):
            yield from ((path.name, statement) for statement in as_list(policy["Statement"]))


def texts(resource: Any) -> list[str]:
    """The strings of a resource; the name that a reference stands for is known to CloudFormation."""
    if isinstance(resource, dict):
        known = ("Ref", "Fn::GetAtt", "Fn::ImportValue")
        return [text for key, value in resource.items() if key not in known for text in texts(value)]
    if isinstance(resource, list):
        return [text for each in resource for text in texts(each)]
    return [resource]


def test_there_are_some_of_every_kind() -> None:
    files = {file for file, _ in statements()}

    assert {"roles.yaml", "pods.yaml", "public-contents.yaml"} <= files
    assert {f"{service}-endpoint-policy.json" for service in ("s3", "sts", "logs")} <= files
    assert {"leaderboard-10.yaml", "leaderboard-20.yaml"} <= files


def test_no_action_is_a_wildcard() -> None:
    wide = [(file, action) for file, each in statements() for action in as_list(each["Action"]) if "*" in action]

    assert wide == []
    assert not any("NotAction" in each or "NotResource" in each for _, each in statements())


def test_no_resource_is_a_wildcard_where_a_name_is_known() -> None:
    wide = []
    for file, each in statements():
        actions = as_list(each["Action"])
        if (file, each.get("Sid", actions[0])) in NARROWED_BY_CONDITION or set(actions) <= WITHOUT_RESOURCES:
            continue
        for text in texts(each.get("Resource", [])):
            if re.search(r"[*?]", text) and not any(re.fullmatch(known, text) for known in UNKNOWN_NAMES):
                wide.append((file, each.get("Sid"), text))

    assert wide == []


def test_an_exception_is_narrowed_by_its_condition_and_used() -> None:
    found = {}
    for file, each in statements():
        place = (file, each.get("Sid", as_list(each["Action"])[0]))
        if place in NARROWED_BY_CONDITION:
            found[place] = next(iter(each["Condition"]["StringEquals"]))

    assert found == NARROWED_BY_CONDITION


def test_only_public_contents_are_for_everybody() -> None:
    endpoints = {"s3-endpoint-policy.json", "sts-endpoint-policy.json"}  # they let through what a role may anyway

    everybody = {file for file, each in statements() if each.get("Principal") == "*" and "Condition" not in each}

    assert everybody - endpoints == {"public-contents.yaml"}
