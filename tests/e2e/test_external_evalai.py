"""`leaderboard up --evalai URL`: EvalAI is a process of somebody else's, here the stand-in's own program."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded import challenge
from embedded.aws import QUEUE, queue_url
from embedded.evalai_website import EvalAIWebsite
from embedded.external_evalai import find_evalai, read_access
from embedded.prefect_server import answers
from embedded.stack import PROJECT, running_stack
from embedded.stack_plan import free_ports
from evaluation.submission.model import SubmissionStatus
from tests.e2e.conftest import Harness, observer_of, quick_settings
from tests.waiting import PATIENCE_SECONDS, eventually


@contextmanager
def somebodys_evalai(folder: Path, aws_port: int) -> Iterator[tuple[str, Path]]:
    """The address of a server with a challenge of its own, whose queue is the embedded AWS's; and the access file."""
    tokens = challenge.make_tokens()
    aws_url = f"http://127.0.0.1:{aws_port}"
    config = folder / "config.json"
    content = challenge.standin_config(tokens, queue_url(aws_url, QUEUE), aws_url, "us-west-2", 60)
    config.write_text(json.dumps(content | {"first_submission": 500}))
    access = folder / "access.json"
    people = {"host": tokens.host, "installation": tokens.installation, "teams": dict(tokens.participants)}
    access.write_text(json.dumps({"challenge": challenge.CHALLENGE} | people))
    [port] = free_ports((24302,))
    command = [sys.executable, "-m", "embedded.evalai_standin", "--port", str(port), "--config", str(config)]
    environment = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PATH": "",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    process = subprocess.Popen(command, cwd=PROJECT, env=environment)
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/api/challenges/challenge/1/"))
        yield f"http://127.0.0.1:{port}", access
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.mark.timeout(600)
def test_at_somebody_elses_evalai_one_is_evaluated_one_cancelled_and_one_resumed(tmp_path: Path) -> None:
    [aws_port] = free_ports((24301,))
    settings = quick_settings(tmp_path / "stack").model_copy(update={"aws_port": aws_port})
    settings.state_dir.mkdir()

    with somebodys_evalai(tmp_path, aws_port) as (url, access):
        evalai = find_evalai(url, read_access(access))
        with running_stack(settings, print, evalai) as stack:
            people = EvalAIWebsite(stack.state)
            harness = Harness(stack, people, observer_of(settings, people))
            first = harness.submit("leaderboard-20-MAP", "demo/agent:steady")
            second = harness.submit("leaderboard-10-MAP", "demo/agent:steady")
            people.cancel(second)
            third = harness.submit("leaderboard-20-MAP", "demo/agent:bad-setup")
            ends = {pk: harness.end_of(pk).evalai for pk in (first, second, third)}
            people.resume(third)
            harness.wait(third, lambda seen: seen.row.get("attempt") == "2")
            again = harness.end_of(third)

    finished, cancelled, failed = SubmissionStatus.FINISHED, SubmissionStatus.CANCELLED, SubmissionStatus.FAILED
    assert (first, ends) == (500, {500: finished, 501: cancelled, 502: failed})
    assert (again.evalai, again.row["attempt"]) == (failed, "2")
