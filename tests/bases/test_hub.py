"""Models of the hub: what is asked of the client, and what is said when it has nothing."""

import pytest

from pathweave.bases import hub
from pathweave.bases.hub import is_hub_id, snapshot
from pathweave.errors import FetchError, RecipeError
from pathweave.runs.loading import load_base
from tests.published import write_llm, write_published

COMMIT = "0123456789" * 4


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The client's cache, with nothing behind it; returns where it keeps a model."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    def directory(repository):
        root = tmp_path / f"models--{repository.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(COMMIT, encoding="utf-8")
        return root / "snapshots" / COMMIT

    return directory


class Online:
    """A hub that has files of these names, and notes what is downloaded."""

    def __init__(self, monkeypatch, files, directory):
        self.asked = []
        monkeypatch.setattr(hub, "is_reachable", lambda: True)
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda api, name: files)
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.download)
        self.directory = directory

    def download(self, repository, allow_patterns):
        self.asked.append((repository, allow_patterns))
        return str(self.directory)


def test_what_is_here_needs_no_connection(cached):
    published = write_published(cached("some/blip2"), "blip2-opt")
    assert snapshot("some/blip2") == published.directory
    base = load_base("some/blip2")
    assert base.kind == "blip-2"
    [ready] = base.ready_paths
    assert ready.encoder["directory"] == str(published.directory)


def test_with_hf_hub_offline_nothing_is_asked(cached, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    published = write_published(cached("some/blip2"), "blip2-opt")
    assert not hub.is_reachable()
    assert snapshot("some/blip2") == published.directory
    with pytest.raises(FetchError, match=r"must be a directory .*\(HF_HUB_OFFLINE is set\)"):
        snapshot("some/other")


def test_a_language_model_of_the_hub_is_one_more_id(cached):
    write_published(cached("some/blip2"), "blip2-opt")
    write_llm(cached("other/llama"), "llama")
    assert load_base("some/blip2", llm="other/llama").llm.config.model_type == "llama"


def test_without_a_connection_it_is_said_what_to_place(cached):
    with pytest.raises(
        FetchError,
        match=r"some/where must be a directory or a model of the hub .*\(no connection\); connect"
        r".* or place config\.json, the tokenizer's files and model\*\.safetensors .* a directory",
    ):
        load_base("some/where")


def test_a_model_that_the_hub_does_not_have(cached, monkeypatch, tmp_path):
    online = Online(monkeypatch, [], tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda api, name: 1 / 0)
    with pytest.raises(FetchError, match=r"got neither \(division by zero\)"):
        snapshot("some/where")
    assert online.asked == []


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["config.json", "model-1.safetensors", "pytorch_model-1.bin"], "model*.safetensors"),
        (["config.json", "pytorch_model.bin"], "pytorch_model*.bin"),
    ],
)
def test_only_what_is_needed_is_downloaded(monkeypatch, tmp_path, files, weights):
    online = Online(monkeypatch, files, tmp_path)
    assert snapshot("some/model") == tmp_path
    assert online.asked == [("some/model", ["*.json", "*.jinja", "*.model", "*.txt", weights])]


@pytest.mark.parametrize("name", ["a/b/c", "/a/b", "a b/c", "./a", "../a", "a/", "a/model.pth"])
def test_what_is_neither_directory_nor_id_is_refused(name):
    assert not is_hub_id(name)
    with pytest.raises(RecipeError, match=r"or a directory or the hub id \(owner/name\) of a base"):
        load_base(name)
    with pytest.raises(RecipeError, match=rf"llm, where it is no directory or hub id .*'{name}'"):
        load_base("mini", llm=name)
