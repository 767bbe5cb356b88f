"""Streams of Hugging Face ``datasets`` written as tar shards, which training reads at random.

The position of the stream is kept with each finished shard, so a stopped stream goes on exactly
there, and the shards are those of one that was never stopped.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pathweave.data.messages import Part, Sample
from pathweave.datasets.media_files import FoundMedium, MediaPlaces, content_of
from pathweave.datasets.records import Advance, Record
from pathweave.datasets.saved_datasets import SavedSplit, read_saved
from pathweave.display import Display
from pathweave.errors import ManifestError, RunError
from pathweave.extras import import_extra
from pathweave.storage.atomic import new_file, read_json, sole_writer, write_json

STATE = "stream.json"
SHARD_BYTES = 256 << 20
_STORE = "stream"


@dataclass(frozen=True)
class _StreamedSplit(SavedSplit):
    """A split that is read row by row from ``rows``; ``between`` is called before every row."""

    rows: Any = None
    between: Any = None

    def records(self, advance: Advance) -> Iterator[Record]:
        """Yield the rows that are left."""
        for number, values in enumerate(self.rows, start=1):
            yield Record(f"row {number} of this stream", dict(values))
            # The samples of the row have been taken by now.
            self.between()


@dataclass(frozen=True)
class Streamed:
    """What is streamed.

    Attributes:
        name: Name of the data set on the hub, or a directory.
        split: The split.
        config: Name of the configuration, if there are several.
        modality: The type of all media; None takes the kinds of the columns.
        label: The column of answers; None finds it.
        question: What is asked; None takes the column ``question``, or ``What is it?``.
        licence: Licence of the media.
    """

    name: str
    split: str
    config: str | None = None
    modality: str | None = None
    label: str | None = None
    question: str | None = None
    licence: str | None = None


def write_stream(
    asked: Streamed, out: Path, shard_bytes: int = SHARD_BYTES, quiet: bool = False
) -> dict[str, Any]:
    """Write a stream as tar shards ``OUT/000000.tar``, ...; what is there already is kept.

    Rows are read as those of a directory that ``datasets`` has saved. Media must stand in them.

    Args:
        asked: What is streamed.
        out: Where to write.
        shard_bytes: Size from which on a shard is finished. It is held in memory until then.
        quiet: Show no progress.

    Returns:
        ``samples``, ``shards`` and ``unusable`` rows in all, ``reason`` of the last of these, and
        the ``manifest``.

    Raises:
        PathWeaveError: If ``datasets`` is not installed.
        ManifestError: If there is no such data set, or no sample in it can be used.
        RecipeError: If the label is no column that can be one.
        RunError: If ``out`` holds shards of another stream.
        BusyError: If another process writes there.
        DiskError: If it cannot be written.
    """
    with sole_writer(out), Display(quiet) as display:
        shards = _Shards(out, {**asdict(asked), "bytes": shard_bytes}, display)
        if not shards.is_done:
            stream = _open(asked)
            if shards.position is not None:
                stream.load_state_dict(shards.position)
            saved = _StreamedSplit(
                files=(),
                split=asked.split,
                schema=stream.features.arrow_schema,
                features=stream.features.to_dict(),
                rows=stream,
                between=lambda: shards.end_row(stream),
            )
            places = MediaPlaces(out, out, _STORE, asked.modality)
            about = {"licence": asked.licence, "source": asked.name}
            how = (places, about, asked.label, asked.question)
            for record in read_saved(saved, *how, lambda _: None):
                shards.add(record)
            shards.finish(None)
    if not shards.samples:
        raise ManifestError(
            f"{asked.name} must give at least one sample that can be used, got none; the last row: "
            f"{shards.reason or 'none at all'}"
        )
    pattern = f"{{000000..{shards.count - 1:06}}}.tar" if shards.count > 1 else "000000.tar"
    told = {"samples": shards.samples, "shards": shards.count, "unusable": shards.unusable}
    return {**told, "reason": shards.reason, "manifest": str(out / pattern)}


def _open(asked: Streamed) -> Any:  # noqa: ANN401 (of datasets)
    datasets: Any = import_extra("datasets", "stream")
    try:
        stream = datasets.load_dataset(asked.name, asked.config, split=asked.split, streaming=True)
        if stream.features is None:
            stream = stream._resolve_features()
        return stream.decode(False)  # media as they are in the files
    except Exception as error:  # of every kind: no such name, no network, no such split
        reason = " ".join(str(error).split())
        raise ManifestError(
            f"{asked.name} must be a data set that can be streamed, with a split {asked.split!r}, "
            f"got {reason:.300}; correct the name, or the split"
        ) from error


@dataclass
class _Shards:
    """The shards of a stream: those that are finished, and the samples of the next."""

    out: Path
    asked: dict[str, Any]
    display: Display
    count: int = 0
    samples: int = 0
    unusable: int = 0
    reason: str = ""
    position: dict[str, Any] | None = None
    is_done: bool = False
    _members: list[tuple[str, bytes]] = field(default_factory=list)
    _bytes: int = 0
    _media: dict[str, FoundMedium] = field(default_factory=dict)  # of the row

    def __post_init__(self) -> None:
        if not (file := self.out / STATE).exists():
            return
        rule = f"{file} must say how far the stream was read"
        told = read_json(file, rule, "choose another --out", RunError)
        if told.get("asked") != self.asked:
            raise RunError(
                f"{self.out} must hold shards of this stream, got those of {told.get('asked')}; "
                "choose another --out"
            )
        for name in ("count", "samples", "unusable", "reason", "position", "is_done"):
            setattr(self, name, told[name])

    def add(self, record: Record) -> None:
        """Take a sample, or count what cannot be used."""
        if record.sample is None:
            self.unusable += record.count
            self.reason = record.reason
            return
        key = f"{self.samples:09}"
        # Several answers about the media of a row are several samples; the first brings them.
        self._media |= {f"{_STORE}#{medium.name}": medium for medium in record.media}
        shown = (part.path for turn in record.sample.messages for part in turn.content)
        media = {path: self._media[path] for path in shown if path is not None}
        endings = {path: f"{number}.bin" for number, path in enumerate(media)}
        text = json.dumps(_with_endings(record.sample, endings), ensure_ascii=False)
        self._members.append((f"{key}.json", text.encode()))
        for path, medium in media.items():
            self._members.append((f"{key}.{endings[path]}", content_of(medium)))
            self._bytes += len(self._members[-1][1])
        self.samples += 1

    def end_row(self, stream: Any) -> None:  # noqa: ANN401
        """Write the shard if it is large enough, with where the stream is."""
        self._media = {}
        if self._bytes >= self.asked["bytes"]:
            self.finish(stream.state_dict())

    def finish(self, position: dict[str, Any] | None) -> None:
        """Write the shard, and where the stream is; None if it is at its end."""
        if self._members:
            shard = self.out / f"{self.count:06}.tar"
            with new_file(shard) as temporary, tarfile.open(temporary, "w") as tar:
                for name, data in self._members:
                    about = tarfile.TarInfo(name)
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))
            self.count += 1
            self.display.say(f"{self.count:,} shards, {self.samples:,} samples")
        self._members, self._bytes = [], 0
        self.position, self.is_done = position, position is None
        names = ("asked", "count", "samples", "unusable", "reason", "position", "is_done")
        write_json(self.out / STATE, {name: getattr(self, name) for name in names})


def _with_endings(sample: Sample, endings: dict[str, str]) -> dict[str, Any]:
    """Return a sample whose media are members beside it."""

    def moved(part: Part) -> Part:
        return part if part.path is None else part.model_copy(update={"path": endings[part.path]})

    messages = tuple(
        turn.model_copy(update={"content": tuple(map(moved, turn.content))})
        for turn in sample.messages
    )
    fields = sample.model_copy(update={"messages": messages})
    return fields.model_dump(exclude={"id"}, exclude_none=True, exclude_defaults=True)
