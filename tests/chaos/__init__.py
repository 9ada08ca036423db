"""Nothing lost, nothing twice: the embedded stack under fire. `make chaos`, or `python -m tests.chaos --seed 1`."""
