"""Makes and judges true and forged submissions from one seed."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.forgery.forgers import FORGERS, Forger
from tests.forgery.submissions import Driven, Verdict, judge, published_submissions, true_submissions


@dataclass(frozen=True)
class Count:
    forged: dict[str, list[Verdict]]  # by the way of forging
    true: int
    real: int  # of `true`, those that others published
    held_truths: list[str]

    @property
    def published_forgeries(self) -> list[str]:
        return [name for name, verdicts in self.forged.items() for verdict in verdicts if verdict.published]

    @property
    def right(self) -> bool:
        return not self.published_forgeries and not self.held_truths


def count(seed: int, forged: int, drawn: int, data: Path) -> Count:
    """So many forged results, the ways of forging in turn, each of a true one chosen at random."""
    random = Random(seed)  # noqa: S311 - a play, no secret
    truths = true_submissions(data, random, drawn)
    held = [f"{each.name}: {verdict.why}" for each in truths if not (verdict := judge(each)).published]
    verdicts: dict[str, list[Verdict]] = {name: [] for name in FORGERS}
    names = list(FORGERS)
    for number in range(forged):
        name = names[number % len(names)]
        verdicts[name].append(judge(_forged(FORGERS[name], truths, random)))
    real = len(published_submissions(data)) if data.is_dir() else 0
    return Count(verdicts, len(truths), real, held)


def _forged(forger: Forger, truths: list[Driven], random: Random) -> Driven:
    """One of the submissions, forged: the first that this way of forging can gain by."""
    for truth in random.sample(truths, len(truths)):
        if (made := forger(truth, random)) is not None:
            return made
    raise ValueError("No submission can be forged in this way: draw more of them.")
