"""Survey of labelled files: how they are read, channels, rates, lengths, gaps, faults."""

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pathweave.data.labelled_files import (
    LabelledFile,
    LabelledFiles,
    check_names,
)
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
from pathweave.errors import MediaError, PathWeaveError, RequestError
from pathweave.extras import import_extra
from pathweave.storage.atomic import sha256_bytes

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
class Survey:
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


def survey_files(found: LabelledFiles, rate: float | None, display: Display) -> Survey:
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
    survey = Survey(display.bar(f"reading {found.kind}", total=total))
    if found.kind == "tables":
        _survey_tables(survey, found, rate)
    elif found.kind == "arrays":
        _survey_arrays(survey, found, rate)
    elif found.kind == "sounds":
        _survey_sounds(survey, found)
    else:
        _survey_media(survey, found)
    survey.bar.close()
    return survey


def _survey_tables(survey: Survey, found: LabelledFiles, rate: float | None) -> None:
    form = _form_of(survey, found.files)
    columns = survey.each(found.files, lambda data: _columns_of(data, form))
    readable = [file for file in found.files if file.name in columns]
    every = {column: 0 for numeric in columns.values() for column in numeric}
    for numeric in columns.values():
        for column, is_number in numeric.items():
            every[column] += is_number
    time = next((column for column in every if _TIME.fullmatch(column.strip())), None)
    channels = [c for c, n in every.items() if c != time and n and 2 * n >= len(columns)]
    survey.leave_out([c for c, n in every.items() if c != time and not n], "they hold no numbers")
    rare = [c for c, n in every.items() if c != time and n and c not in channels]
    survey.leave_out(rare, "most files lack them")
    if "header" in form and len(channels) > 1 and _counts(found.files, channels[0], form, columns):
        survey.leave_out(
            channels[:1], "it counts rows or tells times, and has no name to say which"
        )
        del channels[0]
    if not channels:
        raise MediaError(
            f"recordings must have a column of numbers, got {', '.join(every)}; add it"
        )
    options: dict[str, Any] = {"rate": rate or 1.0, "channels": channels, "gaps": "mask", **form}
    if time is not None:
        options |= _times(survey, readable, options, time, rate)
    elif rate is None:
        without = " and no names in the first row" if "header" in form else ""
        raise RequestError(
            f"--rate HZ must be given for tables without a column of times, got columns "
            f"{', '.join(list(every)[:SHOWN])}{without}; give it, or name the column time"
        )
    recorded = _AsRecorded.model_validate(options)
    ranges = survey.each(found.files, lambda data: _measure(survey, recorded.decode(data)))
    varying = [c for i, c in enumerate(channels) if any(varies[i] for varies in ranges.values())]
    if varying:  # what is constant tells of the recording, as a number of its class would
        constant = [column for column in channels if column not in varying]
        survey.leave_out(constant, "they are constant in every recording")
        options["channels"] = varying
    else:
        survey.warnings.append(
            "no channel varies within a recording; nothing but levels can be told"
        )
    _use_series(survey, options, rate)


def _form_of(survey: Survey, files: Sequence[LabelledFile]) -> dict[str, Any]:
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
        survey.notes.append(
            "the first row holds values; columns are called f0, f1, ... in their order"
        )
    signs = Counter(sign for _, sign in told if sign)
    if signs[","] > signs["."]:
        form["decimal"] = ","
        survey.notes.append("numbers have decimal commas")
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
    survey: Survey, files: Sequence[LabelledFile], options: dict[str, Any], time: str,
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
        survey.warnings.append(f"column {time!r} is not used: {reason}")
        return {}
    own = float(np.median(rates))
    unit = told or "s"
    if is_plain and not told and rate:
        unit = list(SECONDS)[min(max(round(math.log10(rate / own) / 3), 0), 3)]
    elif is_plain and not told and own < SLOW:
        survey.warnings.append(
            f"column {time!r} is taken as seconds, which gives {own:g} Hz; if it has another unit, "
            "give the right rate: --rate HZ"
        )
    return {"time": time} | ({"time_unit": unit} if unit != "s" else {})


