import pytest

from pathweave.data import manifest as module
from pathweave.data.manifest import Manifest, write_samples
from pathweave.data.messages import Sample
from pathweave.errors import DiskError, ManifestError


def samples(count, ids=None):
    for i in range(count):
        yield Sample.model_validate(
            {
                "id": ids or f"{i}",
                "messages": [
                    {"role": "user", "content": [{"type": "smell", "path": f"{i}.npy"}]},
                    {"role": "assistant", "content": f"caf\u00e9 {i}"},
                ],
                "references": [f"{i}"],
            }
        )


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_manifest_reads_what_was_written(name, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_ROWS", 2)
    assert write_samples(tmp_path / name, samples(5)) == 5
    assert list(Manifest(tmp_path / name)) == list(samples(5))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_failure_leaves_the_old_file(name, tmp_path):
    write_samples(tmp_path / name, samples(1))
    with pytest.raises(ManifestError, match=r"ids in .* must be unique, got 'x' twice"):
        write_samples(tmp_path / name, samples(3, ids="x"))
    with pytest.raises(ManifestError, match=r"must have at least one row, got none; add"):
        write_samples(tmp_path / name, samples(0))
    assert len(Manifest(tmp_path / name)) == 1
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_another_ending_and_a_directory_that_cannot_be_written(tmp_path):
    with pytest.raises(
        ManifestError, match=r"must be a \.jsonl or \.parquet file, got a\.csv; convert or rename"
    ):
        write_samples(tmp_path / "a.csv", samples(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot be written"):
        write_samples(tmp_path / "file" / "a.jsonl", samples(1))
