import pytest

from pathweave.errors import PathWeaveError
from pathweave.extras import import_extra


def test_installed():
    assert import_extra("json", "sound").loads("1") == 1


def test_missing():
    with pytest.raises(
        PathWeaveError,
        match=r"no_such_library must be installed .*; run pip install 'pathweave\[sound\]'",
    ):
        import_extra("no_such_library", "sound")
