"""Importer of files in other projects' formats, sample by sample."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path

from pathweave.data.utf8 import find_bad_text, printable
from pathweave.datasets.conversations import read_conversations
from pathweave.datasets.declaration import Dataset, Join, MediumPlace, Split
from pathweave.datasets.reader import SplitReader
from pathweave.datasets.records import Advance, Record
from pathweave.errors import RecipeError

FOREIGN_FORMATS = ("llava", "sharegpt", "coco")
_CAPTIONS = "coco"


@dataclass(frozen=True)
class Foreign:
    """How a file of another project is imported.

    Args:
        format: ``llava`` or ``sharegpt``: conversations, in one JSON list or as JSON lines;
            ``coco``: captions with the lists ``images`` and ``annotations``.
        media: Directory that the paths of media are relative to; None is that of the file.
        modality: The type of all media; None takes the names that mark their places.
        every_caption: Whether every caption is a sample to learn from, with a drawn instruction,
            and not every medium a sample with all its captions as references.
        licence: Licence of the media.
        seed: Seed of drawn instructions.

    Raises:
        RecipeError: If captions are to be imported and no modality is given, if conversations are
            and every caption is asked for, if there is no such directory of media, or if a text is
            not UTF-8.
    """

    format: str
    media: Path | None = None
    modality: str | None = None
    every_caption: bool = False
    licence: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.format == _CAPTIONS and self.modality is None:
            raise RecipeError(
                "captions must be given the type of their media, got none; add for example "
                "--modality image"
            )
        if self.format != _CAPTIONS and self.every_caption:
            raise RecipeError(f"--every-caption must be left out for {self.format}; remove it")
        for option, text in (("--modality", self.modality), ("--licence", self.licence)):
            if bad := find_bad_text(text):
                raise RecipeError(f"{option} must be text in UTF-8, got {bad}; correct it")
        if self.media is not None and not isdir(self.media):
            raise RecipeError(
                f"--media must be a directory, got {self.media}; correct the path or leave it out"
            )

    def read(self, source: Path, base: Path, advance: Advance) -> Iterator[Record]:
        """Yield every sample, and what is wrong.

        Args:
            source: The file.
            base: Directory that the paths in samples are to be relative to.
            advance: Called with the number of KiB read since the last call.

        Raises:
            ManifestError: If the file cannot be read, or the path to the media is not UTF-8.
        """
        media = self.media or source.parent
        if self.format != _CAPTIONS:
            about = self.modality, self.licence
            return read_conversations(source, media, base, *about, advance)
        # Not validated: the path of a file need not be UTF-8.
        split = Split.model_construct(
            records=(str(source.absolute()),),
            list="annotations",
            join=Join(
                list="images",
                by="image_id",
                key="id",
                unnamed=None if self.every_caption else "it has no caption",
            ),
            media=(MediumPlace(modality=self.modality or "", decoder="", paths="{file_name}"),),
            targets=("caption",),
            learn=self.every_caption,
            **dict.fromkeys(("id", "object", "group"), ("{image_id}",)),
        )
        dataset = Dataset.model_construct(
            title=printable(source.name),
            task="caption",
            prompt="a short description.",
            splits={"": split},
            licence=self.licence,
            terms="",
        )
        return SplitReader(dataset, "", media, base, seed=self.seed).read(advance)
