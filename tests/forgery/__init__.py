"""True and forged results, from a seed: whether the first are published and the second are not.

`python -m tests.forgery --seed 1 --forged 1000` prints the table of docs/trust.md and ends with 1 unless every forged
result is held or refused and every true one is published.
"""
