"""Every file of JSON that the package reads may be damaged in any way: the error is one line."""

import re

import pytest
import torch
from accelerate import Accelerator

from pathweave.bases.convert.minilm import convert_minilm
from pathweave.bases.llm import read_config
from pathweave.bases.shards import Shards
from pathweave.display import Display
from pathweave.encoders.eva_weights import read_vision_config
from pathweave.encoders.weights import load_weights
from pathweave.encoders.whisper import WhisperEncoder
from pathweave.errors import FetchError, PathError, PathWeaveError, RecipeError, RunError
from pathweave.evaluate.samples import load_answers
from pathweave.recipe.reading import load_recipe, parse_override, parse_recipe
from pathweave.recipe.schema import TestSet as ScoredSet
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import read_json, write_json
from pathweave.storage.bundle import Bundle
from pathweave.storage.tensors import write_tensors
from pathweave.train.log import RunLog
from pathweave.train.processes import Processes
from pathweave.train.scoring import Scoring

DEEP = "[" * 10**5


def scoring(directory):
    modality = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": 2}}
    tree = {"name": "a", "modalities": {"a": {**modality, "cue": "a"}}, "curriculum": ["a"]}
    display, log = Display(quiet=True), RunLog(directory / "log.jsonl")
    run, processes = RunDirectory(directory), Processes(Accelerator())
    return Scoring(parse_recipe(tree), run, lambda data: [], display, log, processes)


def weights(directory):
    module = torch.nn.Linear(1, 1)
    write_tensors(directory / "model.safetensors", module.state_dict())
    return load_weights(module, directory)


READERS = {
    "config.json": (read_config, FetchError),
    "notes.json": (Bundle("notes", "notes.json").read, PathError),
    "model.safetensors.index.json": (Shards, FetchError),
    "recipe.json": (lambda directory: RunDirectory(directory).recipe(), RunError),
    "scores.json": (scoring, RunError),
    "READY.json": (weights, FetchError),
}
OTHERS = {
    "config.json of whisper": (WhisperEncoder, FetchError),
    "config.json of a tower": (read_vision_config, FetchError),
    "config.json of MiniLM": (lambda directory: convert_minilm(directory, directory), FetchError),
    "recipe.yaml": (lambda directory: load_recipe(directory / "recipe.yaml"), RecipeError),
    "answers.jsonl": (
        lambda directory: load_answers(
            directory / "answers.jsonl", ScoredSet(manifest="none.jsonl", metric="cider")
        ),
        RunError,
    ),
}


def one_line(caught):
    assert re.search(r" must .*, got .+", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*READERS, *OTHERS])
@pytest.mark.parametrize("content", [DEEP, "{", "[1]", "3", "\ud800"])
def test_a_damaged_file_is_one_line_of_error(tmp_path, name, content):
    read, error = (READERS | OTHERS)[name]
    (tmp_path / name.partition(" ")[0]).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(error) as caught:
        read(tmp_path)
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors.index.json", {"weight_map": ["a"]}),
        ("model.safetensors.index.json", {"weight_map": {"a": 3}}),
        ("model.safetensors.index.json", {}),
        ("READY.json", {"files": []}),
        ("READY.json", {"files": {"model.safetensors": {}}}),
        ("scores.json", {"sets": []}),
        ("scores.json", {"sets": {"a/b": "c"}}),
        ("scores.json", {"matrix": []}),
        ("scores.json", {"matrix": {"scores": [{}]}}),
        ("scores.json", {"matrix": {"scores": 3}}),
    ],
)
def test_other_content_is_one_line_of_error(tmp_path, name, content):
    read, error = READERS[name]
    write_json(tmp_path / name, content)
    with pytest.raises(error) as caught:
        read(tmp_path)
    one_line(caught)


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_damaged_weights_of_an_encoder_are_one_line_of_error(tmp_path, content):
    if content is None:
        write_tensors(tmp_path / "model.safetensors", {"other": torch.ones(1)})
    else:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(FetchError, match=r"must hold the weights of an encoder, got.*; delete the"):
        load_weights(torch.nn.Linear(1, 1), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FetchError, match=r"must hold the weights of an encoder, got .*No such"):
        load_weights(torch.nn.Linear(1, 1), tmp_path)


def test_an_override_that_is_nested_without_end_is_refused():
    with pytest.raises(RecipeError, match="the value must be YAML"):
        parse_override(f"training.lr={DEEP}")


def test_an_object_is_read_and_its_absence_said(tmp_path):
    write_json(tmp_path / "a.json", {"\xe9": 1})
    given = ("it must hold a", "write one", PathWeaveError)
    assert read_json(tmp_path / "a.json", *given) == {"\xe9": 1}
    with pytest.raises(PathWeaveError, match=r"^it must hold a, got .*No such file.*; write one$"):
        read_json(tmp_path / "b.json", *given)
    write_json(tmp_path / "a.json", [])
    with pytest.raises(PathWeaveError, match=r"^it must hold a, got a list in a.json; write one$"):
        read_json(tmp_path / "a.json", *given)
