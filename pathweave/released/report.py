"""What became of every key of the imported files."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pathweave.nn.projector import PROJECTOR_SITE
from pathweave.released.checkpoint import Checkpoint
from pathweave.released.importer import Imported
from pathweave.released.layout import Role
from pathweave.released.projector import retrained

MEANING = {
    Role.CONNECTOR: "Q-Former and projector, the same in all files",
    Role.PATH: "what the stage trained: its path",
    Role.PREDECESSOR: "adapters of earlier stages, the same as in their files",
    Role.ALIAS: "repeats an in-adapter; dropped",
    Role.FUTURE: "adapters of later stages, never trained; dropped",
    Role.NO_EFFECT: "not used by the released code at this stage; dropped",
    Role.BUFFER: "constants; dropped",
    Role.OTHER: "encoder, language model or pretraining heads; not part of a connector",
}


@dataclass(frozen=True)
class FileReport:
    """One file.

    Attributes:
        file: Its name.
        path: Name of its path.
        position: Position among the stages with adapters; None without.
        keys: Every key of the file by role.
        beside: Entries of the file beside the model, which were not read.
    """

    file: str
    path: str
    position: int | None
    keys: dict[str, list[str]]
    beside: list[str]


@dataclass(frozen=True)
class ImportReport:
    """All files, the paths made of them, and what a reader should know.

    Attributes:
        files: The files in the order of their stages.
        parameters: Parameters of each path, by kind.
        quirks: Whether they were read as files of the released code.
        base_fingerprint: Base that the paths are bound to.
        notes: What is out of the ordinary.
    """

    files: list[FileReport]
    parameters: dict[str, dict[str, int]]
    quirks: bool
    base_fingerprint: str
    notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def make_report(imported: Imported, base_fingerprint: str) -> ImportReport:
    """Return the report of an import."""
    return ImportReport(
        files=[
            _file(c, before if before and before.stage.position is not None else None)
            for before, c in zip([None, *imported.checkpoints], imported.checkpoints, strict=False)
        ],
        parameters={path.spec.name: path.count() for path in imported.paths},
        quirks=any(c.stage.quirks for c in imported.checkpoints if c.stage.position),
        base_fingerprint=base_fingerprint,
        notes=_notes(imported),
    )


def _file(checkpoint: Checkpoint, before: Checkpoint | None) -> FileReport:
    """Return the report of a file, given that of the stage before."""
    keys = {role: checkpoint.keys(role) for role in Role}
    if before is not None:
        places = range(before.position + 1)
        lists = [[c.adapter(PROJECTOR_SITE, i) for i in places] for c in (checkpoint, before)]
        for index in retrained(*lists):
            start = checkpoint.stage.key(f"llmProj_adapter_list.{index}.")
            again = [key for key in keys[Role.PREDECESSOR] if key.startswith(start)]
            keys[Role.PREDECESSOR] = [k for k in keys[Role.PREDECESSOR] if k not in again]
            keys[Role.PATH] += again
    return FileReport(
        file=checkpoint.file.name,
        path=checkpoint.name,
        position=checkpoint.stage.position,
        keys={role.value: names for role, names in keys.items() if names},
        beside=list(checkpoint.beside),
    )


def _notes(imported: Imported) -> list[str]:
    notes = []
    for checkpoint in imported.checkpoints:
        delta = imported.deltas.get(checkpoint.name)
        if checkpoint.stage.has_value_defect:
            notes.append(
                f"{checkpoint.name}: value experts have no effect in cross-attention and use the "
                "keys' in-adapters in self-attention, as in the released code"
            )
        for index in checkpoint.stage.projector_skips:
            notes.append(f"{checkpoint.name}: adapter {index} is left out at the projector")
        if delta is not None and len(delta.terms) > 1:
            terms = " ".join(f"{'+' if sign > 0 else '-'}a{index}" for sign, index in delta.terms)
            notes.append(
                f"{checkpoint.name}: its stage sums other adapters at the projector than planned, "
                f"so the adapter of its path there is {terms} (rank {delta.rank})"
            )
    return notes


def show_report(report: ImportReport, console: Console) -> None:
    """Print the number of keys of each role per file, the size of the paths, and the notes."""
    seen = [role for role in Role if any(role.value in file.keys for file in report.files)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("keys")
    for file in report.files:
        table.add_column(file.path, justify="right", overflow="fold")
    for role in seen:
        counts = [len(file.keys.get(role.value, ())) for file in report.files]
        table.add_row(role.value, *map(str, counts))
    totals = [sum(len(keys) for keys in file.keys.values()) for file in report.files]
    table.add_row("all", *map(str, totals), end_section=True)
    sizes = [sum(report.parameters[file.path].values()) for file in report.files]
    table.add_row("parameters", *[f"{size:,}" for size in sizes])
    console.print(table)
    for role in seen:
        console.print(f"{role.value}: {MEANING[role]}")
    for note in report.notes:
        console.print(f"note: {note}")
