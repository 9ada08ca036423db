"""Prefect's worker type `in-process`: flow runs as tasks of one event loop instead of one process each."""
