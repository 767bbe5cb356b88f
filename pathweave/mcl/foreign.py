"""Reads files of other projects' formats as rows of samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import isfile, relpath
from pathlib import Path

from pydantic import ValidationError

from pathweave.data.messages import Message, Part, Sample
from pathweave.errors import ManifestError, RecipeError
from pathweave.mcl.conversations import Importer, place_medium
from pathweave.mcl.declaration import Layout
from pathweave.mcl.entries import find
from pathweave.mcl.reader import Row
from pathweave.mcl.records import Advance, Record, read_records, read_table
from pathweave.mcl.templates import instruction
from pathweave.mcl.text import normalise_caption

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
        RecipeError: If captions are to be imported and no modality is given.
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

    def read(self, source: Path, base: Path, advance: Advance) -> Iterator[Row]:
        """Yield a row for every sample.

        Args:
            source: The file.
            base: Directory that the paths in samples are to be relative to.
            advance: Called with the number of bytes read since the last call.

        Raises:
            ManifestError: If the file cannot be read.
        """
        directory = self.media or source.parent
        prefix = relpath(directory.resolve(), base.resolve())
        prefix = "" if prefix == "." else f"{prefix}/"
        read = self._captions if self.format == _CAPTIONS else self._conversations
        for row in read(source, prefix, advance):
            yield _with_media(row, base)

    def _conversations(self, source: Path, prefix: str, advance: Advance) -> Iterator[Row]:
        importer = Importer(prefix, self.modality, self.licence, source.name)
        layout = Layout(format="jsonl" if source.suffix == ".jsonl" else "json")
        for number, record in enumerate(read_records(source, layout, advance), start=1):
            try:
                for sample in importer.samples(_sound(record), number):
                    yield Row(record.place, "usable", "", sample)
            except (ManifestError, ValidationError) as error:
                yield _broken(record, error)

    def _captions(self, source: Path, prefix: str, advance: Advance) -> Iterator[Row]:
        media = read_table(source, "id", "images")
        captions: dict[str, list[str]] = {}
        layout = Layout(list="annotations")
        for number, record in enumerate(read_records(source, layout, advance), start=1):
            try:
                key = find(_sound(record).values, "image_id")[0]
                caption = find(record.values, "caption")[0]
                if key not in media:
                    raise ManifestError(f"image_id must be the id of one of images, got {key!r}")
                part = place_medium(prefix, self.modality or "", media[key].get("file_name"))
                if self.every_caption:
                    sample = self._to_learn(part, key, f"{number}", normalise_caption(caption))
                    yield Row(record.place, "usable", "", sample)
                else:
                    captions.setdefault(key, []).append(caption)
            except (ManifestError, ValidationError) as error:
                yield _broken(record, error)
        for key, found in captions.items():
            part = place_medium(prefix, self.modality or "", media[key].get("file_name"))
            sample = self._sample(part, key, key, _PROMPT, found)
            yield Row(f"{source}, image {key}", "usable", "", sample)
        for key in media.keys() - captions.keys() if not self.every_caption else ():
            yield Row(f"{source}, image {key}", "left_out", "it has no caption")

    def _to_learn(self, part: Part, key: str, sample_id: str, caption: str) -> Sample:
        if not caption:
            raise ManifestError("a caption must hold words, got only marks")
        prompt = instruction("caption", part.type, "", self.seed, sample_id)
        return self._sample(part, key, sample_id, prompt, [caption])

    def _sample(
        self, part: Part, key: str, sample_id: str, prompt: str, captions: list[str]
    ) -> Sample:
        answer = Part(type="text", text=captions[0])
        return Sample(
            id=sample_id,
            messages=(
                Message(role="user", content=(part, Part(type="text", text=prompt))),
                Message(role="assistant", content=(answer,)),
            ),
            references=tuple(captions),
            object=key,
            licence=self.licence,
        )


def _sound(record: Record) -> Record:
    if record.problem:
        raise ManifestError(record.problem)
    return record


def _broken(record: Record, error: Exception) -> Row:
    if isinstance(error, ValidationError):
        error = ManifestError(str(error.errors()[0]["msg"]).removeprefix("Value error, "))
    return Row(record.place, "broken", f"{error}; correct the record or remove it")


def _with_media(row: Row, base: Path) -> Row:
    parts = [part for turn in row.sample.messages for part in turn.content] if row.sample else []
    for part in parts:
        if part.path is not None and not isfile(base / part.path):
            return Row(row.place, "missing", f"no file {part.path}")
    return row
