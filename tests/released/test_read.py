import argparse
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from pathweave.errors import PathError
from pathweave.released.checkpoint import QUIRKS, read_tensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}


class Malicious:
    """What an attacker puts into a file that is loaded without care: a call of ``os.system``."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


def equal(read, expected=TENSORS):
    assert read.tensors.keys() == expected.keys()
    return all(torch.equal(read.tensors[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_of_torch_save_with_and_without_the_outer_entry(tmp_path, is_zip):
    file = tmp_path / "a.pth"
    torch.save(TENSORS, file, _use_new_zipfile_serialization=is_zip)
    assert equal(read_tensors(file))
    assert read_tensors(file).beside == ()
    outer = {"model": TENSORS, "optimizer": {"state": {0: torch.ones(2)}}, "iters": 7}
    torch.save(outer, file, _use_new_zipfile_serialization=is_zip)
    read = read_tensors(file)
    assert equal(read)
    assert read.beside == ("optimizer", "iters")
    assert read.quirks is None


def test_a_tensor_may_be_called_model(tmp_path):
    torch.save({"model": torch.ones(1)}, tmp_path / "a.pth")
    assert equal(read_tensors(tmp_path / "a.pth"), {"model": torch.ones(1)})


@pytest.mark.parametrize("said", [None, True, False])
def test_safetensors(tmp_path, said):
    metadata = {"format": "pt"} | ({} if said is None else {QUIRKS: str(said).lower()})
    save_file(TENSORS, tmp_path / "a.safetensors", metadata)
    read = read_tensors(tmp_path / "a.safetensors")
    assert equal(read)
    assert read.quirks is said


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, is_zip):
    proof = tmp_path / "proof"
    attack = {"model": {**TENSORS, "c": Malicious(proof)}}
    file = tmp_path / "evil.pth"
    torch.save(attack, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        PathError,
        match=r"evil\.pth must be .* with tensors and plain values alone, got .*\.system, which",
    ):
        read_tensors(file)
    assert not proof.exists()
    torch.load(file, weights_only=False)
    assert proof.exists(), "the file was harmless"


def test_a_malicious_pickle_without_torch_is_refused(tmp_path):
    proof = tmp_path / "proof"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Malicious(proof), protocol=2))
    with pytest.raises(PathError, match=r"with tensors and plain values alone, got .*system"):
        read_tensors(tmp_path / "evil.pth")
    assert not proof.exists()


def test_an_object_of_the_authors_code_is_named(tmp_path):
    torch.save({"model": TENSORS, "config": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    with pytest.raises(PathError, match=r"got argparse\.Namespace, which could run code"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, kind, share):
    file = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(TENSORS, file)
    else:
        torch.save(TENSORS, file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(PathError, match=r"must be a whole checkpoint .* got .+; it is damaged"):
        read_tensors(file)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"hello world" * 9, b"\x80\x04garbage", b"<html></html>"])
def test_garbage_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PathError, match=r"must be a whole checkpoint .*; it is damaged or pa"):
        read_tensors(tmp_path / name)


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path):
    file = tmp_path / "a.pth"
    torch.save(torch.ones(2), file)
    with pytest.raises(PathError, match="must hold named tensors, got a Tensor; give a checkpoint"):
        read_tensors(file)
    torch.save({"model": {**TENSORS, "epoch": 3}}, file)
    with pytest.raises(PathError, match="must hold named tensors, got a int under 'epoch'; give"):
        read_tensors(file)
    torch.save({3: torch.ones(2)}, file)
    with pytest.raises(PathError, match="must hold named tensors, got a Tensor under 3; give"):
        read_tensors(file)


def test_a_missing_file_is_refused(tmp_path):
    for place in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(PathError, match="must be a checkpoint, got no such file; correct the"):
            read_tensors(place)
