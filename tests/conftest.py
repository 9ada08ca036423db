"""For all tests: Prefect sends no telemetry, hypothesis has no time limits, processes share the tests by server."""

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

os.environ["DO_NOT_TRACK"] = "1"  # before Prefect is imported, because it reads its settings then
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # a third of a second for each emptied AWS; no test needs an image
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # processes that tests start find the project compiled: a sixth faster

if "COVERAGE_PROCESS_CONFIG" in os.environ:  # of `make coverage`: a pair's processes get a short list of variables
    from local_jobs import run_directory

    run_directory.PASSED_ON = (*run_directory.PASSED_ON, "COVERAGE_PROCESS_CONFIG")

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Callable[..., None]) -> object:
    from tests.side_by_side import scheduler  # only where pytest-xdist runs

    return scheduler(config, log)
