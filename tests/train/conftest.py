"""Features are cached in a temporary directory."""

import pytest


@pytest.fixture(autouse=True)
def _home(home):
    """Every test here may read media."""
