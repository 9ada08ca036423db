"""The rendered manifests in snapshots/: a change of a template shows in review as what a cluster would get."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from k8s_jobs import example

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_rendered_manifest_is_the_snapshot(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = f"tests/unit/snapshots/shard-job-{version}.yaml"
    kept = (ROOT / snapshot).read_text(encoding="utf-8")

    code = example.main([version])

    remedy = f"If the change is meant: python -m k8s_jobs.example {version} > {snapshot}"
    assert (code, kept) == (0, capsys.readouterr().out), remedy


def test_network_policies_are_printed_for_given_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    code = example.main(["network-policies", "10.20.1.7/32", "10.20.2.7/32"])

    *_, storage = yaml.safe_load_all(capsys.readouterr().out)
    assert code == 0
    assert [peer["ipBlock"]["cidr"] for peer in storage["spec"]["egress"][0]["to"]] == ["10.20.1.7/32", "10.20.2.7/32"]


@pytest.mark.parametrize("arguments", [[], ["3.0"], ["network-policies", "everywhere"]])
def test_wrong_arguments_are_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = example.main(arguments)

    output = capsys.readouterr()
    assert (code, output.out) == (2, "")
    assert output.err


def test_it_runs_as_the_docs_say() -> None:
    command = [sys.executable, "-m", "k8s_jobs.example", "2.0"]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert yaml.safe_load(result.stdout)["kind"] == "Job"
