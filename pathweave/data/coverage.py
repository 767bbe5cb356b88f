"""Coverage: how much of a data set is there, kept beside its manifest so that scores can say so."""

import json
from pathlib import Path

from pydantic import BaseModel

from pathweave.errors import ManifestError
from pathweave.storage.atomic import write_json


class Coverage(BaseModel, frozen=True, extra="forbid"):
    """What became of the annotated samples of one split.

    Args:
        dataset: Name of the data set or of the format that was imported.
        split: Name of the split, or an empty text.
        usable: Samples whose media are all on disk.
        missing: Samples of which a medium is not on disk.
        broken: Annotations that cannot be used.
        flawed: Records that cannot be used and are no samples of their own, such as one of several
            captions.
        left_out: Samples that the declaration leaves out, as the paper does.

    Example:
        >>> str(Coverage(dataset="msvd_caption", split="test", usable=1381, missing=119))
        '1,381 of 1,500'
    """

    dataset: str
    split: str
    usable: int = 0
    missing: int = 0
    broken: int = 0
    flawed: int = 0
    left_out: int = 0

    @property
    def absent(self) -> int:
        """Samples that there should be and that the manifest lacks."""
        return self.missing + self.broken

    @property
    def annotated(self) -> int:
        """Samples that there should be: all but those left out on purpose."""
        return self.usable + self.absent

    def __str__(self) -> str:
        return f"{self.usable:,} of {self.annotated:,}"


def coverage_file(manifest: Path) -> Path:
    """Return where the coverage of a manifest is kept."""
    return manifest.with_name(f"{manifest.name}.coverage.json")


def save_coverage(coverage: Coverage, manifest: Path) -> None:
    """Write the coverage beside the manifest.

    Raises:
        DiskError: If the disk is full or the directory cannot be written.
    """
    write_json(coverage_file(manifest), coverage.model_dump())


def load_coverage(manifest: Path) -> Coverage | None:
    """Return the coverage kept beside a manifest, or None if there is none.

    Raises:
        ManifestError: If the file is not one that ``save_coverage`` wrote.
    """
    file = coverage_file(manifest)
    try:
        return Coverage.model_validate(json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{file} must hold the coverage of {manifest.name}, got another content; convert the "
            "data set again or delete the file"
        ) from error
