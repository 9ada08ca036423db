"""For every test: Prefect sends no telemetry. Set before Prefect is imported, because it reads its settings then."""

import os

os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
