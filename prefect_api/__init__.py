"""Prefect's server for every other package: client, blocks, runs, events, errors, states."""
