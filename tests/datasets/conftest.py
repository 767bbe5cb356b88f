"""A root with the tiny files of every data set."""

import pytest

from tests.datasets.files import CASES, write_case


@pytest.fixture(scope="session")
def whole_root(tmp_path_factory):
    """All cases under one root, as one would keep them; to be read only."""
    root = tmp_path_factory.mktemp("data")
    for case in CASES:
        write_case(root, case)
    return root
