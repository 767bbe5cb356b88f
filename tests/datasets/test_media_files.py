import os

import pytest

from pathweave.datasets.media_files import is_file, prefix_of
from pathweave.errors import ManifestError, MediaError


def test_a_prefix_leads_from_a_base_that_need_not_be_there(tmp_path):
    assert prefix_of(tmp_path, tmp_path) == ""
    assert prefix_of(tmp_path / "media", tmp_path) == "media/"
    assert prefix_of(tmp_path / "media", tmp_path / "runs" / "a") == "../../media/"
    with pytest.raises(ManifestError, match=r"must be UTF-8, got '.udce9'; rename the directory"):
        prefix_of(tmp_path / os.fsdecode(b"\xe9"), tmp_path)


def test_what_is_a_file_and_what_cannot_be_known(tmp_path):
    file, link = tmp_path / "a", tmp_path / "loop"
    file.touch()
    link.symlink_to("loop")
    assert is_file(file)
    assert not any(map(is_file, (tmp_path, tmp_path / "b", file / "c", tmp_path / ("a" * 300))))
    with pytest.raises(MediaError, match=r"loop/a must be readable, got Too many .*; change its"):
        is_file(link / "a")
