"""The examples in docstrings run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        *("auto_encoding", "energy_based", "learned_weights", "loss_weights", "losses"),
        *("networks", "networks.swwae"),
    ],
)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"birdinv.{name}"))
    assert result.attempted > 0 and result.failed == 0
