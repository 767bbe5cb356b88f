"""A pack: one path as one file, with the paths that it builds on.

It is a zip archive without compression. So each file of a path lies in it bit for bit, and the
hashes that ``path.json`` holds stay true; its table of contents says every size before anything is
read, and nothing can grow while it is read; any tool opens it, and the standard library reads it.
Nothing in it is run.

pack.json                     what is in it: base, recipe, data sets, scores, hash of every member
paths/NAME/path.json          description, tensors and proof of each path, as in a run
paths/NAME/path.safetensors
paths/NAME/proof.safetensors
base/base.json                the connector, if the run has trained one of its own
base/connector.safetensors

The names of members are those of the files of a run, and there are no others. The same path gives
the same bytes.
"""

import hashlib
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from pydantic import BaseModel, Field, ValidationError, model_validator

from pathweave.errors import PathError, PathWeaveError
from pathweave.evaluate.results import Results
from pathweave.model.base import DESCRIPTION as BASE_DESCRIPTION
from pathweave.model.base import TENSORS as BASE_TENSORS
from pathweave.recipe.schema import Recipe
from pathweave.runs.path_directory import DESCRIPTION, PATH, PROOF, TENSORS
from pathweave.storage.atomic import new_file, read_json, sha256_file
from pathweave.storage.bundle import SHOWN
from pathweave.validation import explain

FORMAT = 1
ABOUT, SUFFIX = "pack.json", ".pathweave"
REMEDY = "get the file again, or ask its sender for another"
MAX_ABOUT = 16 * 2**20  # bytes of a description
CHUNK = 2**20  # bytes
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip archive can tell
BASE_MEMBERS = (f"base/{BASE_DESCRIPTION}", f"base/{BASE_TENSORS}")
PATH_FILES = (DESCRIPTION, TENSORS, PROOF)
MEMBER = re.compile(
    f"{ABOUT}|{'|'.join(BASE_MEMBERS)}|paths/[a-z][a-z0-9_]*/({'|'.join(PATH_FILES)})"
)

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Member(BaseModel, extra="forbid"):
    """A file in a pack.

    Args:
        sha256: Its hash.
        num_bytes: Its size.
    """

    sha256: Hash
    num_bytes: int = Field(ge=0)


class DataInfo(BaseModel, extra="forbid"):
    """A data set that a path was trained or scored on.

    Args:
        manifest: Name of the file.
        sha256: Its hash; None if the file was not there when the path was packed.
        num_samples: Its samples.
    """

    manifest: str
    sha256: Hash | None = None
    num_samples: int | None = None


class Contents(BaseModel, extra="forbid"):
    """What a pack says of itself.

    Args:
        format: Number of the format.
        path: Name of the path.
        paths: Content hash of each path in the pack, predecessors first.
        left_out: Content hash of each predecessor that is not in it.
        base: Fingerprint of the base that the paths belong to.
        connector: Where the connector of that base is: in the ``pack``, ``left_out`` of it, or
            with the ``base`` that the recipe names.
        recipe: The recipe of the paths, with names in place of directories.
        data: Data sets by ``MODALITY.train.NAME`` or ``MODALITY.test.NAME``.
        results: Results of the run that the path is from, if there are any.
        files: The members.
    """

    format: Literal[1]
    path: Name
    paths: dict[Name, Hash]
    left_out: dict[Name, Hash] = {}
    base: Hash
    connector: Literal["pack", "left_out", "base"]
    recipe: Recipe
    data: dict[str, DataInfo] = {}
    results: Results | None = None
    files: dict[str, Member]

    @model_validator(mode="after")
    def _consistent(self) -> "Contents":
        if not self.paths or list(self.paths)[-1] != self.path:
            raise ValueError(f"paths must end with {self.path!r}, got {list(self.paths)}")
        if self.recipe.curriculum != tuple(self.paths):
            stages = list(self.recipe.curriculum)
            raise ValueError(f"the stages of recipe must be {list(self.paths)}, got {stages}")
        if self.results is not None:
            _ = self.results.matrix  # whether there is one
        needed = {member_of(name, file) for name in self.paths for file in PATH_FILES[:2]}
        allowed = needed | {member_of(name, PROOF) for name in self.paths}
        if self.connector == "pack":
            needed |= {*BASE_MEMBERS}
        found = self.files.keys()
        if odd := (needed - found) | (found - needed - allowed):
            raise ValueError(f"files must be those of its paths and no others, got {sorted(odd)}")
        return self


