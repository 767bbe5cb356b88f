"""Clouds of points in a Python pickle, read without running anything that the pickle asks for.

A pickle may name any function and have it called on loading. Here four names are known, each stands
for a small class of this file that does nothing but keep numbers, and every other name is refused;
NumPy's own reconstruction is not used either, since it trusts what it is given.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from pathweave.datasets.records import Record, open_annotations
from pathweave.decoders.points import check_points
from pathweave.errors import ManifestError, MediaError

_NUMBERS = "biuf"


class _Type:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: object, *_: object) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in _NUMBERS:
            raise pickle.UnpicklingError(f"an array of {code!r} and not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``, made by ``_reconstruct`` and then given its state."""

    values: np.ndarray | None = None

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, data = state
        self.fill(data, kind, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Any) -> "_Array":  # noqa: ANN401
        # A file may give anything in their place, of which NumPy makes an error.
        self.values = np.frombuffer(data, dtype=kind.dtype).reshape(shape, order=order)
        return self


def _from_buffer(*state: Any) -> _Array:  # noqa: ANN401
    """Stand for ``numpy._core.numeric._frombuffer``."""
    return _Array().fill(*state)


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return _KNOWN[module, name]


def load_arrays(file: io.BufferedIOBase, name: str) -> Any:  # noqa: ANN401
    """Return what a pickle holds: lists, tuples, numbers, texts and arrays of numbers.

    Nothing is imported and nothing is called, whatever the file asks for. The arrays are views of
    the bytes read, so memory is the size of the file.

    Args:
        file: The pickle, opened in binary mode.
        name: Its name, for messages.

    Raises:
        ManifestError: If the pickle is damaged or asks for anything but arrays.

    Example:
        >>> data = pickle.dumps([np.arange(3), "a"])
        >>> load_arrays(io.BytesIO(data), "a.dat")
        [array([0, 1, 2]), 'a']
    """
    try:
        _check_memo(file)
        # Pickles of Python 2 hold texts in this encoding.
        return _unwrap(_Unpickler(file, encoding="latin1").load())
    except Exception as error:  # Broken pickles let errors of every kind escape.
        raise ManifestError(
            f"{name} must be a pickle of lists and arrays of numbers, got {error}; nothing of it "
            "was run: download it from its publisher again, and distrust it"
        ) from error


def _check_memo(file: io.BufferedIOBase) -> None:
    """Refuse a pickle that puts a value at a place far beyond those used: Python makes them all."""
    for number, (step, place, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
        if step.name.endswith("PUT") and place is not None and place > number:
            raise pickle.UnpicklingError(f"room for {place:,} values in step {number}")
    file.seek(0)


def _unwrap(value: object) -> Any:  # noqa: ANN401
    if isinstance(value, _Array):
        if value.values is None:
            raise pickle.UnpicklingError("an array without values")
        return value.values
    if isinstance(value, list | tuple):
        return type(value)(_unwrap(element) for element in value)
    if value is not None and not isinstance(value, str | int | float):
        raise pickle.UnpicklingError(f"a {type(value).__name__}")
    return value


def read_points(file: Path, names_file: Path, ids_file: Path) -> Iterator[Record]:
    """Yield ``sample_id``, ``label`` and ``points`` of each cloud in a pickle of two lists.

    Args:
        file: The pickle: a list of arrays and a list of numbers of classes.
        names_file: The names of the classes, one a line.
        ids_file: The ids of the clouds, one a line.

    Raises:
        ManifestError: If a file is missing, or the pickle is not one of two such lists.
    """
    names, ids = _lines(names_file), _lines(ids_file)
    with open_annotations(file) as raw:
        loaded = load_arrays(raw, str(file))
    lists = loaded if isinstance(loaded, list | tuple) else []
    lengths = [len(part) if isinstance(part, list) else None for part in lists]
    if lengths != [len(ids)] * 2:
        raise ManifestError(
            f"{file} must hold a list of points and a list of labels for the {len(ids)} ids of "
            f"{ids_file.name}, got lists of {lengths}; download the files of the same split"
        )
    classes = dict(enumerate(names))
    for number, (name, cloud, label) in enumerate(zip(ids, *loaded, strict=True), start=1):
        record = Record(f"{file}, row {number}")
        try:
            check_points(cloud)
            known = classes[label.item() if isinstance(label, np.ndarray) else label]
            record.values = {"sample_id": name, "label": known, "points": cloud}
        except MediaError as error:
            # Without its remedy, which is one for files.
            record = record.fail(f"{name} {error}".rsplit("; ", 1)[0])
        except (KeyError, TypeError, ValueError):
            rule = f"a label must be a whole number below {len(names)}"
            record = record.fail(f"{rule}, got {label!r:.40}")
        yield record


def _lines(file: Path) -> list[str]:
    with open_annotations(file) as raw:
        lines = raw.read().decode("utf-8-sig", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
