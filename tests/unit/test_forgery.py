"""Forged results are not published and true ones are not held; `python -m tests.forgery` counts a thousand."""

from pathlib import Path
from random import Random

import pytest

from evaluation.submission.model import LeaderboardVersion
from tests.forgery.__main__ import table
from tests.forgery.forgers import FORGERS
from tests.forgery.run import count
from tests.forgery.submissions import judge, published_submissions, standin_submission, true_submissions
from tests.shared_data import DATA, needs_shared_data

EXPECTED = {  # way of forging -> what is not believed
    "composed score beside its factors": "arithmetic",
    "penalty forgiven": "arithmetic",
    "infraction and penalty removed": "arithmetic",
    "completed halfway": "arithmetic",
    "an infraction that nobody weighs": "arithmetic",
    "completed although it was ended": "arithmetic",
    "off the road for nothing": "arithmetic",
    "scored without a set-up": "arithmetic",
    "driven in no time": "times",
    "faster than a car": "times",
    "faster than a simulator": "times",
    "a shard within a minute": "times",
    "driven without a simulator": "times",
    "the map in the track SENSORS": "sensors",
    "too many sensors": "sensors",
    "another route's length": "length",
    "a record overwritten": "drives",
    "a record slipped in": "drives",
    "re-rolled by a claimed crash": "drives",
    "re-rolled by deaths of the evaluator": "drives",
    "written in another order": "drives",
    "nobody saw it": "drives",
    "one route's record for another's": "refused",
    "another image": "image",
}


def test_every_way_of_forging_has_its_expected_reason() -> None:
    assert EXPECTED.keys() == FORGERS.keys()


@pytest.mark.parametrize("way", FORGERS)
def test_a_forged_result_is_not_published_and_the_reason_is_the_forgery(way: str) -> None:
    random = Random(way)  # noqa: S311 - a play, no secret
    truths = true_submissions(Path("no published sets"), random, drawn=3)
    forged = [made for _ in range(30) if (made := FORGERS[way](random.choice(truths), random))]

    verdicts = [judge(each) for each in forged]

    assert forged
    assert [verdict for verdict in verdicts if verdict.published] == []
    assert all(EXPECTED[way] in verdict.kinds for verdict in verdicts)


@pytest.mark.parametrize("version", LeaderboardVersion)
def test_no_result_of_the_stand_in_evaluator_is_held(version: LeaderboardVersion) -> None:
    verdicts = [judge(standin_submission(version, str(seed))) for seed in range(25)]

    assert [verdict.why for verdict in verdicts if not verdict.published] == []


SETS = [each.name for each in published_submissions(DATA)] if DATA.is_dir() else ["none"]


@needs_shared_data
@pytest.mark.parametrize("name", SETS)
def test_no_published_set_is_held(name: str) -> None:
    [driven] = [each for each in published_submissions(DATA) if each.name == name]

    verdict = judge(driven)

    assert (verdict.published, verdict.why) == (True, "")


def test_the_table_counts_every_forged_and_every_true_result() -> None:
    counted = count(seed=3, forged=len(FORGERS), drawn=10, data=Path("no published sets"))

    assert counted.right
    assert f"{'all':<40} {len(FORGERS):>5} {0:>9}\ntrue results: 22 (0 published sets), held: 0" in table(counted)
