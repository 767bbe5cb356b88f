"""Importer of files in other projects' formats, sample by sample."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from os.path import isdir, normpath
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pathweave.data.messages import Sample
from pathweave.data.utf8 import find_bad_text, printable
from pathweave.datasets.conversations import count_answers, place_medium, read_conversation
from pathweave.datasets.declaration import Layout
from pathweave.datasets.media import is_file, prefix_of
from pathweave.datasets.records import (
    Advance,
    Record,
    conversation,
    find,
    grouped,
    read_records,
    read_table,
)
from pathweave.datasets.templates import instruction, normalise_caption
from pathweave.errors import ManifestError, MediaError, RecipeError
from pathweave.validation import explain

FOREIGN_FORMATS = ("llava", "sharegpt", "coco")
_CAPTIONS = "coco"
_PROMPT = "a short description."


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
        base = base.resolve()
        prefix = prefix_of(self.media or source.parent, base)
        read = self._captions if self.format == _CAPTIONS else self._conversations
        for record in read(source, prefix, advance):
            yield _with_media(record, base)

    def _conversations(self, source: Path, prefix: str, advance: Advance) -> Iterator[Record]:
        about = {"licence": self.licence, "source": printable(source.name)}
        layout = Layout(format="jsonl" if source.suffix.lower() == ".jsonl" else "json")
        for number, record in enumerate(read_records(source, layout, advance), start=1):
            if record.kind != "usable":
                yield record
                continue
            try:
                for sample in read_conversation(record, number, prefix, self.modality, **about):
                    yield replace(record, sample=sample)
            except (ManifestError, ValidationError) as error:
                yield replace(record.broken(_reason(error)), count=count_answers(record.values))

    def _captions(self, source: Path, prefix: str, advance: Advance) -> Iterator[Record]:
        images, flaws = read_table(source, "id", "images")
        records = self._described(source, images, advance)
        if not self.every_caption:
            records = grouped(records, ("{image_id}",))
        described = set()
        for record in chain(flaws, records):
            described.add(record.values.get("image_id"))
            yield record if record.kind != "usable" else self._captioned(record, prefix)
        for key in images if not self.every_caption else ():
            if key not in described:
                place = f"{source}, image {key}"
                yield Record(place, kind="left_out", reason="it has no caption")

    def _described(
        self, source: Path, images: Mapping[str, Mapping[str, Any]], advance: Advance
    ) -> Iterator[Record]:
        """Yield the captions, each with the file of its picture."""
        records = read_records(source, Layout(list="annotations"), advance)
        for number, record in enumerate(records, start=1):
            if record.kind != "usable":
                yield record
                continue
            values: dict[str, Any] = {"row": number}
            try:
                key = values["image_id"] = find(record.values, "image_id")[0]
                if key not in images:
                    raise ManifestError(f"image_id must be the id of one of images, got {key!r}")
                values["file_name"] = images[key].get("file_name")
                targets = (find(record.values, "caption")[0],)
                yield replace(record, values=values, targets=targets)
            except ManifestError as error:
                yield replace(record.broken(error), values=values)

    def _captioned(self, record: Record, prefix: str) -> Record:
        values, captions = record.values, record.targets
        sample_id, prompt = values["image_id"], _PROMPT
        try:
            part = place_medium(prefix, self.modality or "", values.get("file_name"))
            if self.every_caption:
                captions = (normalise_caption(captions[0]),)
                if not captions[0]:
                    raise ManifestError("a caption must hold words, got only marks")
                sample_id = f"{values['row']}"
                prompt = instruction("caption", part.type, "", self.seed, sample_id)
            sample = Sample(
                id=sample_id,
                messages=conversation([part], prompt, captions[0]),
                references=captions,
                object=values["image_id"],
                licence=self.licence,
            )
        except (ManifestError, ValidationError) as error:
            return record.broken(_reason(error))
        return replace(record, sample=sample)


def _reason(error: ManifestError | ValidationError) -> str:
    return explain(error, Sample) if isinstance(error, ValidationError) else str(error)


def _with_media(record: Record, base: Path) -> Record:
    turns = record.sample.messages if record.sample else ()
    paths = [part.path for turn in turns for part in turn.content if part.path is not None]
    try:
        # The directory of the manifest may not be there yet, so ".." is not left to the disk.
        absent = next((p for p in paths if not is_file(Path(normpath(base / p)))), None)
    except MediaError as error:
        return replace(record, kind="broken", reason=str(error), sample=None)
    if absent is None:
        return record
    return replace(record, kind="missing", reason=f"no file {absent:.80}", sample=None)
