"""A new modality from files: what they hold, a split without leaks, manifests and a recipe."""

import io
import math
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import yaml

from pathweave.data.labelled_files import (
    LabelledFile,
    LabelledFiles,
    check_names,
    find_labelled_files,
)
from pathweave.data.manifest import write_manifest
from pathweave.decoders import build_decoder
from pathweave.decoders.decoder import describe
from pathweave.decoders.recording import (
    JITTER,
    RATE_TOLERANCE,
    SECONDS,
    Recording,
    find_form,
    might_be_number,
    read_table,
)
from pathweave.display import Bar, Display
from pathweave.encoders.media import Series
from pathweave.errors import ManifestError, MediaError, PathWeaveError, RecipeError, RequestError
from pathweave.extras import import_extra
from pathweave.model.paths import NAME
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.schema import RESERVED_NAMES
from pathweave.storage.atomic import new_directory, sha256_bytes, write_atomic

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
MOST_UNREADABLE = 0.1
SHOWN = 10
WINDOW = 60.0  # seconds, at most
SLOW_WINDOW = 256  # samples, for sensors of which 60 s are less
DAY = 86_400.0  # seconds; the longest window of the decoder
PATCHES = 64  # of a window, by aim
SOUND_RATE, SOUND_SECONDS, SOUND_WINDOWS = 44_100, 2.0, 8  # for the encoder `sound-effects`
SLOW = 0.5  # Hz, below which times may be in another unit than seconds
TRIED = 20  # files that say whether their times are even
_TIME = re.compile(
    r"(?:t|time|timestamp|date|datetime|seconds)(?:[ _.(\[]+(s|ms|us|ns)[)\]]?)?", re.IGNORECASE
)
# Times since 1970 tell their unit by their size.
_SINCE_1970 = (("ns", 1e17), ("us", 1e14), ("ms", 1e11))

Value = TypeVar("Value")


@dataclass
class _Look:
    """What the files hold: how to read them, what was found, and what could not be read."""

    bar: Bar = field(repr=False)
    decoder: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    patches: dict[str, int] | None = None
    channels: list[str] | int | None = None
    rate: float | None = None
    lengths: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    with_gaps: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def leave_out(self, columns: Sequence[str], reason: str) -> None:
        """Say that columns are not read."""
        if columns:
            self.warnings.append(f"columns left out, as {reason}: {', '.join(columns)}")

    def each(
        self, files: Sequence[LabelledFile], read: Callable[[bytes], Value]
    ) -> dict[str, Value]:
        """Return what ``read`` makes of each file, by name; a file that it refuses is listed."""
        found = {}
        for file in files:
            self.bar.advance()
            if file.name in self.problems:
                continue
            data = b""
            try:
                data = file.read()
                found[file.name] = read(data)
                self.hashes[file.name] = sha256_bytes(data)
            except MediaError as error:
                self.problems[file.name] = f"{file.name} {error}"
            except PathWeaveError:
                raise
            except Exception as error:  # Libraries let errors of every kind escape.
                self.problems[file.name] = (
                    f"{file.name} must be a whole file of its kind, got {describe(data)} that "
                    f"cannot be decoded ({' '.join(str(error).split())}); replace it"
                )
        if len(self.problems) > MOST_UNREADABLE * len(files):
            raise MediaError(
                f"at most {MOST_UNREADABLE:.0%} of the files may be unreadable, got "
                f"{len(self.problems)} of {len(files)}; the first: "
                f"{next(iter(self.problems.values()))}"
            )
        return found


class _AsRecorded(Recording):
    """Decodes a recording whole, at its own rate."""

    def decode(self, data: bytes) -> Series:
        values, rate = self._whole(data)
        return Series(values[None].astype(np.float32), rate)


