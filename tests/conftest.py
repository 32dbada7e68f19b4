"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest

# Small tensors on a busy machine: threads that wait for each other take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that runs the tests in the background has Ctrl-C ignored, here and in every process that
# is begun here; the tests that press it need it as it is in the foreground.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings; a test that needs it is skipped where it is not at hand."""
    folder = os.environ.get("BIRDINV_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BIRDINV_DATA names no folder of real recordings")
    return Path(folder)
