"""The four released stages at their true size, as files on disk."""

import pytest
import torch
from safetensors.torch import load_file

from pathweave.released import export_directory, import_files, write_import
from tests.released.files import ORDER, key_list, stage_state


def filled(name, shape):
    """One number that depends on the name, written out."""
    return torch.full(shape, (hash(name) % 1000 + 1) / 1000)


@pytest.mark.slow
def test_full_size_files(tmp_path):
    """3 GB of files, read, written and read again."""
    files = []
    for position, modality in enumerate(ORDER):
        state = stage_state(position, key_list, filled)
        for key, tensor in state.items():
            if "llmProj_adapter_list.0.up_proj" in key:
                tensor.zero_()
        files.append(tmp_path / f"{modality}.pth")
        torch.save({"model": state, "iters": 1}, files[-1])
        del state
    imported = import_files(files)
    write_import(imported, tmp_path / "in")
    written = load_file(tmp_path / "in/connector/connector.safetensors")
    assert sum(t.numel() for t in written.values()) == 185_660_160 + 3_149_824
    assert [sum(path.count().values()) for path in imported.paths][:3] == [
        1_072_529, 2_411_089, 1_460_753,
    ]  # fmt: skip
    del written
    report = export_directory(tmp_path / "in", tmp_path / "out")
    assert list(report["keys"].values()) == [2226, 2516, 2658, 2804]
    again = import_files([tmp_path / "out" / file for file in report["files"].values()])
    assert [p.content_hash() for p in again.paths] == [p.content_hash() for p in imported.paths]