def member_of(name: str, file: str) -> str:
    """Return the member that is a file of a path."""
    return f"paths/{name}/{file}"


def write_pack(root: Path, about: dict[str, Any], members: Sequence[str], file: Path) -> Contents:
    """Write a pack and return what it says of itself.

    Args:
        root: Directory of the run, below which the members are.
        about: Fields of ``Contents`` besides ``format`` and ``files``.
        members: The members.
        file: What to write; an existing one is replaced when the new one is complete.

    Raises:
        DiskError: If it cannot be written.
    """
    files = {
        member: {"sha256": sha256_file(root / member), "num_bytes": (root / member).stat().st_size}
        for member in sorted(members)
    }
    contents = Contents.model_validate({"format": FORMAT, **about, "files": files})
    told = contents.model_dump_json(indent=2)
    with new_file(file) as temporary, ZipFile(temporary, "w", ZIP_STORED) as archive:
        _write(archive, ABOUT, told.encode())
        for member in files:
            _write(archive, member, root / member)
    return contents


def _write(archive: ZipFile, member: str, content: bytes | Path) -> None:
    info = ZipInfo(member, EPOCH)
    info.create_system = 3  # of any machine, the same bytes
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
    with archive.open(info, "w") as target:
        if isinstance(content, bytes):
            target.write(content)
            return
        with content.open("rb") as source:
            while chunk := source.read(CHUNK):
                target.write(chunk)


