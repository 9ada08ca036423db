"""`python -m tests.forgery [--seed 1] [--forged 1000] [--drawn 50]`: the table; exit code 1 where it is not right."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.forgery.run import Count, count
from tests.shared_data import DATA


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--forged", type=int, default=1000, help="how many forged results")
    parser.add_argument("--drawn", type=int, default=50, help="how many true ones the stand-in draws of each version")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with published results")
    given = parser.parse_args()
    counted = count(given.seed, given.forged, given.drawn, given.data)
    print(table(counted))
    return 0 if counted.right else 1


def table(counted: Count) -> str:
    lines = [f"{'forged by':<40} {'made':>5} {'published':>9}  held or refused for"]
    for name, verdicts in counted.forged.items():
        kinds = Counter(kind for verdict in verdicts for kind in verdict.kinds)
        published = sum(verdict.published for verdict in verdicts)
        lines.append(f"{name:<40} {len(verdicts):>5} {published:>9}  {', '.join(sorted(kinds))}")
    made, published = sum(map(len, counted.forged.values())), len(counted.published_forgeries)
    lines.append(f"{'all':<40} {made:>5} {published:>9}")
    lines.append(f"true results: {counted.true} ({counted.real} published sets), held: {len(counted.held_truths)}")
    lines += [f"  held: {each}" for each in counted.held_truths]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
