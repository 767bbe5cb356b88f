import os

import pytest
import torch
from torch import nn

from pathweave.encoders.published import Published, assign
from pathweave.errors import FetchError

SOURCE = Published("Toy", ("toy.pt", "toy_v2.pt"), "https://example.org/toy.pt", "MIT")
REMEDY = r"; download toy\.pt from https://example\.org/toy\.pt and give its path as directory$"

DAMAGED = f"; it is damaged or partly downloaded: {REMEDY[2:]}"


class Harmful:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_a_file_is_found_by_its_path_or_its_published_name(tmp_path):
    for name in ("toy_v2.pt", "toy.pt", "renamed.bin"):
        (tmp_path / name).write_bytes(b"")
        assert SOURCE.find(tmp_path / name) == tmp_path / name
    assert SOURCE.find(tmp_path) == tmp_path / "toy.pt"


@pytest.mark.parametrize(
    ("place", "found"), [("", r"a directory without toy\.pt or toy_v2\.pt"), ("nowhere", "nothing")]
)
def test_a_missing_file_says_what_to_put_where(tmp_path, place, found):
    message = f"must be or hold the weights of Toy, got {found}{REMEDY}"
    with pytest.raises(FetchError, match=message):
        SOURCE.find(tmp_path / place)


@pytest.mark.parametrize("is_zipped", [True, False])
def test_both_formats_of_torch_are_read(tmp_path, is_zipped):
    content = {"state": {"x": torch.ones(3)}, "epoch": 4}
    torch.save(content, tmp_path / "toy.pt", _use_new_zipfile_serialization=is_zipped)
    read = SOURCE.read(tmp_path / "toy.pt")
    assert read["epoch"] == 4
    assert SOURCE.tensors(read["state"], tmp_path)["x"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("is_zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 100, -1000])
def test_a_truncated_file(tmp_path, is_zipped, kept):
    file = tmp_path / "toy.pt"
    torch.save({"x": torch.ones(3000)}, file, _use_new_zipfile_serialization=is_zipped)
    file.write_bytes(file.read_bytes()[:kept])
    message = rf"toy\.pt must be the checkpoint of Toy, got .* cannot be read .*{DAMAGED}"
    with pytest.raises(FetchError, match=message):
        SOURCE.read(file)


@pytest.mark.parametrize("data", [b"<html>not here</html>", b"\x80\x02", b"\0" * 100])
def test_a_file_that_is_no_checkpoint(tmp_path, data):
    (tmp_path / "toy.pt").write_bytes(data)
    with pytest.raises(FetchError, match=f"that cannot be read .*{DAMAGED}"):
        SOURCE.read(tmp_path / "toy.pt")


@pytest.mark.parametrize("is_zipped", [True, False])
def test_a_harmful_pickle_is_not_run(tmp_path, is_zipped):
    file = tmp_path / "toy.pt"
    torch.save({"x": Harmful()}, file, _use_new_zipfile_serialization=is_zipped)
    with pytest.raises(
        FetchError, match=rf"got \w+\.system, which could run code; .*alone, or {REMEDY[2:]}"
    ):
        SOURCE.read(file)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (torch.ones(2), "a Tensor"),
        ([torch.ones(2)], "a list"),
    ],
)
def test_a_checkpoint_must_have_names(tmp_path, content, found):
    torch.save(content, tmp_path / "toy.pt")
    with pytest.raises(FetchError, match=f"must be the checkpoint of Toy, got {found}{REMEDY}"):
        SOURCE.read(tmp_path / "toy.pt")


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"x": torch.ones(1), "y": 3}, "one where y is no tensor"),
        (None, "one with NoneType in place of tensors"),
    ],
)
def test_tensors_must_be_tensors(tmp_path, state, found):
    with pytest.raises(FetchError, match=f"must be the checkpoint of Toy, got {found}{REMEDY}"):
        SOURCE.tensors(state, tmp_path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.ones(2, 3)}, "must hold the weights of Toy, got no bias"),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(2), "c": torch.ones(1)},
            "must hold the weights of Toy alone, got c as well",
        ),
        (
            {"weight": torch.ones(3, 2), "bias": torch.ones(2)},
            r"must hold weight of the shape \[2, 3\], got \[3, 2\]: another model",
        ),
    ],
)
def test_tensors_must_be_those_of_the_network(tmp_path, state, message):
    with pytest.raises(FetchError, match=message + REMEDY):
        assign(nn.Linear(3, 2), state, tmp_path / "toy.pt", SOURCE)


def test_assigned_weights_are_frozen_and_not_copied(tmp_path):
    with torch.device("meta"):
        network = nn.Linear(3, 2)
    weight = torch.ones(2, 3)
    assign(network, {"weight": weight, "bias": torch.ones(2)}, tmp_path, SOURCE)
    assert network.weight.data_ptr() == weight.data_ptr()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