class Pack:
    """A pack on disk, whose table and description are sound; members are checked as they are read.

    Args:
        file: The file.

    Raises:
        PathError: If it is no pack, is damaged, or holds anything that a pack does not.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._readable(), ZipFile(file) as archive:
            self._check_table(archive.infolist())
            told = archive.read(ABOUT)
        try:
            self.contents = Contents.model_validate_json(told)
        except ValidationError as error:
            first = error.errors()[0]
            if first["loc"] == ("format",) and isinstance(first.get("input"), int):
                raise PathError(
                    f"{file} must be a pack of format {FORMAT}, got {first['input']}; install a "
                    "newer version"
                ) from error
            raise self._damaged(f"{ABOUT}: {explain(error, Contents)}") from error
        sizes = {m: of.num_bytes for m, of in self.contents.files.items()}
        if odd := sizes.items() ^ {m: n for m, n in self._sizes.items() if m != ABOUT}.items():
            raise self._damaged(
                f"{sorted(odd)[0][0]}, which {ABOUT} and the table do not both have"
            )

    def _check_table(self, entries: Sequence[ZipInfo]) -> None:
        """Refuse an archive of which a member is no plain file of a fixed name and true size."""
        sizes: dict[str, int] = {}
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if not MEMBER.fullmatch(entry.orig_filename) or entry.orig_filename in sizes:
                raise self._damaged(f"a member {entry.orig_filename!r:.80}")
            if kind not in (0, stat.S_IFREG):  # some writers do not say it of plain files
                raise self._damaged(f"{entry.filename}, which is a link or no file")
            if entry.compress_type != ZIP_STORED or entry.flag_bits & 1:
                raise self._damaged(f"{entry.filename} compressed or encrypted")
            sizes[entry.filename] = entry.file_size
        if ABOUT not in sizes:
            raise self._damaged(f"no {ABOUT}")
        if sizes[ABOUT] > MAX_ABOUT:
            raise self._damaged(f"{ABOUT} of {sizes[ABOUT]:,} bytes (at most {MAX_ABOUT:,})")
        # Members may overlap, so that a small file unpacks to a large one.
        if (total := sum(sizes.values())) > (size := self.file.stat().st_size):
            raise self._damaged(f"members of {total:,} bytes in a file of {size:,}")
        self._sizes = sizes

    def check(self) -> None:
        """Hash every member.

        Raises:
            PathError: If one is damaged.
        """
        for member in self.contents.files:
            deque(self._chunks(member), maxlen=0)

    def extract(self, root: Path, base: bool = True) -> None:
        """Write the members below a directory, and check every path.

        Args:
            root: The directory.
            base: Write the connector too, not only check it.

        Raises:
            PathError: If a member is damaged, or a path is not what the pack says.
            OSError: If something cannot be written.
        """
        for member in self.contents.files:
            if member in BASE_MEMBERS and not base:
                deque(self._chunks(member), maxlen=0)
                continue
            (root / member).parent.mkdir(parents=True, exist_ok=True)
            with (root / member).open("wb") as target:
                target.writelines(self._chunks(member))
        for name in self.contents.paths:
            self._check_path(root / "paths" / name, name)

    def _chunks(self, member: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        with self._readable(), ZipFile(self.file) as archive, archive.open(member) as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                yield chunk
        if (found := digest.hexdigest()) != (told := self.contents.files[member].sha256):
            raise self._damaged(f"{member} of sha256 {found[:SHOWN]} in place of {told[:SHOWN]}")

    def _check_path(self, directory: Path, name: str) -> None:
        """Refuse a path that is another than the pack says, or that names files elsewhere."""
        file = directory / DESCRIPTION
        rule = f"{self.file} must hold {member_of(name, DESCRIPTION)}"
        about = read_json(file, rule, REMEDY, PathError)
        files = about.get("files")
        if not isinstance(files, dict) or {*files} != {f.name for f in directory.iterdir()} - {
            DESCRIPTION
        }:
            raise self._damaged(f"{DESCRIPTION} of {name!r} with other files than the pack")
        about = PATH.read(directory)
        known = self.contents.paths | self.contents.left_out
        spec, earlier = about["spec"], about["predecessors"]
        listed = earlier if isinstance(earlier, dict) else {}
        said = {
            "spec.name": (spec.get("name") if isinstance(spec, dict) else None, name),
            "content_hash": (about["content_hash"], known[name]),
            "base_fingerprint": (about["base_fingerprint"], self.contents.base),
            "predecessors": (earlier, {each: known.get(each) for each in listed}),
        }
        for field, (found, told) in said.items():
            if found != told:
                raise self._damaged(f"{field} of {name!r} {found!r:.80} in place of {told!r:.80}")
        tensors = PATH.load(directory, TENSORS)
        values = sum(tensor.numel() for tensor in tensors.values())
        queries = len(tensors["queries"]) if "queries" in tensors else 0
        # A path of a stranger must not fill the memory with tensors that it does not hold.
        if spec.get("num_queries") != queries or any(size > values for size in _numbers(spec)):
            raise self._damaged(f"sizes in the spec of {name!r} beyond its tensors")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn whatever the reader raises about the file into an error that says so."""
        try:
            yield
        except PathWeaveError:
            raise
        # Whatever is wrong with an archive, the reader raises errors of every kind.
        except Exception as error:
            raise self._damaged(error) from error

    def _damaged(self, found: Exception | str) -> PathError:
        said = " ".join(str(found).split()) or type(found).__name__
        return PathError(f"{self.file} must be a whole pack of a path, got {said}; {REMEDY}")


def _numbers(value: Any) -> Iterator[int]:  # noqa: ANN401 (JSON)
    """Yield the whole numbers in plain values."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
