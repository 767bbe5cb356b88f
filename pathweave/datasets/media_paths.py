"""Where media are: from a manifest to their directory, and whether a file is there."""

import errno
import stat
from os.path import relpath
from pathlib import Path

from pathweave.data.utf8 import find_bad_text
from pathweave.errors import ManifestError, MediaError

# What a path leads to if there is nothing: no such name, a part of it that is a file, one too long.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def prefix_of(directory: Path, base: Path) -> str:
    """Return what leads from a base to a directory, to be put before the paths of media.

    Raises:
        ManifestError: If it is not UTF-8, as a manifest has to be.

    Example:
        >>> prefix_of(Path("data/media"), Path("data/manifests"))
        '../media/'
    """
    prefix = relpath(directory.resolve(), base.resolve())
    if bad := find_bad_text(prefix):
        raise ManifestError(
            f"the path from a manifest to its media must be UTF-8, got {bad}; rename the directory"
        )
    return "" if prefix == "." else f"{prefix}/"


def is_file(path: Path) -> bool:
    """Say whether there is a file.

    Raises:
        MediaError: If that cannot be known, as a directory on the way cannot be read.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno in _NOTHING:
            return False
        raise MediaError(
            f"{path} must be readable, got {error.strerror}; change the permissions of its "
            "directory"
        ) from error