def _survey_arrays(survey: Survey, found: LabelledFiles, rate: float | None) -> None:
    if rate is None:
        raise RequestError(
            f"--rate HZ must be given for arrays, got {found.files[0].name}, which holds no times; "
            "give it"
        )
    recorded = _AsRecorded(rate=rate, gaps="mask")
    widths = survey.each(found.files, lambda data: recorded.decode(data).values.shape[2])
    width = Counter(widths.values()).most_common(1)[0][0]
    options = {"rate": rate, "channels": width, "gaps": "mask"}
    recorded = _AsRecorded.model_validate(options)
    survey.each(found.files, lambda data: _measure(survey, recorded.decode(data)))
    _use_series(survey, options, rate)


def _measure(survey: Survey, series: Series) -> list[bool]:
    """Note the length, rate and gaps of a recording, and return which of its channels vary."""
    values = series.values[0]
    survey.lengths.append(len(values) / series.rate)
    survey.with_gaps += bool(np.isnan(values).any())
    survey.rates.append(series.rate)
    return (np.nanmax(values, axis=0) > np.nanmin(values, axis=0)).tolist()


def _use_series(survey: Survey, options: dict[str, Any], rate: float | None) -> None:
    """Choose rate, windows and patches for recordings that have been measured."""
    own = float(np.median(survey.rates))
    nearest = max(1, round(own))
    own = nearest if abs(own - nearest) <= 0.005 * own else float(f"{own:.6g}")
    survey.rate = options["rate"] = rate or own
    if any(abs(each - survey.rate) > RATE_TOLERANCE * survey.rate for each in survey.rates):
        import_extra("soxr", "sound")  # now and not in the run
        survey.warnings.append(
            f"rates from {min(survey.rates):g} to {max(survey.rates):g} Hz are brought to "
            f"{survey.rate:g}"
        )
    longest = math.ceil(max(survey.lengths) * 1000) / 1000
    span = max(WINDOW, SLOW_WINDOW / survey.rate)
    if span <= DAY:
        options["seconds"] = min(longest, span)
        if longest > span:
            options["windows"] = math.ceil(longest / span)
    if not survey.with_gaps:
        del options["gaps"]
    stride = max(1, round(min(longest, options.get("seconds", longest)) * survey.rate / PATCHES))
    survey.decoder = {"kind": "series", **options}
    survey.channels = channels = options["channels"]
    count = channels if isinstance(channels, int) else len(channels)
    survey.encoder = {"kind": "series", "channels": count}
    survey.patches = {"length": 2 * stride, "stride": stride}


def _survey_media(survey: Survey, found: LabelledFiles) -> None:
    decoders: dict[str, dict[str, Any]] = {
        "pictures": {"kind": "picture"},
        "clips": {"kind": "clip", "frames": 3},
        "clouds": {"kind": "points"},
    }
    survey.decoder, survey.encoder = decoders[found.kind], {"kind": "efficientnet-lite0"}
    survey.each(found.files, build_decoder(**survey.decoder).decode)


def _survey_sounds(survey: Survey, found: LabelledFiles) -> None:
    options = {"rate": SOUND_RATE, "seconds": SOUND_SECONDS}
    decoder = build_decoder("sound", **options, windows=SOUND_WINDOWS)
    soundfile: Any = import_extra("soundfile", "sound")

    def measure(data: bytes) -> None:
        decoder.decode(data)
        about = soundfile.info(io.BytesIO(data))
        survey.lengths.append(about.duration)
        survey.rates.append(float(about.samplerate))

    survey.each(found.files, measure)
    windows = math.ceil(max(survey.lengths) / SOUND_SECONDS)
    if windows > SOUND_WINDOWS:
        most = SOUND_WINDOWS * SOUND_SECONDS
        survey.warnings.append(f"of sounds longer than {most:g} s only the beginning is read")
    survey.rate = float(np.median(survey.rates))
    survey.decoder = {"kind": "sound", **options, "windows": min(windows, SOUND_WINDOWS)}
    survey.encoder = {"kind": "sound-effects"}