def new_modality(  # noqa: PLR0913 (what a user says)
    name: str,
    source: Path,
    display: Display,
    label: str | None = None,
    question: str = "What is it?",
    group: str | None = None,
    recording: str | None = None,
    rate: float | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write manifests and a recipe for labelled files; nothing is written if they are refused.

    Args:
        name: Name of the modality.
        source: A directory of class folders, a directory with a table beside the media, or a table.
        display: Where progress is shown.
        label: Column of the labels.
        question: What is asked about every medium.
        group: Column of what must stay in one split.
        recording: Column that says which recording a row of one long table belongs to.
        rate: Samples per second, in Hz, of recordings that do not say it; others are resampled.
        out: Directory to write; None is ``name``.
        seed: Seed of the split.

    Returns:
        What was found and written, as plain values.

    Raises:
        RecipeError: If the name cannot be one.
        RequestError: If the arguments do not fit the files, or ``out`` is not empty.
        ManifestError: If labels are missing, of one class, or too few to be split.
        MediaError: If more than a tenth of the files cannot be read.
    """
    out = Path(name) if out is None else out
    _check_words(name, question, rate, out)
    found = find_labelled_files(source, label, group, recording)
    _check_classes(found.files)
    with display:
        look = _look_at(found, rate, display)
    files = [file for file in found.files if file.name not in look.problems]
    _check_classes(files)
    splits = _split(files, look, seed)
    rows, media = _rows(name, question, files, out)
    text = _recipe_text(name, source, out, look, max(len(file.label) for file in files))
    with new_directory(out) as directory:
        for path, data in media.items():
            (directory / path).parent.mkdir(exist_ok=True)
            write_atomic(directory / path, data)
        for split in SHARES:
            write_manifest(
                directory / f"{split}.jsonl",
                [row for row in rows if splits[row["id"]] == split],
            )
        write_atomic(directory / "recipe.yaml", text.encode())
        load_recipe(directory / "recipe.yaml")
    lengths = sorted(look.lengths)
    shown = next(row for row in rows if splits[row["id"]] == "test")
    medium = os.path.normpath(out / shown["messages"][0]["content"][0]["path"])
    run = f"runs/{name}"
    return {
        "name": name,
        "out": str(out),
        "kind": found.kind,
        "recordings": len(files),
        "channels": look.channels,
        "rate": look.rate,
        "seconds": [lengths[0], float(np.median(lengths)), lengths[-1]] if lengths else None,
        "classes": dict(sorted(Counter(file.label for file in files).items())),
        "with_gaps": look.with_gaps,
        "left_out": list(look.problems.values()),
        "notes": [*found.notes, *look.notes],
        "warnings": look.warnings,
        "splits": dict(Counter(splits[file.name] for file in files)),
        "decoder": look.decoder,
        "next": [
            shlex.join(["pathweave", "evolve", str(out / "recipe.yaml"), "--out", run]),
            shlex.join(["pathweave", "ask", run, f"--{name}", medium, question]),
        ],
    }


def _check_words(name: str, question: str, rate: float | None, out: Path) -> None:
    """Check what the user has said by itself.

    Raises:
        RecipeError: If the name cannot be one.
        RequestError: If the question is empty, the rate not positive, or ``out`` not empty.
    """
    if not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise RecipeError(
            "a modality's name must be lower-case letters, digits and underscores and none of "
            f"{sorted(RESERVED_NAMES)}, got {name!r}; choose another"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"--out must be new or empty, got {out}; choose another directory")
    if not question.strip():
        raise RequestError(f"--question must be words, got {question!r}; leave it out or ask")
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise RequestError(f"--rate must be positive, in Hz, got {rate:g}; correct it")


def _look_at(found: LabelledFiles, rate: float | None, display: Display) -> _Look:
    """Return what the files hold.

    Raises:
        RequestError: If a rate is given that they do not need, or none that they need.
        MediaError: If more than a tenth of them cannot be read.
    """
    is_series = found.kind in ("tables", "arrays")
    if rate is not None and not is_series:
        raise RequestError(
            f"--rate must go with tables or arrays, got {found.kind}, which need none; leave it out"
        )
    total = (2 if is_series else 1) * len(found.files)
    look = _Look(display.bar(f"reading {found.kind}", total=total))
    if found.kind == "tables":
        _look_at_tables(look, found, rate)
    elif found.kind == "arrays":
        _look_at_arrays(look, found, rate)
    elif found.kind == "sounds":
        _look_at_sounds(look, found)
    else:
        _look_at_media(look, found)
    look.bar.close()
    return look


def show_modality(made: Mapping[str, Any]) -> str:
    """Return what was found and written, and what to type next, as lines of text."""
    channels, seconds = made["channels"], made["seconds"]
    lines = [f"{made['name']}: {made['recordings']:,} recordings ({made['kind']})"]
    if channels is not None:
        named = channels if isinstance(channels, int) else f"{len(channels)}: {', '.join(channels)}"
        time = made["decoder"].get("time")
        unit = f" (in {told})" if (told := made["decoder"].get("time_unit")) else ""
        by = f", by the times in column {time!r}{unit}" if time else ""
        lines.append(f"channels: {named}; {made['rate']:g} Hz{by}")
    elif made["rate"]:
        lines.append(f"rate: {made['rate']:g} Hz")
    if seconds:
        shortest, median, longest = (f"{value:.3g} s" for value in seconds)
        lines.append(f"length: {shortest} to {longest}, median {median}")
    counts = ", ".join(f"{answer} {count:,}" for answer, count in made["classes"].items())
    lines.append(f"classes: {counts}")
    if made["with_gaps"]:
        lines.append(f"gaps: values are missing in {made['with_gaps']:,}; the recipe masks them")
    lines += made["notes"]
    if left_out := made["left_out"]:
        more = f", and {len(left_out) - SHOWN:,} more" if len(left_out) > SHOWN else ""
        lines.append(f"left out, as they cannot be read: {len(left_out):,}{more}")
        lines += [f"  {problem}" for problem in left_out[:SHOWN]]
    lines += [f"warning: {warning}" for warning in made["warnings"]]
    lines.append(", ".join(f"{split}: {made['splits'][split]:,}" for split in SHARES))
    names = ", ".join(f"{split}.jsonl" for split in SHARES)
    return "\n".join([*lines, f"{made['out']}: recipe.yaml, {names}", "", "next:",
                      *(f"  {command}" for command in made["next"])])  # fmt: skip


def _check_classes(files: Sequence[LabelledFile]) -> None:
    if len(classes := {file.label for file in files}) < 2:
        raise ManifestError(
            f"labels must be of two classes or more, got {', '.join(classes) or 'none'} alone; add "
            "media of another class"
        )


def _look_at_tables(look: _Look, found: LabelledFiles, rate: float | None) -> None:
    form = _form_of(look, found.files)
    columns = look.each(found.files, lambda data: _columns_of(data, form))
    readable = [file for file in found.files if file.name in columns]
    every = {column: 0 for numeric in columns.values() for column in numeric}
    for numeric in columns.values():
        for column, is_number in numeric.items():
            every[column] += is_number
    time = next((column for column in every if _TIME.fullmatch(column.strip())), None)
    channels = [c for c, n in every.items() if c != time and n and 2 * n >= len(columns)]
    look.leave_out([c for c, n in every.items() if c != time and not n], "they hold no numbers")
    rare = [c for c, n in every.items() if c != time and n and c not in channels]
    look.leave_out(rare, "most files lack them")
    if "header" in form and len(channels) > 1 and _counts(found.files, channels[0], form, columns):
        look.leave_out(channels[:1], "it counts rows or tells times, and has no name to say which")
        del channels[0]
    if not channels:
        raise MediaError(
            f"recordings must have a column of numbers, got {', '.join(every)}; add it"
        )
    options: dict[str, Any] = {"rate": rate or 1.0, "channels": channels, "gaps": "mask", **form}
    if time is not None:
        options |= _times(look, readable, options, time, rate)
    elif rate is None:
        without = " and no names in the first row" if "header" in form else ""
        raise RequestError(
            f"--rate HZ must be given for tables without a column of times, got columns "
            f"{', '.join(list(every)[:SHOWN])}{without}; give it, or name the column time"
        )
    recorded = _AsRecorded.model_validate(options)
    ranges = look.each(found.files, lambda data: _measure(look, recorded.decode(data)))
    varying = [c for i, c in enumerate(channels) if any(varies[i] for varies in ranges.values())]
    if varying:  # what is constant tells of the recording, as a number of its class would
        constant = [column for column in channels if column not in varying]
        look.leave_out(constant, "they are constant in every recording")
        options["channels"] = varying
    else:
        look.warnings.append("no channel varies within a recording; nothing but levels can be told")
    _use_series(look, options, rate)


def _form_of(look: _Look, files: Sequence[LabelledFile]) -> dict[str, Any]:
    """Return how most tables write their text, where that is not the usual way."""
    told = []
    for file in files[:TRIED]:
        try:
            told.append(find_form(file.read()))
        except MediaError:
            continue  # it is told when it is its turn
    form: dict[str, Any] = {}
    if 2 * sum(has_names for has_names, _ in told) < len(told):
        form["header"] = False
        look.notes.append(
            "the first row holds values; columns are called f0, f1, ... in their order"
        )
    signs = Counter(sign for _, sign in told if sign)
    if signs[","] > signs["."]:
        form["decimal"] = ","
        look.notes.append("numbers have decimal commas")
    return form


def _counts(
    files: Sequence[LabelledFile], column: str, form: Mapping[str, Any],
    readable: Mapping[str, object],
) -> bool:  # fmt: skip
    """Return whether a column grows by the same step from row to row, in every file."""
    tables = (read_table(file.read(), **form) for file in files[:TRIED] if file.name in readable)
    columns = [table[column] for table in tables if column in table.column_names]
    numbers = [c.to_numpy() for c in columns if pa.types.is_integer(c.type)
               or pa.types.is_floating(c.type)]  # fmt: skip
    steps = [np.diff(cells) for cells in numbers if len(cells) > 2]
    return bool(steps) and all(
        each.min() > 0 and np.ptp(each) <= JITTER * np.median(each) for each in steps
    )


def _columns_of(data: bytes, form: Mapping[str, Any]) -> dict[str, bool]:
    """Return the columns of a table, and whether each holds numbers."""
    table = read_table(data, **form)
    check_names(table)
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if pa.types.is_string(kind):  # one word among numbers is a fault to be told, not a text
            is_number = any(map(might_be_number, column.drop_null().unique().to_pylist()))
        found[name] = is_number or pa.types.is_boolean(kind)
    return found


def _times(
    look: _Look, files: Sequence[LabelledFile], options: dict[str, Any], time: str,
    rate: float | None,
) -> dict[str, str]:  # fmt: skip
    """Return the options for a column of times; none if it is not even and a rate is given."""
    form = {name: options[name] for name in ("header", "decimal") if name in options}
    tables = (read_table(file.read(), **form) for file in files[:TRIED])
    columns = (table[time].to_pylist() for table in tables if time in table.column_names)
    cell = next((cell for cells in columns for cell in cells if cell is not None), None)
    is_plain = isinstance(cell, int | float)
    by_size = (unit for unit, least in _SINCE_1970 if is_plain and abs(cell or 0) >= least)
    match = _TIME.fullmatch(time.strip())
    told = (match.group(1) or "").lower() if match else ""
    told = told or next(by_size, "")
    recorded = _AsRecorded.model_validate(options | {"time": time, "time_unit": told or "s"})
    rates, reason = [], ""
    for file in files[:TRIED]:
        try:
            rates.append(recorded.decode(file.read()).rate)
        except (MediaError, pa.ArrowException) as error:
            reason = f"{file.name} {error}"
    if 2 * len(rates) < len(files[:TRIED]):
        if rate is None:
            raise MediaError(f"{reason}; or give --rate HZ, where only the times are at fault")
        look.warnings.append(f"column {time!r} is not used: {reason}")
        return {}
    own = float(np.median(rates))
    unit = told or "s"
    if is_plain and not told and rate:
        unit = list(SECONDS)[min(max(round(math.log10(rate / own) / 3), 0), 3)]
    elif is_plain and not told and own < SLOW:
        look.warnings.append(
            f"column {time!r} is taken as seconds, which gives {own:g} Hz; if it has another unit, "
            "give the right rate: --rate HZ"
        )
    return {"time": time} | ({"time_unit": unit} if unit != "s" else {})


def _look_at_arrays(look: _Look, found: LabelledFiles, rate: float | None) -> None:
    if rate is None:
        raise RequestError(
            f"--rate HZ must be given for arrays, got {found.files[0].name}, which holds no times; "
            "give it"
        )
    recorded = _AsRecorded(rate=rate, gaps="mask")
    widths = look.each(found.files, lambda data: recorded.decode(data).values.shape[2])
    width = Counter(widths.values()).most_common(1)[0][0]
    options = {"rate": rate, "channels": width, "gaps": "mask"}
    recorded = _AsRecorded.model_validate(options)
    look.each(found.files, lambda data: _measure(look, recorded.decode(data)))
    _use_series(look, options, rate)


def _measure(look: _Look, series: Series) -> list[bool]:
    """Note the length, rate and gaps of a recording, and return which of its channels vary."""
    values = series.values[0]
    look.lengths.append(len(values) / series.rate)
    look.with_gaps += bool(np.isnan(values).any())
    look.rates.append(series.rate)
    return (np.nanmax(values, axis=0) > np.nanmin(values, axis=0)).tolist()


def _use_series(look: _Look, options: dict[str, Any], rate: float | None) -> None:
    """Choose rate, windows and patches for recordings that have been measured."""
    own = float(np.median(look.rates))
    nearest = max(1, round(own))
    own = nearest if abs(own - nearest) <= 0.005 * own else float(f"{own:.6g}")
    look.rate = options["rate"] = rate or own
    if any(abs(each - look.rate) > RATE_TOLERANCE * look.rate for each in look.rates):
        import_extra("soxr", "sound")  # now and not in the run
        look.warnings.append(
            f"rates from {min(look.rates):g} to {max(look.rates):g} Hz are brought to {look.rate:g}"
        )
    longest = math.ceil(max(look.lengths) * 1000) / 1000
    span = max(WINDOW, SLOW_WINDOW / look.rate)
    if span <= DAY:
        options["seconds"] = min(longest, span)
        if longest > span:
            options["windows"] = math.ceil(longest / span)
    if not look.with_gaps:
        del options["gaps"]
    stride = max(1, round(min(longest, options.get("seconds", longest)) * look.rate / PATCHES))
    look.decoder = {"kind": "series", **options}
    look.channels = channels = options["channels"]
    count = channels if isinstance(channels, int) else len(channels)
    look.encoder = {"kind": "series", "channels": count}
    look.patches = {"length": 2 * stride, "stride": stride}


def _look_at_media(look: _Look, found: LabelledFiles) -> None:
    decoders: dict[str, dict[str, Any]] = {
        "pictures": {"kind": "picture"},
        "clips": {"kind": "clip", "frames": 3},
        "clouds": {"kind": "points"},
    }
    look.decoder, look.encoder = decoders[found.kind], {"kind": "efficientnet-lite0"}
    look.each(found.files, build_decoder(**look.decoder).decode)


def _look_at_sounds(look: _Look, found: LabelledFiles) -> None:
    options = {"rate": SOUND_RATE, "seconds": SOUND_SECONDS}
    decoder = build_decoder("sound", **options, windows=SOUND_WINDOWS)
    soundfile: Any = import_extra("soundfile", "sound")

    def measure(data: bytes) -> None:
        decoder.decode(data)
        about = soundfile.info(io.BytesIO(data))
        look.lengths.append(about.duration)
        look.rates.append(float(about.samplerate))

    look.each(found.files, measure)
    windows = math.ceil(max(look.lengths) / SOUND_SECONDS)
    if windows > SOUND_WINDOWS:
        most = SOUND_WINDOWS * SOUND_SECONDS
        look.warnings.append(f"of sounds longer than {most:g} s only the beginning is read")
    look.rate = float(np.median(look.rates))
    look.decoder = {"kind": "sound", **options, "windows": min(windows, SOUND_WINDOWS)}
    look.encoder = {"kind": "sound-effects"}


def split_without_leaks(
    labels: Mapping[str, str], keys: Mapping[str, Sequence[str]], seed: int
) -> tuple[dict[str, str], list[str]]:
    """Return the split of each sample, and the classes that are too rare to be tested.

    Samples that share a key, directly or through others, are a unit, which stays in one split. Of
    every class 70, 15 and 15 % go to ``train``, ``val`` and ``test``, as far as units allow, and of
    a class of three units or more at least one to each; all units of a rarer class are learnt.

    Args:
        labels: Label of each sample, by its name.
        keys: What it may share with others, by its name.
        seed: Of the order of units of one size.
    """
    parts = _units(keys)
    order = np.random.default_rng(seed).permutation(len(parts))
    parts = sorted((parts[i] for i in order), key=len, reverse=True)
    counts = [Counter(labels[name] for name in part) for part in parts]
    holding = defaultdict(list)
    for index, count in enumerate(counts):
        for label in count:
            holding[label].append(index)
    total = Counter(labels.values())
    have: dict[str, Counter[str]] = {split: Counter() for split in SHARES}
    place: dict[int, str] = {}
    # The rarest first: of the others there is more to choose from.
    for label in sorted(holding, key=lambda each: (len(holding[each]), each)):
        todo = [index for index in holding[label] if index not in place]
        for done, index in enumerate(todo):
            lacking = [split for split in SHARES if not have[split][label]]
            if len(holding[label]) < len(SHARES):
                split = "train"
            elif len(todo) - done <= len(lacking):
                split = lacking[0]
            else:
                split = max(
                    SHARES,
                    key=lambda s: (
                        SHARES[s] * total[label] - have[s][label],
                        SHARES[s] * total.total() - have[s].total(),
                    ),
                )
            place[index] = split
            have[split] += counts[index]
    rare = sorted(label for label, units in holding.items() if len(units) < len(SHARES))
    return {name: place[i] for i, part in enumerate(parts) for name in part}, rare


def _units(keys: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the names that share keys, directly or through others, in an order of their own."""
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    for shared in keys.values():
        for key in shared[1:]:
            above[top(key)] = top(shared[0])
    units = defaultdict(list)
    for name in sorted(keys):
        units[top(keys[name][0])].append(name)
    return sorted(units.values())


def _split(files: Sequence[LabelledFile], look: _Look, seed: int) -> dict[str, str]:
    """Return the split of each file, and warn of what it does to the classes."""
    labels = {file.name: file.label for file in files}
    keys = {
        file.name: [f"content {look.hashes[file.name]}"]
        + ([f"group {file.group}"] if file.group else [])
        for file in files
    }
    splits, rare = split_without_leaks(labels, keys, seed)
    for split in SHARES:
        if split not in splits.values():
            raise ManifestError(
                f"a class must have {len(SHARES)} samples or groups of different content, one a "
                f"split, got fewer in every class ({', '.join(rare[:SHOWN])}) and none for "
                f"{split}; add some"
            )
    if rare:
        look.warnings.append(
            f"learnt and never tested, as there are fewer than {len(SHARES)} samples or groups of "
            f"them: {', '.join(rare)}; add some, or leave the class out"
        )
    there = {(labels[name], split) for name, split in splits.items()}
    for split in SHARES:
        lacking = {label for label in labels.values() if (label, split) not in there} - {*rare}
        if lacking:
            look.warnings.append(
                f"{split} has none of {', '.join(sorted(lacking))}, as groups cannot be parted; "
                "try another --seed, or add groups"
            )
    by_content: dict[str, LabelledFile] = {}
    twins = [(by_content.setdefault(look.hashes[file.name], file), file) for file in files]
    if wrong := [(one, other) for one, other in twins if one.label != other.label]:
        one, other = wrong[0]
        look.warnings.append(
            f"{len(wrong):,} files are identical to one with another label, as {other.name} "
            f"({other.label}) is to {one.name} ({one.label}); correct the labels"
        )
    return splits


def _rows(
    name: str, question: str, files: Sequence[LabelledFile], out: Path
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the rows of all manifests, and the media to be written, by their place in ``out``."""
    here = Path(os.path.abspath(out))
    rows, media = [], {}
    for number, file in enumerate(files, start=1):
        if file.path is None:
            path = f"media/{number:05d}.csv"
            media[path] = file.read()
        else:
            place = Path(os.path.abspath(file.path))
            is_near = place.is_relative_to(here.parent)
            path = Path(os.path.relpath(place, here) if is_near else place).as_posix()
        content = [{"type": name, "path": path}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content},
                    {"role": "assistant", "content": file.label}]  # fmt: skip
        group = {"object": file.group} if file.group else {}
        rows.append({"id": file.name, "messages": messages, **group})
    return rows, media


_ABOUT = {
    "kind": "",
    "rate": "samples per second; other rates are resampled",
    "channels": "what is read of a recording",
    "time": "the column of times",
    "time_unit": "their unit",
    "gaps": "missing values are marked as missing",
    "header": "the first row holds values and no names",
    "decimal": "the sign between units and tenths",
    "seconds": "length of a window",
    "windows": "most windows that are read of a medium",
    "frames": "pictures that are taken of a clip",
    "length": "samples of a patch, which becomes a token",
    "stride": "samples from one patch to the next",
}
_KINDS = {
    "series": "tables, arrays: numbers over time",
    "sound": "WAV, FLAC, Ogg, MP3",
    "picture": "every format of Pillow",
    "clip": "moving pictures",
    "points": "clouds and meshes",
    "sound-effects": "a frozen encoder of sounds; `pathweave fetch` gets its weights",
    "efficientnet-lite0": "a frozen encoder of pictures; `pathweave fetch` gets its weights",
}


def _recipe_text(name: str, source: Path, out: Path, look: _Look, longest: int) -> str:
    """Return the recipe as YAML with a comment on every line."""
    key = _yaml(name)
    lines: list[tuple[str, str]] = [
        (f"name: {key}", "title of the run"),
        ("base: mini", "the small base; for others see docs/running.md"),
        ("modalities:", "what can be perceived"),
        (f"  {key}:", "the new sense"),
    ]
    sections = {"decoder": ("how a file becomes numbers", look.decoder)}
    sections["encoder"] = ("how numbers become features", look.encoder)
    if look.patches:
        sections["patches"] = ("the encoder that the path trains for itself", look.patches)
    for section, (about, options) in sections.items():
        lines.append((f"    {section}:", about))
        for option, value in options.items():
            said = _KINDS.get(str(value), "") if option == "kind" else _ABOUT[option]
            if section == "encoder" and look.patches:
                said = "hands the numbers on to the patches" if option == "kind" else "how many"
            lines.append((f"      {option}: {_yaml(value)}", said))
    training = "{steps: 300, patches_lr: 2.0e-3}" if look.patches else "{steps: 300}"
    most = max(12, longest // 2 + 2)
    lines += [
        (f"    cue: {_yaml(name + ':')}", "words put before the medium"),
        ("    train:", "what is learnt from"),
        ("      qa: {manifest: train.jsonl, balance: 0.5}", "rare answers are drawn more often"),
        ("    test:", "scored by the share of right answers"),
        *(
            (f"      {split}: {{manifest: {split}.jsonl, metric: exact_match, max_tokens: {most}}}",
             about)
            for split, about in (("val", "to choose settings by"), ("test", "to be told, once"))
        ),
        (f"    training: {training}", "steps: how long; more for more data"),
        (f"curriculum: [{key}]", "the order in which senses are learnt"),
        ("training:", "how, if a sense does not say otherwise"),
        ("  connector: true", "the small base has seen nothing: its first sense trains all"),
        ("  batch_size: 16", "samples a step"),
        ("  lr: 2.0e-4", "peak learning rate"),
        ("  projector_lr: 1.0e-3", "that of the layer before the language model"),
    ]  # fmt: skip
    extend = shlex.join(["pathweave", "extend", "RUN", str(out / "recipe.yaml")])
    evolve = shlex.join(["pathweave", "evolve", str(out / "recipe.yaml"), "--out", f"runs/{name}"])
    head = [
        f"# {name}, from {str(source)!a}.",
        f"#   {evolve}",
        "#",
        "# To add this sense to a run that is there, which keeps what it has learnt:",
        f"#   {extend}",
    ]
    body = [f"{text:<50}  # {about}" if about else text for text, about in lines]
    return "\n".join(head + body) + "\n"


def _yaml(value: object) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**9)
    return text.strip()[1:-1]
