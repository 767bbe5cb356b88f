"""The file format: what is refused, whatever a stranger writes."""

import json
import stat
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from pathweave.errors import PathError
from pathweave.share.pack import ABOUT, MAX_ABOUT, Pack
from tests.share import packs as forge


def refused(file: Path, match: str) -> None:
    """A pack is refused when it is opened or taken out, and says what is wrong in one line."""
    with TemporaryDirectory() as directory:
        with pytest.raises(PathError, match=match) as caught:
            Pack(file).extract(Path(directory))
        outside = [each for each in Path(directory).rglob("*") if each.is_symlink()]
        assert outside == []
    assert "\n" not in str(caught.value)


def test_a_pack_holds_the_files_of_a_run_bit_for_bit(finished_run, packs, tmp_path):
    Pack(packs / "tilt").extract(tmp_path)
    run = forge.tree(finished_run)
    found = forge.tree(tmp_path)
    assert {name.partition("/")[0] for name in found} == {"base", "paths"}
    assert {name.split("/")[1] for name in found if name.startswith("paths")} == {"sound", "tilt"}
    assert found.items() <= run.items()


def test_hashes_are_checked_without_writing(packs, tmp_path):
    Pack(packs / "tilt").check()
    content = forge.members(packs / "tilt")
    content["base/connector.safetensors"] = content["base/connector.safetensors"][:-4] + b"else"
    pack = Pack(forge.write(tmp_path / "pack", content))
    with pytest.raises(PathError, match=r"connector\.safetensors of sha256 .* in place of"):
        pack.check()


@pytest.mark.parametrize("content", [b"", b"PK", b"no pack" * 100, b"\0" * 5000])
def test_what_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "pack").write_bytes(content)
    refused(tmp_path / "pack", "must be a whole pack of a path, got .*; get the file again")


def test_what_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "pack", "No such file")
    refused(tmp_path, "Is a directory")


def test_another_archive_is_refused(tmp_path):
    refused(forge.write(tmp_path / "pack", {}), "got no pack.json")
    refused(forge.write(tmp_path / "pack", {"notes.txt": b"hello"}), "a member 'notes.txt'")
    refused(forge.write(tmp_path / "pack", {ABOUT: b"{}"}), "must be a whole pack")
    refused(forge.write(tmp_path / "pack", {ABOUT: b"[" * 100_000}), "must be a whole pack")


@settings(max_examples=40)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_pack_is_refused(packs, part):
    whole = (packs / "alone").read_bytes()
    with TemporaryDirectory() as directory:
        file = Path(directory) / "pack"
        file.write_bytes(whole[: int(part * len(whole))])
        refused(file, "must be a whole pack")


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_pack_with_a_damaged_byte_is_refused_or_gives_what_it_was(packs, place, bits):
    whole = bytearray((packs / "alone").read_bytes())
    whole[int(place * len(whole))] ^= bits
    with (
        TemporaryDirectory() as directory,
        TemporaryDirectory() as there,
        TemporaryDirectory() as t,
    ):
        file = Path(directory) / "pack"
        file.write_bytes(whole)
        Pack(packs / "alone").extract(Path(there))
        try:
            Pack(file).extract(Path(t))
        except PathError:
            return
        assert forge.tree(Path(t)) == forge.tree(Path(there))


hostile = st.one_of(
    st.sampled_from(
        [
            *("../evil", "paths/../../evil", "/etc/evil", "paths/tilt/../sound/path.json"),
            *("paths/tilt/path.json/", "paths\\tilt\\path.json", "C:/evil", "paths/tilt/x.pkl"),
            *("./pack.json", "PACK.JSON", "pack.json\n", "pack.json\0", "paths/Tilt/path.json"),
        ]
    ),
    st.text(min_size=1, max_size=40),
    st.lists(st.sampled_from(["..", ".", "paths", "tilt", "path.json", "", "~"]), min_size=1).map(
        "/".join
    ),
)


@given(name=hostile)
def test_a_member_of_any_other_name_is_refused(packs, name):
    content = forge.members(packs / "alone")
    if name in content:
        return
    with TemporaryDirectory() as directory:
        try:
            file = forge.write(Path(directory) / "pack", {**content, name: b"x"})
        except UnicodeEncodeError:  # a lone surrogate cannot be written at all
            return
        refused(file, "a member|which pack.json and the table do not both have")


def test_links_and_devices_are_refused(packs, tmp_path):
    content = forge.members(packs / "alone")
    for kind in (stat.S_IFLNK, stat.S_IFDIR, stat.S_IFCHR):
        attributes = (kind | 0o777) << 16
        file = forge.write(tmp_path / "pack", content, external_attr=attributes)
        refused(file, "which is a link or no file")


def test_compressed_members_are_refused(packs, tmp_path):
    content = forge.members(packs / "alone")
    file = forge.write(tmp_path / "pack", content, compress_type=ZIP_DEFLATED)
    refused(file, "compressed or encrypted")


def test_a_name_that_stands_twice_is_refused(packs, tmp_path):
    forge.write(tmp_path / "pack", forge.members(packs / "alone"))
    with pytest.warns(UserWarning, match="Duplicate"), ZipFile(tmp_path / "pack", "a") as archive:
        archive.writestr(ABOUT, b"{}")
    refused(tmp_path / "pack", "a member 'pack.json'")


