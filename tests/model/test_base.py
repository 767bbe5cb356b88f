import json
import os
import shutil
from dataclasses import replace

import pytest
import torch

from pathweave.errors import PathError, RecipeError
from pathweave.model.base import load_connector, load_directory, native_dtype, save_base
from pathweave.model.pathweave import PathWeave
from tests.tiny import chain, medium, randomise, tiny_base


def logits(base):
    """What the language model says after one prompt through a path made from a seed."""
    model = PathWeave(base).eval()
    torch.manual_seed(3)
    randomise(model.paths.expand(chain("sight")[0]))
    with torch.no_grad():
        embeds = model.embed_prompts([[medium("sight"), "What is it?"]])[0]
        return model.llm(inputs_embeds=embeds[None]).logits


@pytest.mark.parametrize("text", [True, False])
def test_a_whole_base_is_read_back(tmp_path, text):
    base = tiny_base(seed=1, text=text)
    save_base(base, tmp_path / "base", whole=True)
    again = load_directory(tmp_path / "base", torch.float32)
    assert again.fingerprint() == base.fingerprint()
    assert (again.kind, again.template, again.licences) == (
        base.kind,
        base.template,
        base.licences,
    )
    assert (again.text_tokenizer is None) == (not text)
    assert not any(p.requires_grad for p in again.llm.parameters())
    assert torch.equal(logits(again), logits(base))


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_every_file_of_a_whole_base_can_be_read_by_whom_the_umask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_base(tiny_base(), tmp_path / "base", whole=True)
    finally:
        os.umask(before)
    files = [file for file in (tmp_path / "base").rglob("*") if file.is_file()]
    assert {"model.safetensors", "base.json", "tokenizer.json"} <= {file.name for file in files}
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {oct(0o666 & ~mask)}


def test_a_connector_is_read_into_a_base_of_its_kind(tmp_path):
    base, other = tiny_base(), tiny_base()
    other.projector.linear.host.weight.data += 1
    save_base(other, tmp_path / "base")
    assert sorted(f.name for f in (tmp_path / "base").iterdir()) == [
        "base.json",
        "connector.safetensors",
    ]
    load_connector(base, tmp_path / "base")
    assert base.fingerprint() == other.fingerprint()
    assert torch.equal(logits(base), logits(other))


def test_the_fingerprint_changes_with_every_part():
    base = tiny_base()
    before = base.fingerprint()
    assert tiny_base().fingerprint() == before
    for weight in (
        base.qformer.layers[2].query_ffn.norm.bias,
        base.projector.linear.host.weight,
        base.llm.lm_head.weight,
    ):
        value = weight.data.view(-1)[3].clone()
        weight.data.view(-1)[3] += 1e-3
        assert base.fingerprint() != before
        weight.data.view(-1)[3] = value
    assert base.fingerprint() == before
    base.projector.scale *= 1.01
    assert base.fingerprint() != before
    base.projector.scale /= 1.01
    base.template = replace(base.template, after="?")
    assert base.fingerprint() != before
    assert tiny_base(seed=1).fingerprint() != before


def test_another_language_model_is_refused(tmp_path):
    save_base(tiny_base(), tmp_path / "base")
    base = tiny_base()
    base.llm.lm_head.weight.data[0, 0] += 1
    with pytest.raises(PathError, match="must belong to this language model, got another finger"):
        load_connector(base, tmp_path / "base")


