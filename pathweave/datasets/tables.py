"""Records by one of their fields, for other records to refer to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathweave.datasets.declaration import Layout
from pathweave.datasets.entry import Entry
from pathweave.datasets.records import Record, read_records
from pathweave.errors import ManifestError


@dataclass
class Table:
    """Records by one of their fields.

    Args:
        records: The records that one can refer to.
        flaws: The others, with what is wrong with them.
    """

    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    flaws: list[Entry] = field(default_factory=list)


def read_table(file: Path, key: str, list_key: str | None = None) -> Table:
    """Return the records of a CSV or JSON file by one of their fields.

    Records without the field are among its flaws, as are two with the same key and other values.

    Raises:
        ManifestError: If the file cannot be read, or no record of it can be used.
    """
    layout = Layout(format="csv" if file.suffix == ".csv" else "json", list=list_key)
    table, unclear = Table(), set()
    for record in read_records(file, layout, lambda _: None):
        if problem := record.problem or _without(key, record):
            table.flaws.append(Entry(record.place, flaw=problem))
            continue
        name = str(record.values[key])
        if table.records.setdefault(name, record.values) != record.values:
            unclear.add(name)
            flaw = f"{key!r} must be unique, got {name!r:.80} before with other values"
            table.flaws.append(Entry(record.place, flaw=flaw))
    for name in unclear:
        del table.records[name]
    if table.flaws and not table.records:
        first = table.flaws[0]
        raise ManifestError(f"{first.place}: {first.flaw}; download the file again")
    return table


def _without(key: str, record: Record) -> str:
    if key in record.values:
        return ""
    return f"a record must have the field {key!r}, got {', '.join(record.values)[:120]}"
