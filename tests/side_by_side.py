"""How pytest-xdist shares the tests among its processes: what needs one server or one stack stays in one process."""

from collections.abc import Callable

import pytest
from xdist.scheduler import LoadScopeScheduling

ONE_PROCESS = ("tests/e2e/", "tests/flows/")
ALONE = ("tests/e2e/test_demo.py", "tests/e2e/test_external_evalai.py")  # each starts a stack of its own


class ByServer(LoadScopeScheduling):
    """Hands out whole folders of ONE_PROCESS, else whole files, in the order of the command line: the longest first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((each for each in ONE_PROCESS if file.startswith(each) and file not in ALONE), file)


def scheduler(config: pytest.Config, log: Callable[..., None]) -> ByServer:
    config.option.loadscopereorder = False
    return ByServer(config, log)