def test_members_that_claim_more_than_the_file_holds_are_refused_before_they_are_read(
    packs, tmp_path
):
    content = forge.members(packs / "alone")
    whole = forge.write(tmp_path / "pack", content).read_bytes()
    at = whole.rindex(b"paths/tilt/path.safetensors") - 46 + 20  # sizes, in the table at the end
    size = (2**31).to_bytes(4, "little")
    (tmp_path / "pack").write_bytes(whole[:at] + size + size + whole[at + 8 :])
    refused(tmp_path / "pack", r"members of 2,1.* bytes in a file of")


def test_a_description_without_end_is_refused_before_it_is_read(packs, tmp_path):
    content = forge.members(packs / "alone") | {ABOUT: b" " * (MAX_ABOUT + 1)}
    refused(forge.write(tmp_path / "pack", content), r"pack\.json of 16,777,217 bytes")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("paths/tilt/path.safetensors", r"path\.safetensors of sha256 .* in place of"),
        ("paths/tilt/proof.safetensors", r"proof\.safetensors of sha256 .* in place of"),
        ("paths/tilt/path.json", r"path\.json of sha256 .* in place of"),
    ],
)
def test_a_member_of_another_hash_is_refused(packs, member, message, tmp_path):
    content = forge.members(packs / "alone")
    content[member] = content[member][:-4] + b"else"
    refused(forge.write(tmp_path / "pack", content), message)


def test_a_member_of_another_checksum_is_refused(packs, tmp_path):
    whole = (packs / "alone").read_bytes()
    tensors = forge.members(packs / "alone")["paths/tilt/path.safetensors"]
    assert zlib.crc32(tensors).to_bytes(4, "little") in whole
    at = whole.index(tensors) + len(tensors) // 2
    (tmp_path / "pack").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused(tmp_path / "pack", "Bad CRC-32")


@pytest.mark.parametrize("member", ["paths/tilt/path.safetensors", "paths/tilt/path.json"])
def test_a_missing_member_is_refused(packs, member, tmp_path):
    content = forge.members(packs / "alone")
    del content[member]
    refused(forge.write(tmp_path / "pack", content), "which pack.json and the table do not both")
    forge.edit(content, ABOUT, lambda told: told["files"].pop(member))
    refused(forge.write(tmp_path / "pack", content), "files must be those of its paths")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "must be a pack of format 1, got 2; install a newer version"),
        ({"path": "sound"}, "paths must end with 'sound'"),
        ({"path": "../tilt"}, "path: String should match pattern"),
        ({"paths": {}}, "paths must end with 'tilt', got"),
        ({"paths": {"../x": "0" * 64, "tilt": "0" * 64}}, "String should match pattern"),
        ({"base": "base-1"}, "base: String should match pattern"),
        ({"recipe": {"name": "x"}}, r"recipe\.modalities"),
        ({"results": {"recipe": "x"}}, r"results\.method"),
        ({"colour": "red"}, "field colour must be one of"),
    ],
)
def test_a_description_that_is_wrong_is_refused(packs, change, message, tmp_path):
    content = forge.members(packs / "alone")
    forge.edit(content, ABOUT, lambda told: told.update(change))
    refused(forge.write(tmp_path / "pack", content), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["spec"].update(name="sound"), r"spec\.name of 'tilt' 'sound' in place"),
        (lambda told: told.update(content_hash="0" * 64), r"content_hash of 'tilt' '000"),
        (lambda told: told.update(base_fingerprint="1" * 64), r"base_fingerprint of 'tilt' '111"),
        (lambda told: told["predecessors"].update(heat="2" * 64), r"predecessors of 'tilt'"),
        (lambda told: told.update(predecessors=[["sound"]]), "predecessors of 'tilt'"),
        (lambda told: told.update(spec=[]), r"spec\.name of 'tilt' None in place"),
        (lambda told: told["files"].update({"../x": "3" * 64}), "other files than the pack"),
        (lambda told: told["files"].clear(), "other files than the pack"),
        (lambda told: told["spec"].update(num_queries=10**9), "sizes in the spec of 'tilt'"),
        (lambda told: told["spec"].update(rank=10**9), "sizes in the spec of 'tilt'"),
        (lambda told: told.update(format=9), "format 1, got 9"),
        (lambda told: told.pop("spec"), "spec"),
    ],
)
def test_a_path_that_is_not_what_the_pack_says_is_refused(packs, change, message, tmp_path):
    content = forge.members(packs / "alone")
    forge.edit(content, "paths/tilt/path.json", change)
    files = json.loads(content[ABOUT])["files"]
    # Sealed by hand: `seal` would mend what is to be wrong.
    data = content["paths/tilt/path.json"]
    files["paths/tilt/path.json"] = {
        "sha256": forge.sha256_bytes(data),
        "num_bytes": len(data),
    }
    forge.edit(content, ABOUT, lambda told: told.update(files=files))
    refused(forge.write(tmp_path / "pack", content), message)


def test_tensors_that_are_none_are_refused(packs, tmp_path):
    content = forge.members(packs / "alone")
    content["paths/tilt/path.safetensors"] = b"no tensors"
    forge.seal(content)
    refused(forge.write(tmp_path / "pack", content), "SafetensorError")
    content = forge.members(packs / "alone")
    tensors = load(content["paths/tilt/path.safetensors"])
    del tensors["queries"]
    content["paths/tilt/path.safetensors"] = save(tensors)
    forge.seal(content)
    refused(forge.write(tmp_path / "pack", content), "sizes in the spec of 'tilt'")
