"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings; a test that needs it is skipped where it is not at hand."""
    folder = os.environ.get("BIRDINV_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BIRDINV_DATA names no folder of real recordings")
    return Path(folder)
