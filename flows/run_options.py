"""Options of the flows as a whole."""

import tempfile
from pathlib import Path
from typing import TypedDict


class ResultOptions(TypedDict):
    persist_result: bool
    result_storage: Path


def without_results() -> ResultOptions:
    """Options for `@flow`: Prefect keeps nothing that the flow or its tasks return; ledger and S3 are the memory.

    The storage is named although nothing is written there. Else Prefect asks the server for its default storage, twice
    for each run, over new connections, and the event loop stands still meanwhile.
    """
    return ResultOptions(persist_result=False, result_storage=Path(tempfile.gettempdir()))
