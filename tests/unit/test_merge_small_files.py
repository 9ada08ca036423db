"""Siblings of test_merge_real_data.py on files of our own: for each version two shards and their merge.

The merges were written by the code that gives the official files of the real data byte by byte; their means are checked
by hand below, so that a new snapshot cannot hide a wrong one.
"""

import json
from itertools import permutations
from pathlib import Path

import pytest

from cli.main import main
from evaluation.results.checkpoint import Checkpoint
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.evalai_result import LABELS, accuracies
from evaluation.results.merge import merge
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2

FOLDER = Path(__file__).parent / "small_results"
FILES = sorted(FOLDER.glob("*/*.json"))


def shards(version: LeaderboardVersion) -> list[tuple[str, Checkpoint]]:
    files = sorted((FOLDER / version.value).glob("shard-*.json"))
    return [(file.name, parse_checkpoint(file.read_bytes(), file.name, version)) for file in files]


def merged_file(version: LeaderboardVersion) -> bytes:
    return (FOLDER / version.value / "merged.json").read_bytes()


@pytest.mark.parametrize("version", [V1, V2])
def test_shards_in_any_order_give_the_merged_file_byte_for_byte(version: LeaderboardVersion) -> None:
    parts = shards(version)
    expected = [run for _, part in parts for run in part.runs]

    for order in permutations(parts):
        result = merge(order, expected, version)
        assert result.complete
        assert render_document(result.document, version).encode() == merged_file(version)


@pytest.mark.parametrize("version", [V1, V2])
def test_the_command_gives_those_bytes(version: LeaderboardVersion, tmp_path: Path) -> None:
    files = [str(file) for file in sorted((FOLDER / version.value).glob("shard-*.json"))]
    output = tmp_path / "merged.json"

    with pytest.raises(SystemExit) as ended:
        main(["merge", *files, "--routes", "3,7,11", "--output", str(output)])

    assert ended.value.code in (None, 0)
    assert output.read_bytes() == merged_file(version)


@pytest.mark.parametrize("version", [V1, V2])
def test_the_merged_files_means_are_those_of_its_records(version: LeaderboardVersion) -> None:
    figures = accuracies(json.loads(merged_file(version)), version)

    assert set(figures) == set(LABELS[version])
    assert figures["Driving score"] == pytest.approx((100 + 61.25 * 0.5 + 100 * 0.7) / 3)
    assert figures["Route completion"] == pytest.approx((100 + 61.25 + 100) / 3)
    assert figures["Infraction penalty"] == pytest.approx((1 + 0.5 + 0.7) / 3)


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_set_without_one_shard_is_not_finished(version: LeaderboardVersion, lost: int) -> None:
    parts = shards(version)
    everything = [run for _, part in parts for run in part.runs]
    _, gone = parts.pop(lost)

    result = merge(parts, everything, version)

    assert result.missing == gone.runs
    assert (result.document["entry_status"], result.document["eligible"]) == ("Started", False)
    assert result.document["_checkpoint"]["global_record"] == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_file_is_rendered_as_it_was_read(file: Path) -> None:
    checkpoint = parse_checkpoint(file.read_bytes(), file.name)

    assert checkpoint.version is LeaderboardVersion(file.parent.name)
    assert render_document(checkpoint.document, checkpoint.version).encode() == file.read_bytes()
