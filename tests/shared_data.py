"""Real result files that are beside the checkout; tests that need them skip where they are absent."""

import os
from pathlib import Path

import pytest

_FOLDER = Path(os.environ.get("LEADERBOARD_SHARED", Path(__file__).resolve().parents[2] / "shared"))
DATA = _FOLDER / "data"

needs_shared_data = pytest.mark.skipif(not DATA.is_dir(), reason="the folder with real result files is absent")
