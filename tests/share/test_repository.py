"""A directory as the hub: what is pushed is pulled, pinned, and never mistaken for another."""

import json
from threading import Thread

import pytest
import yaml

from pathweave.share.pack import Pack
from tests.full_disk import full_disk
from tests.share.hub_server import COMMIT, Hub
from tests.share.packs import changed, tree
from tests.whole_runs import command


@pytest.fixture
def hub(finished_run, tmp_path):
    assert command("push", finished_run, "tilt", tmp_path / "hub") == 0
    return tmp_path / "hub"


def test_what_is_pushed_is_pulled_checked_and_pinned(packs, hub, base, tmp_path, capsys):
    assert sorted(file.name for file in hub.iterdir()) == ["README.md", "tilt.pathweave"]
    whole = (packs / "tilt").read_bytes()
    assert (hub / "tilt.pathweave").read_bytes() == whole
    capsys.readouterr()
    assert command("pull", hub, tmp_path / "mine", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    mine = tmp_path / "mine" / "tilt.pathweave"
    assert mine.read_bytes() == whole
    assert json.loads(mine.with_name("tilt.pathweave.json").read_text(encoding="utf-8")) == told
    assert told["file"] == "tilt.pathweave"
    before = tree(tmp_path)
    assert command("pull", hub, tmp_path / "mine") == 0  # again: the same
    assert f"sha256 {told['sha256']}" in capsys.readouterr().out
    assert tree(tmp_path) == before
    assert command("unpack", mine, tmp_path / "run", "--set", base) == 0
    assert command("verify", tmp_path / "run") == 0


def test_another_file_under_a_pinned_name_is_refused(hub, tmp_path, capsys):
    assert command("pull", hub, tmp_path / "mine") == 0
    other = hub / "tilt.pathweave"
    changed(other, tmp_path / "other", "pack.json", lambda told: told["recipe"].update(seed=5))
    other.write_bytes((tmp_path / "other").read_bytes())
    before = tree(tmp_path / "mine")
    assert command("pull", hub, tmp_path / "mine") == 2
    assert "tilt.pathweave of" in (said := capsys.readouterr().err)
    assert "to take it anew" in said
    assert tree(tmp_path / "mine") == before
    (tmp_path / "mine" / "tilt.pathweave.json").unlink()  # a file that nobody pinned is kept too
    assert command("pull", hub, tmp_path / "mine") == 2
    (tmp_path / "mine" / "tilt.pathweave").unlink()
    assert command("pull", hub, tmp_path / "mine") == 0


def test_a_damaged_pack_is_not_pulled(hub, tmp_path, capsys):
    file = hub / "tilt.pathweave"
    file.write_bytes(file.read_bytes()[:-100])
    assert command("pull", hub, tmp_path / "mine") == 2
    assert "must be a whole pack of a path" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_damaged_pin_is_told(hub, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tilt.pathweave.json").write_text("[]", encoding="utf-8")
    assert command("pull", hub, tmp_path / "mine") == 2
    assert "must hold a pin of pathweave pull, got a list" in capsys.readouterr().err


def test_a_repository_holds_one_path(hub, finished_run, tmp_path, capsys):
    before = tree(hub)
    assert command("push", finished_run, "sound", hub) == 2
    assert "must hold one path, got tilt.pathweave in" in capsys.readouterr().err
    assert command("push", finished_run, "tilt", hub, "--alone") == 0
    assert tree(hub) != before
    assert list(Pack(hub / "tilt.pathweave").contents.paths) == ["tilt"]
    (hub / "two.pathweave").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for place, found in (
        (hub, "['tilt.pathweave', 'two.pathweave']"),
        (tmp_path / "empty", "none"),
    ):
        assert command("pull", place, tmp_path / "mine") == 2
        assert f"must hold one path (*.pathweave), got {found}" in capsys.readouterr().err


def test_what_is_neither_a_directory_nor_an_id_is_refused(finished_run, tmp_path, capsys):
    for words in (["push", finished_run, "tilt", "hub"], ["pull", "a/b/c", tmp_path]):
        assert command(*words) == 2
        assert "must be a directory or an id of the hub" in capsys.readouterr().err
    assert command("pull", tmp_path / "nowhere", tmp_path) == 2
    assert "must hold one path (*.pathweave), got none" in capsys.readouterr().err


def test_without_a_connection_the_hub_is_not_waited_for(
    finished_run, tmp_path, capsys, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for words in (["push", finished_run, "tilt", "me/tilt"], ["pull", "me/tilt", tmp_path / "x"]):
        assert command(*words) == 2
        said = capsys.readouterr().err
        assert "me/tilt on the hub must" in said
        assert "no connection; connect to the hub and log in" in said
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_the_repository_as_it_was(hub, finished_run, tmp_path, capsys):
    before = tree(hub)
    with full_disk(100_000):  # the pack is larger
        assert command("push", finished_run, "tilt", hub) == 2
    assert "cannot be written" in capsys.readouterr().err
    with full_disk(100_000):
        assert command("pull", hub, tmp_path / "mine") == 2
    assert tree(hub) == before
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_card_is_that_of_the_path(hub, finished_run):
    text = (hub / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert (told["library_name"], told["license"]) == ("pathweave", "other")
    assert "tilt" in told["tags"]
    assert f"pathweave pull {hub}\n" in body


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub on this machine, and an empty cache for what is downloaded from it."""
    from huggingface_hub import constants

    with Hub() as hub:
        thread = Thread(target=hub.serve_forever)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub
        hub.shutdown()
        thread.join()


def test_the_hub_itself_takes_and_gives(server, finished_run, packs, tmp_path, capsys):
    assert command("push", finished_run, "tilt", "me/tilt", "--license", "mit") == 0
    assert "private" in (
        server.created.get("visibility"),
        *(k for k, v in server.created.items() if v is True),
    )
    assert server.files["tilt.pathweave"] == (packs / "tilt").read_bytes()
    assert b"license: mit" in server.files["README.md"]
    assert f"revision {COMMIT}" in capsys.readouterr().out
    assert command("pull", "me/tilt", tmp_path / "mine", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["repository"], told["revision"]) == ("me/tilt", COMMIT)
    assert (tmp_path / "mine" / "tilt.pathweave").read_bytes() == (packs / "tilt").read_bytes()
    assert command("push", finished_run, "sound", "me/tilt") == 2
    assert "got tilt.pathweave in me/tilt already" in capsys.readouterr().err
    assert command("pull", "me/none", tmp_path / "mine") == 2
    assert "me/none on the hub must give a path, got: " in capsys.readouterr().err
