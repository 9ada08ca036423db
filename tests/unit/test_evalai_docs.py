"""docs/evalai.md: its challenge config is YAML that fits the results, and its access file is one that `up` reads."""

import json
import re
from pathlib import Path

import yaml

from blocks.leaderboard_cluster import LeaderboardCluster
from embedded.external_evalai import EvalAIAccess
from evaluation.results.evalai_result import LABELS_V1, LABELS_V2, SPLIT
from evaluation.submission.model import parse_phase

PAGE = (Path(__file__).parents[2] / "docs" / "evalai.md").read_text("utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_the_challenges_config_fits_the_results() -> None:
    config = yaml.safe_load(block("yaml"))

    schemas = [board["schema"] for board in config["leaderboard"]]
    assert [tuple(schema["labels"]) for schema in schemas] == [LABELS_V1, LABELS_V2]
    assert {schema["default_order_by"] for schema in schemas} == {"Driving score"}
    assert [split["codename"] for split in config["dataset_splits"]] == [SPLIT]
    assert (config["remote_evaluation"], config["is_docker_based"]) == (True, True)
    [phase] = config["challenge_phases"]
    assert parse_phase(phase["codename"]).cluster == "leaderboard-20"
    [split] = config["challenge_phase_splits"]
    assert (split["challenge_phase_id"], split["leaderboard_id"]) == (phase["id"], 2)


def test_the_access_file_is_read_as_it_stands() -> None:
    assert EvalAIAccess.model_validate(json.loads(block("json"))).challenge == 3


def test_the_stated_defaults_are_those_of_the_block() -> None:
    fields = LeaderboardCluster.model_fields

    assert f"`max_attempts` of the cluster's\n  block ({fields['max_attempts'].default})" in PAGE
    assert fields["partial_result_seconds"].default is None
