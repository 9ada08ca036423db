"""The embedded stack while its parts are killed at random. `make chaos`, or `python -m tests.chaos --seed 1`."""
