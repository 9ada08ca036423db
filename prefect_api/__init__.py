"""Prefect's server for every other package: its events and its errors."""
