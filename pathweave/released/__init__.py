"""Checkpoints in the layouts in which they are published, read into paths and written back.

A file of one modality holds a Q-Former, its query tokens, an input norm and a projector:
X-InstructBLIP's under ``{m}_Qformer.bert``..., BLIP-2's (LAVIS) under ``Qformer.bert``.... A stage
file of PathWeave holds adapters besides: at every site a list of those of all stages, the
in-adapters that the stage trained, and its gates. What a path does inside a language model is
written as an adapter of peft.
"""

from pathweave.released.exporter import export_directory
from pathweave.released.importer import Imported, import_files
from pathweave.released.peft_adapter import export_lora
from pathweave.released.write import UNBOUND, bind, write_import

__all__ = [
    "UNBOUND",
    "Imported",
    "bind",
    "export_directory",
    "export_lora",
    "import_files",
    "write_import",
]
