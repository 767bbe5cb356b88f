"""A medium of two files as one run of bytes: a ZIP archive with the companion first.

The same two files always give the same bytes, so that the key of cached features stays a hash of
what is in them.
"""

import io
import zipfile
from collections.abc import Sequence

from pathweave.errors import MediaError

# An archive may claim any size; two pictures or maps are smaller, and so is a cloud.
_MAX_UNPACKED_BYTES = 1 << 30


def is_pair(data: bytes) -> bool:
    """Return whether bytes begin like an archive."""
    return data.startswith(b"PK\x03\x04")


def pack_pair(companion: bytes, medium: bytes) -> bytes:
    """Return an archive of two files.

    Example:
        >>> unpack_pair(pack_pair(b"colours", b"distances"))
        (b'colours', b'distances')
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in (("companion", companion), ("medium", medium)):
            # The default entry carries a fixed date.
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def unpack_pair(data: bytes) -> tuple[bytes, bytes]:
    """Return the companion and the medium itself, in the order of the archive.

    Raises:
        MediaError: If there are not two files in the archive, or they are too large.
        Exception: If it is no whole archive.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 2:
            total = sum(member.file_size for member in members)
            raise MediaError(
                f"must be an archive of two files (the companion, then the medium), got "
                f"{len(members)} of {total:,} bytes; name the two files in the manifest instead"
            )
        companion, medium = unpacked(archive, members)
    return companion, medium


def unpacked(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo]) -> list[bytes]:
    """Return the contents of some files of an archive.

    Raises:
        MediaError: If they have more than 1 GiB.
    """
    total = sum(member.file_size for member in members)
    if total > _MAX_UNPACKED_BYTES:
        raise MediaError(
            f"must unpack to at most {_MAX_UNPACKED_BYTES >> 20} MiB, got {total >> 20}; thin it"
        )
    return [archive.read(member) for member in members]
