"""Packs taken apart and put together again, sealed or not."""

import json
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from pathweave.storage.atomic import sha256_bytes

Members = dict[str, bytes]


def members(file: Path) -> Members:
    with ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(file: Path, content: Members, **fields) -> Path:
    """Write an archive; ``fields`` are set on the entry of every member."""
    with ZipFile(file, "w", ZIP_STORED) as archive:
        for name, data in content.items():
            info = ZipInfo("x")
            info.filename = name
            for field, value in fields.items():
                setattr(info, field, value)
            archive.writestr(info, data, info.compress_type)
    return file


def edit(content: Members, member: str, change: Callable[[dict], object]) -> None:
    """Change a member that is JSON."""
    told = json.loads(content[member])
    change(told)
    content[member] = json.dumps(told).encode()


def seal(content: Members) -> None:
    """Give every changed file its hash and size, as one does who means it."""
    for member in content:
        if member.endswith("/path.json"):
            place = member.removesuffix("path.json")
            edit(
                content,
                member,
                lambda told, place=place: told["files"].update(
                    {name: sha256_bytes(content[place + name]) for name in told["files"]}
                ),
            )
    files = {
        name: {"sha256": sha256_bytes(data), "num_bytes": len(data)}
        for name, data in content.items()
        if name != "pack.json"
    }
    edit(content, "pack.json", lambda told: told.update(files=files))


def changed(pack: Path, out: Path, member: str, change: Callable[[dict], object]) -> Path:
    """Return a copy of a pack in which a member is another, with all hashes right."""
    content = members(pack)
    edit(content, member, change)
    seal(content)
    return write(out, content)


def tree(directory: Path) -> dict[str, str]:
    """Return the hash of every file below a directory, locks apart."""
    return {
        file.relative_to(directory).as_posix(): sha256_bytes(file.read_bytes())
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not file.name.startswith(".lock")
    }
