"""Recordings of sensors: tables and arrays of numbers over time become windows at one rate."""

import csv
import io
import re
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Float
from pydantic import Field

from pathweave.decoders.array import MAGIC, read_npy
from pathweave.decoders.decoder import Decoder
from pathweave.encoders.media import Series
from pathweave.errors import MediaError
from pathweave.extras import import_extra

BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = ",;\t|"
SOUNDS = (b"RIFF", b"fLaC", b"OggS", b"RF64", b"FORM", b"caff")
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# Steps of clocks jitter, and are rounded when they are written.
JITTER = 0.25  # of a step
MOST_MISSING = 100
LARGEST = float(np.finfo(np.float32).max)
RATE_TOLERANCE = 0.01  # of the rate that is wanted, within which nothing is resampled
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
_LOOKED_AT = 1 << 16  # bytes that show how text is written


class Recording(Decoder):
    r"""Decodes CSV, TSV, Parquet, ``.npy`` or a sound to windows of numbers, a channel a column.

    Amplitudes keep their units: nothing is scaled. A value that is not there is NaN.

    Args:
        channels: Names of the columns to read, in order, whatever their order in the file; or how
            many there must be, for files without names. None reads all columns but that of time.
        rate: Samples per second of the result, in Hz; files of another rate are resampled.
        file_rate: The rate of files that do not say it: arrays, and tables without ``time``. None
            is ``rate``.
        time: The column that holds the time of each row, evenly spaced; its rate is the file's.
        time_unit: Unit of times that are plain numbers.
        seconds: Length of a window; None takes a recording as one.
        hop: Seconds from the beginning of a window to that of the next; None is ``seconds``.
        windows: Most windows to return. A recording that fills fewer gives only those.
        gaps: What becomes of missing values and of missing rows: an error, or NaN.
        decimal: Sign between units and tenths, in text.
        header: Whether text has the names of its columns in its first row.

    Example:
        >>> text = b"x,y\n1,10\n2,20\n3,30\n"
        >>> Recording(channels=("y",), rate=50.0)(text, "a.csv").values.tolist()
        [[[10.0], [20.0], [30.0]]]
    """

    noun = "recording (CSV, TSV, Parquet, .npy or a sound)"
    channels: tuple[str, ...] | int | None = None
    rate: float = Field(gt=0, allow_inf_nan=False)
    file_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    time: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    seconds: float | None = Field(default=None, gt=0, le=86_400)
    hop: float | None = Field(default=None, gt=0)
    windows: int = Field(default=1, ge=1)
    gaps: Literal["refuse", "mask"] = "refuse"
    decimal: Literal[".", ","] = "."
    header: bool = True

    @property
    def fingerprint(self) -> str:
        """Return the kind and every setting that changes the output."""
        return f"recording-1 {self.model_dump_json(exclude_defaults=True)}"

    def decode(self, data: bytes) -> Series:
        """Decode ``data``.

        Raises:
            MediaError: If a channel is missing or holds no number, values are missing though gaps
                are refused, or times are not evenly spaced.
            PathWeaveError: If soundfile or soxr is needed and not installed.
        """
        values, rate = self._whole(data)
        return Series(self._cut(_resample(values, rate, self.rate)), self.rate)

    def _whole(self, data: bytes) -> tuple[Float[np.ndarray, "time channels"], float]:
        """Return the numbers of the channels, checked, and the rate at which they were recorded."""
        values, rate = self._read(data)
        if not len(values):
            raise MediaError("must have a row of numbers, got none; record or export again")
        too_large = np.abs(values) > LARGEST
        if too_large.any():
            row, channel = np.argwhere(too_large)[0]
            found = values[row, channel]
            raise MediaError(
                f"must hold finite numbers of at most {LARGEST:.2g}, got "
                f"{'infinity' if np.isinf(found) else format(found, 'g')} in row {row + 1}; leave "
                "the row out, or empty its cell"
            )
        missing = np.isnan(values)
        if missing.all(0).any():
            raise MediaError(
                f"must hold a number in every channel, got none in channel "
                f"{1 + int(missing.all(0).argmax())}; leave the channel out of `channels`"
            )
        if missing.any() and self.gaps == "refuse":
            raise MediaError(
                f"must hold every value, got {int(missing.sum()):,} missing, the first in "
                f"row {1 + int(missing.any(1).argmax())}; fill them in, or set gaps: mask"
            )
        return values, rate

    def _packed(self, value: Any, rate: int | float | None) -> bytes:  # noqa: ANN401
        if rate is not None and rate != (self.file_rate or self.rate):
            raise MediaError(
                f"must have the rate of the decoder, {self.file_rate or self.rate:g} Hz, got "
                f"{rate:g}; resample the array first"
            )
        return super()._packed(value, rate)

    def _read(self, data: bytes) -> tuple[Float[np.ndarray, "time channels"], float]:
        """Return the numbers of the channels and their rate."""
        rate = self.file_rate or self.rate
        if data.startswith(b"PAR1") or not (data.startswith(MAGIC) or data[:4] in SOUNDS):
            return self._of_table(read_table(data, self.header, self.decimal), rate)
        if data.startswith(MAGIC):
            values = read_npy(data).astype(np.float64)
            values = values[:, None] if values.ndim == 1 else values
        else:
            soundfile = import_extra("soundfile", "sound")
            values, rate = soundfile.read(io.BytesIO(data), always_2d=True)
        if values.ndim != 2:
            raise MediaError(
                f"must have the shape [time, channels] or [time], got {list(values.shape)}; "
                "save one recording a file"
            )
        wanted = self.channels if isinstance(self.channels, int) else len(self.channels or ())
        if wanted and values.shape[1] != wanted:
            raise MediaError(
                f"must have {wanted} channels, got {values.shape[1]} (shape "
                f"{list(values.shape)}); its axes are time and channels, in this order"
            )
        return values, float(rate)

    def _of_table(
        self, table: pa.Table, rate: float
    ) -> tuple[Float[np.ndarray, "time channels"], float]:
        """Return the numbers of the channels of a table and their rate, missing rows put in."""
        columns = table.column_names
        if isinstance(self.channels, tuple):
            wanted = list(self.channels)
        else:
            wanted = [column for column in columns if column != self.time]
            if "" in wanted:
                raise MediaError(
                    f"must have a name for every column, got none for column "
                    f"{1 + columns.index('')}; name those to read in `channels`"
                )
        needed = [*wanted, *([self.time] if self.time else [])]
        for column in needed:
            if (count := columns.count(column)) != 1:
                found = "no such column" if not count else f"{count} of that name"
                raise MediaError(
                    f"must have one column {column!r}, got {found} among "
                    f"{', '.join(columns[:20])}; correct the file, or the names in the recipe"
                )
        if isinstance(self.channels, int) and len(wanted) != self.channels:
            raise MediaError(
                f"must have {self.channels} channels, got {', '.join(wanted)}; name those "
                "to read in `channels`"
            )
        values = np.stack([_numbers(table[c], c) for c in wanted], axis=1)
        if self.time is None:
            return values, rate
        return self._placed(values, table[self.time])

    @np.errstate(over="ignore", invalid="ignore")  # steps that are not finite are not even
    def _placed(
        self, values: Float[np.ndarray, "rows channels"], times: pa.ChunkedArray
    ) -> tuple[Float[np.ndarray, "time channels"], float]:
        """Return the rows with those that are missing as NaN, and their rate, told by the times."""
        if pa.types.is_temporal(times.type):
            seconds = times.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy() * 1e-9
        else:
            seconds = _numbers(times, str(self.time)) * SECONDS[self.time_unit]
        if len(seconds) < 2 or not np.isfinite(seconds).all():
            found = (
                "a time that is missing or infinite" if len(seconds) > 1 else f"{len(seconds)} rows"
            )
            raise MediaError(
                f"must have two rows or more, each with its time, got {found}; correct it, "
                "or leave out `time` and give file_rate"
            )
        steps = np.diff(seconds)
        step = float(np.sort(steps)[(len(steps) - 1) // 2])  # the median, one of the steps
        if step <= 0 or steps.min() <= 0:
            raise MediaError(
                f"must have times that grow from row to row, got {steps.min():g} s after "
                f"row {1 + int(steps.argmin())}; sort the rows, and leave one of each time"
            )
        counts = np.round(steps / step)
        places = np.concatenate([[0], counts.cumsum()])
        step = (seconds[-1] - seconds[0]) / max(places[-1], 1)
        drift = np.abs(seconds - seconds[0] - places * step).max()
        jitter = np.abs(steps - counts * step).max()
        if counts.min() < 1 or not (jitter <= JITTER * step and drift <= step / 2):
            raise MediaError(
                f"must have evenly spaced times, got steps from {steps.min():g} to "
                f"{steps.max():g} s; resample it first, or leave out `time` and give file_rate"
            )
        if places[-1] >= MOST_MISSING * len(values):
            raise MediaError(
                f"must hold a row for every {MOST_MISSING}th step at least, got "
                f"{len(values):,} rows for {places[-1] + 1:.6g}; cut it where it pauses"
            )
        rows = places.astype(np.int64)
        placed = np.full((rows[-1] + 1, values.shape[1]), np.nan)
        placed[rows] = values
        return placed, float(1 / step)

    def _cut(
        self, values: Float[np.ndarray, "whole channels"]
    ) -> Float[np.ndarray, "windows time channels"]:
        length = round((self.seconds or 0) * self.rate) or len(values)
        hop = max(1, round((self.hop or 0) * self.rate)) if self.hop else length
        starts = range(0, max(1, len(values) - length + hop), hop)[: self.windows]
        windows = [values[start : start + length] for start in starts]
        longest = len(windows[0])  # a recording shorter than a window keeps its own length
        padded = [
            np.pad(window, ((0, longest - len(window)), (0, 0)), constant_values=np.nan)
            for window in windows
        ]
        return np.stack(padded).astype(np.float32)


def read_table(data: bytes, header: bool = True, decimal: str = ".") -> pa.Table:
    """Return the columns of CSV, TSV or Parquet; the separator of text is found in its first row.

    Args:
        data: The file.
        header: Whether text has the names of its columns in its first row.
        decimal: Sign between units and tenths, in text.

    Raises:
        MediaError: If text begins with numbers in place of names, or is not UTF-8.
        Exception: Whatever pyarrow makes of bytes that are no table.
    """
    if data.startswith(b"PAR1"):
        return pq.read_table(io.BytesIO(data))
    text = data.removeprefix(BOM)
    line = text.split(b"\n", 1)[0]
    try:
        first = line.decode("utf-8").strip("\r")
    except UnicodeDecodeError as error:
        if b"\0" in line and not line.startswith(UTF_16):
            raise  # no text at all
        raise MediaError(
            f"must be text in UTF-8, got byte {error.object[error.start]:#x} in its first row; "
            "convert it to UTF-8"
        ) from error
    separator = _separator(first)
    if header and first and all(map(might_be_number, first.split(separator))):
        raise MediaError(
            f"must have the names of its columns in its first row, got {first!r}; add them, or "
            "set header: false"
        )
    return pa_csv.read_csv(
        io.BytesIO(text),
        pa_csv.ReadOptions(autogenerate_column_names=not header),
        pa_csv.ParseOptions(delimiter=separator),
        pa_csv.ConvertOptions(decimal_point=decimal),
    )


def find_form(data: bytes) -> tuple[bool, str | None]:
    """Return whether a table has a row of names, and its decimal sign; None if no cell tells it.

    A first row of numbers and dates is none of names, but for 0, 1, 2 and so on, which programs
    write as names. Commas are decimal signs where they separate nothing and no cell has a point.
    """
    if data.startswith(b"PAR1"):
        return True, None
    text = data[:_LOOKED_AT].removeprefix(BOM).decode("utf-8", "replace")
    lines = [line for line in text.splitlines()[: -1 if len(data) > _LOOKED_AT else None] if line]
    if not lines:
        return True, None
    separator = _separator(lines[0])
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    told = [cell for cell in rows[0] if cell]
    are_values = all(might_be_number(cell) or _DATE.fullmatch(cell) for cell in told)
    has_names = not told or not are_values or told == [str(n) for n in range(len(told))]
    cells = [cell for row in rows for cell in row]
    commas = any(map(_DECIMAL_COMMA.fullmatch, cells))
    points = any("." in cell and _is_number(cell) for cell in cells)
    return has_names, "," if commas and not points else "." if points else None


def _separator(first: str) -> str:
    """Return what separates the cells of a first row; in ``1,5;2,5`` commas are decimal signs."""
    for separator in SEPARATORS.replace(",", ""):
        cells = [cell.strip(' "') for cell in first.split(separator)]
        if len(cells) > 1 and all(not cell or might_be_number(cell) for cell in cells):
            return separator
    return max(SEPARATORS, key=first.count)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def might_be_number(text: str) -> bool:
    """Return whether a cell holds a number, also one with a decimal comma."""
    return _is_number(text) or _DECIMAL_COMMA.fullmatch(text.strip()) is not None


def _numbers(column: pa.ChunkedArray, title: str) -> Float[np.ndarray, " time"]:
    """Return a column as numbers, NaN where a cell is empty."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.float64()).to_numpy().astype(np.float64)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    cells = [cell for cell in map(str, column.drop_null().to_pylist()) if cell]
    found = next((cell for cell in cells if not _is_number(cell)), "")
    remedy = "correct the cell, or leave the column out of `channels`"
    if _DECIMAL_COMMA.fullmatch(found):
        remedy = "set decimal: ','"
    elif not found:
        found, remedy = next((cell for cell in cells if "." in cell), ""), "set decimal: '.'"
    raise MediaError(
        f"must hold numbers in column {title!r}, got {found[:40]!r} ({kind}); {remedy}"
    )


def _resample(
    values: Float[np.ndarray, "before channels"], rate: float, wanted: float
) -> Float[np.ndarray, "time channels"]:
    """Return the values at another rate; what lies nearest to a missing value is missing."""
    if abs(rate - wanted) <= RATE_TOLERANCE * wanted:
        return values
    missing = np.isnan(values)
    rows = np.arange(len(values))
    filled = [
        np.interp(rows, rows[there], channel[there]) if (there := ~gone).any() else channel
        for channel, gone in zip(values.T, missing.T, strict=True)
    ]
    soxr = import_extra("soxr", "sound")
    fresh = soxr.resample(np.stack(filled, axis=1), rate, wanted)
    nearest = np.round(np.arange(len(fresh)) * rate / wanted).astype(np.int64)
    fresh[missing[nearest.clip(max=len(values) - 1)]] = np.nan
    return fresh
