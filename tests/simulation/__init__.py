"""The product's own code in a simulated world: one seed, virtual time, and every fault drawn from the seed.

`make simulate SEEDS=n` runs it; docs/simulation.md says what is simulated, how, and what was found.
"""
