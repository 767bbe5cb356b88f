"""A medium of two files as one run of bytes: a ZIP archive with the companion first.

The same two files always give the same bytes, so that the key of cached features stays a hash of
what is in them.
"""

import io
import zipfile

from pathweave.data.decode.describe import describe
from pathweave.errors import MediaError

_START = b"PK\x03\x04"
_COMPANION, _MEDIUM = "companion", "medium"

# An archive may claim any size; two pictures or maps are smaller.
_MAX_UNPACKED_BYTES = 1 << 30


def is_pair(data: bytes) -> bool:
    """Say whether bytes begin like an archive."""
    return data.startswith(_START)


def pack_pair(companion: bytes, medium: bytes) -> bytes:
    """Return an archive of two files.

    Example:
        >>> unpack_pair(pack_pair(b"colours", b"distances"), "chair")
        (b'colours', b'distances')
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in ((_COMPANION, companion), (_MEDIUM, medium)):
            # The default entry carries a fixed date.
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def unpack_pair(data: bytes, name: str) -> tuple[bytes, bytes]:
    """Return the companion and the medium itself, in the order of the archive.

    Raises:
        MediaError: If the bytes are not a whole archive of two files.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            total = sum(member.file_size for member in members)
            if len(members) != 2 or total > _MAX_UNPACKED_BYTES:
                raise MediaError(
                    f"{name} must be an archive of two files (the companion, then the medium) of "
                    f"at most 1 GiB, got {len(members)} of {total:,} bytes; name the two files in "
                    "the manifest instead"
                )
            companion, medium = (archive.read(member) for member in members)
    except MediaError:
        raise
    except Exception as error:  # zipfile lets errors of every kind escape from broken archives.
        raise MediaError(
            f"{name} must be a whole archive of two files, got {describe(data)} ({error}); copy "
            "or pack it again, or name the two files in the manifest"
        ) from error
    return companion, medium
