"""Reads clouds of points that stand in an annotation file: a pickle of two lists."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.data.decode.points import check_points
from pathweave.datasets.arrays import load_arrays
from pathweave.datasets.records import Record, open_annotations
from pathweave.errors import ManifestError, MediaError


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
    clouds, labels = loaded
    for number, (name, cloud, label) in enumerate(zip(ids, clouds, labels, strict=True), start=1):
        place = f"{file}, row {number}"
        try:
            check_points(cloud, name)
            yield Record(place, {"sample_id": name, "label": names[_index(label)], "points": cloud})
        except MediaError as error:
            # Without its remedy, which is one for files.
            yield Record(place, {}, str(error).rsplit("; ", 1)[0])
        except (TypeError, ValueError, IndexError, OverflowError):
            problem = f"a label must be a whole number below {len(names)}, got {label!r:.40}"
            yield Record(place, {}, problem)


def _index(label: Any) -> int:  # noqa: ANN401
    number = label.item() if isinstance(label, np.ndarray) else label
    index = int(number)
    if index < 0 or index != number:
        raise ValueError("no whole number")
    return index


def _lines(file: Path) -> list[str]:
    with open_annotations(file) as raw:
        lines = raw.read().decode("utf-8-sig", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
