"""Reads files of other projects' formats as rows of samples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from os.path import isdir, normpath
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pathweave.data.messages import Message, Part, Sample
from pathweave.data.utf8 import printable
from pathweave.datasets.conversations import Importer, count_answers, place_medium
from pathweave.datasets.declaration import Layout
from pathweave.datasets.entries import find
from pathweave.datasets.entry import Entry, grouped
from pathweave.datasets.media_paths import is_file, prefix_of
from pathweave.datasets.reader import Row, broken_row, unusable_row
from pathweave.datasets.records import Advance, Record, read_records
from pathweave.datasets.tables import Table, read_table
from pathweave.datasets.templates import instruction
from pathweave.datasets.text import normalise_caption
from pathweave.errors import ManifestError, MediaError, RecipeError

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
            and every caption is asked for, or if there is no such directory of media.
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
        if self.media is not None and not isdir(self.media):
            raise RecipeError(
                f"--media must be a directory, got {self.media}; correct the path or leave it out"
            )

    def read(self, source: Path, base: Path, advance: Advance) -> Iterator[Row]:
        """Yield a row for every sample.

        Args:
            source: The file.
            base: Directory that the paths in samples are to be relative to.
            advance: Called with the number of bytes read since the last call.

        Raises:
            ManifestError: If the file cannot be read, or the path to the media is not UTF-8.
        """
        base = base.resolve()
        prefix = prefix_of(self.media or source.parent, base)
        read = self._captions if self.format == _CAPTIONS else self._conversations
        for row in read(source, prefix, advance):
            yield _with_media(row, base)

    def _conversations(self, source: Path, prefix: str, advance: Advance) -> Iterator[Row]:
        importer = Importer(prefix, self.modality, self.licence, printable(source.name))
        layout = Layout(format="jsonl" if source.suffix == ".jsonl" else "json")
        for number, record in enumerate(read_records(source, layout, advance), start=1):
            try:
                for sample in importer.samples(_sound(record), number):
                    yield Row(record.place, "usable", "", sample)
            except (ManifestError, ValidationError) as error:
                yield broken_row(record.place, _reason(error), count_answers(record.values))

    def _captions(self, source: Path, prefix: str, advance: Advance) -> Iterator[Row]:
        images = read_table(source, "id", "images")
        records = enumerate(read_records(source, Layout(list="annotations"), advance), start=1)
        entries: Iterable[Entry] = (_caption(record, n, images) for n, record in records)
        if not self.every_caption:
            entries = grouped(entries, ("{image_id}",))
        described = set()
        for entry in chain(images.flaws, entries):
            described.add(entry.values.get("image_id"))
            yield unusable_row(entry) or self._captioned(entry, prefix)
        for key in images.records if not self.every_caption else ():
            if key not in described:
                yield Row(f"{source}, image {key}", "left_out", "it has no caption")

    def _captioned(self, entry: Entry, prefix: str) -> Row:
        key = entry.values["image_id"]
        try:
            part = place_medium(prefix, self.modality or "", entry.values.get("file_name"))
            if self.every_caption:
                caption = normalise_caption(entry.targets[0])
                sample = self._to_learn(part, key, f"{entry.values['row']}", caption)
            else:
                sample = self._sample(part, key, key, _PROMPT, entry.targets)
        except (ManifestError, ValidationError) as error:
            return broken_row(entry.place, _reason(error))
        return Row(entry.place, "usable", "", sample)

    def _to_learn(self, part: Part, key: str, sample_id: str, caption: str) -> Sample:
        if not caption:
            raise ManifestError("a caption must hold words, got only marks")
        prompt = instruction("caption", part.type, "", self.seed, sample_id)
        return self._sample(part, key, sample_id, prompt, (caption,))

    def _sample(
        self, part: Part, key: str, sample_id: str, prompt: str, captions: tuple[str, ...]
    ) -> Sample:
        answer = Part(type="text", text=captions[0])
        return Sample(
            id=sample_id,
            messages=(
                Message(role="user", content=(part, Part(type="text", text=prompt))),
                Message(role="assistant", content=(answer,)),
            ),
            references=captions,
            object=key,
            licence=self.licence,
        )


def _caption(record: Record, number: int, images: Table) -> Entry:
    values: dict[str, Any] = {"row": number}
    try:
        key = values["image_id"] = find(_sound(record).values, "image_id")[0]
        if key not in images.records:
            raise ManifestError(f"image_id must be the id of one of images, got {key!r}")
        values["file_name"] = images.records[key].get("file_name")
        caption = find(record.values, "caption")[0]
    except ManifestError as error:
        return Entry(record.place, values, problem=str(error))
    return Entry(record.place, values, targets=(caption,))


def _sound(record: Record) -> Record:
    if record.problem:
        raise ManifestError(record.problem)
    return record


def _reason(error: ManifestError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return str(error)


def _with_media(row: Row, base: Path) -> Row:
    parts = [part for turn in row.sample.messages for part in turn.content] if row.sample else []
    paths = [part.path for part in parts if part.path is not None]
    try:
        # The directory of the manifest may not be there yet, so ".." is not left to the disk.
        absent = next((p for p in paths if not is_file(Path(normpath(base / p)))), None)
    except MediaError as error:
        return Row(row.place, "broken", str(error))
    return row if absent is None else Row(row.place, "missing", f"no file {absent:.80}")
