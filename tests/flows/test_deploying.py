"""`prefect deploy --all` on a server that has nothing: with the one command that makes the work pools."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

PROJECT = Path(__file__).parents[2]


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        env=os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value() or ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_is_deployed_with_names_and_descriptions() -> None:
    made = run("cli.main", "setup", "--pools-only")
    run("prefect", "--no-prompt", "deploy", "--all")

    assert made.splitlines() == [
        "ready: work pool leaderboard (in-process)",
        "ready: work pool leaderboard-recovery (in-process)",
    ]
    wanted = yaml.safe_load((PROJECT / "prefect.yaml").read_text("utf-8"))["deployments"]
    with get_client(sync_client=True) as client:
        there = {each.name: each for each in client.read_deployments()}
        automations = [
            automation
            for each in wanted
            for trigger in each.get("triggers", [])
            for automation in client.read_automations_by_name(trigger["name"])
        ]
    assert {each["name"] for each in wanted} <= set(there)
    assert all(there[each["name"]].description for each in wanted)
    assert sorted(each.name for each in automations) == [
        "compute-message-received",
        "heartbeats-missing",
        "submission-received",
    ]
    assert all(each.description for each in automations)