def test_another_kind_is_refused(tmp_path):
    save_base(tiny_base(), tmp_path / "base")
    with pytest.raises(PathError, match=r"must be a connector of base 'tiny' with .*name the base"):
        load_connector(tiny_base(text=False), tmp_path / "base")
    other = tiny_base()
    other.kind = "huge"
    with pytest.raises(PathError, match=r"of base 'huge' with .* got 'tiny' with"):
        load_connector(other, tmp_path / "base")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A whole base on disk; whoever damages it copies it."""
    directory = tmp_path_factory.mktemp("whole") / "base"
    save_base(tiny_base(), directory, whole=True)
    return directory


@pytest.mark.parametrize("part", ["llm", "text"])
def test_a_missing_part_is_named(saved, tmp_path, part):
    shutil.copytree(saved, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / part)
    with pytest.raises(PathError, match=rf"base must hold {part}/, got none; copy the whole dir"):
        load_directory(tmp_path / "base", torch.float32)


def described(directory):
    return json.loads((directory / "base.json").read_text(encoding="utf-8"))


def newer_setting(directory):
    about = described(directory)
    return json.dumps({**about, "qformer": {**about["qformer"], "colour": "red"}})


NO_BASE = r"must hold a base or .* \(base\.json, connector\.safetensors\), got"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((lambda _, text=text: text, NO_BASE) for text in ("", "[]", "{}", '{"kind": "tiny"}')),
        (lambda directory: json.dumps({**described(directory), "format": 2}), "got 2; install a n"),
        (newer_setting, r"base must hold a base or .*got .*'colour'.*; copy the wh"),
        (None, NO_BASE),
    ],
)
def test_a_broken_description_is_refused(saved, tmp_path, content, message):
    directory = shutil.copytree(saved, tmp_path / "base")
    file = directory / "base.json"
    file.unlink() if content is None else file.write_text(content(directory), encoding="utf-8")
    with pytest.raises(PathError, match=message):
        load_connector(tiny_base(), directory)
    with pytest.raises(PathError, match=message):
        load_directory(directory, torch.float32)


@pytest.mark.parametrize(
    "file",
    ["llm/config.json", "llm/model.safetensors", "llm/tokenizer.json", "text/tokenizer.json"],
)
@pytest.mark.parametrize("content", [b"", b"damaged", b"[" * 10**5])
def test_a_damaged_language_model_or_tokenizer_is_refused(saved, tmp_path, file, content):
    shutil.copytree(saved, tmp_path / "base")
    (tmp_path / "base" / file).write_bytes(content)
    with pytest.raises(PathError, match=r"base must hold a whole language .*; copy the whole dir"):
        load_directory(tmp_path / "base", torch.float32)


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_a_damaged_connector_is_refused(tmp_path, content):
    save_base(tiny_base(), tmp_path / "base")
    file = tmp_path / "base" / "connector.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(
        PathError, match=r"connector\.safetensors must have sha256 .*, got .*damaged"
    ):
        load_connector(tiny_base(), tmp_path / "base")
    about = json.loads((tmp_path / "base" / "base.json").read_text(encoding="utf-8"))
    del about["files"]  # as those written before there were hashes
    (tmp_path / "base" / "base.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(
        PathError, match=r"must hold a base or .*connector\.safetensors\), got .*; c"
    ):
        load_connector(tiny_base(), tmp_path / "base")


def test_a_base_without_hashes_is_read(tmp_path):
    base, other = tiny_base(), tiny_base(seed=1)
    save_base(other, tmp_path / "base", whole=True)
    file = tmp_path / "base" / "base.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    assert list(about.pop("files")) == ["connector.safetensors"]
    file.write_text(json.dumps(about), encoding="utf-8")
    assert load_directory(tmp_path / "base", torch.float32).fingerprint() == other.fingerprint()
    assert base.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_the_type_of_a_machine_may_be_chosen(name, monkeypatch):
    monkeypatch.setenv("PATHWEAVE_DTYPE", name)
    assert str(native_dtype()) == f"torch.{name}"


def test_another_type_is_refused(monkeypatch):
    monkeypatch.setenv("PATHWEAVE_DTYPE", "half")
    with pytest.raises(RecipeError, match="must be bfloat16 or float32, got 'half'; correct or"):
        native_dtype()


@pytest.mark.parametrize("has_bf16", [True, False])
def test_by_itself_it_is_what_the_processor_multiplies(has_bf16, monkeypatch):
    monkeypatch.delenv("PATHWEAVE_DTYPE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16, raising=False)
    assert native_dtype() == (torch.bfloat16 if has_bf16 else torch.float32)
