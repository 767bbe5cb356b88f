"""Shards of prompt embeddings: what a language model reads, written for batches that run elsewhere.

about.json          what they were made with
00000.safetensors   rows of some prompts, by key
00000.jsonl         a line for each: id, shard, key, tokens, references; written when the shard is
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathweave.data.examples import Examples
from pathweave.data.manifest import manifest_sha256
from pathweave.display import Display
from pathweave.errors import RunError
from pathweave.model.pathweave import PathWeave
from pathweave.recipe.schema import Recipe
from pathweave.runs.loading import llm_place, load_run, make_readers
from pathweave.runs.run_directory import RunDirectory, differences
from pathweave.storage.atomic import read_json, sole_writer, write_atomic, write_json
from pathweave.storage.tensors import write_tensors

ABOUT = "about.json"
SHARD_BYTES = 256 * 2**20


def write_token_shards(
    run: Path, manifest: Path, out: Path, path: str | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Write the embeddings of a manifest's prompts; what is there already is kept.

    The language model's layers are not loaded. A shard has at most 256 MiB and one batch more. An
    interruption loses no more than the batch that is worked on.

    Args:
        run: Directory of a run.
        manifest: The manifest.
        out: Where to write.
        path: Read every medium with this path; None reads each with that of its own.
        quiet: Show no progress.

    Returns:
        What was written: ``samples``, ``shards``, ``language_model``, and the ``bad`` samples, a
        line each.

    Raises:
        RunError: If the directory is no run, no sample is usable, or ``out`` holds shards of
            another run or manifest.
        ManifestError: If the manifest cannot be read or names a modality that is not declared.
        DiskError: If ``out`` cannot be written.
    """
    model, recipe = load_run(run, layers=False)
    readers = make_readers(recipe, model.base, RunDirectory(run))
    examples = Examples(manifest, readers, path)
    with sole_writer(out), Display(quiet) as display:
        about = _claim(out, model, recipe, manifest, path)
        done = {line["id"] for line in read_index(out)}
        bar = display.bar("encode", total=len(examples))
        examples.encode(bar.advance)
        examples.drop_bad_samples(1.0, model.misfit)
        bar.close()
        left = [i for i in range(len(examples)) if examples.sample(i).id not in done]
        bar = display.bar("write tokens", total=len(examples), done=len(examples) - len(left))
        shard = _Shard(out)
        try:
            for start in range(0, len(left), recipe.evaluation.batch_size):
                batch = left[start : start + recipe.evaluation.batch_size]
                with torch.no_grad():
                    embedded = model.embed_prompts([examples.prompt(i) for i in batch])
                for i, rows in zip(batch, embedded, strict=True):
                    sample = examples.sample(i)
                    is_answered = any(turn.role == "assistant" for turn in sample.messages)
                    shard.add(sample.id, rows, examples.references(i) if is_answered else [])
                if shard.num_bytes >= SHARD_BYTES:
                    shard.write()
                bar.advance(len(batch))
        finally:  # also where it is stopped
            shard.write()
        bar.close()
    shards = {line["shard"] for line in read_index(out)}
    counts = {"samples": len(examples), "shards": len(shards)}
    return {**counts, "language_model": about["language_model"], "bad": examples.bad}


def read_index(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all shards in a directory.

    Raises:
        RunError: If one is damaged.
    """
    for file in sorted(out.glob("*.jsonl")):
        rule = f"{file} must hold the index of a shard"
        try:
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            if missing := {line["shard"] for line in lines if not (out / line["shard"]).is_file()}:
                raise FileNotFoundError(f"no {missing.pop()}")
            yield from ({**line, "id": line["id"]} for line in lines)
        except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
            raise RunError(f"{rule}, got {error!r}; remove it, to have it made again") from error


class _Shard:
    """The prompts of one file, until they are written."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[str, Tensor] = {}
        self._lines: list[dict[str, Any]] = []
        self.num_bytes = 0

    def add(self, id: str, rows: Tensor, references: list[str]) -> None:
        key = str(len(self._lines))
        self._rows[key] = rows.cpu()
        about = {"key": key, "tokens": len(rows), "references": references}
        self._lines.append({"id": id, **about})
        self.num_bytes += rows.nbytes

    def write(self) -> None:
        if not self._lines:
            return
        number = 1 + max((int(file.stem) for file in self._out.glob("*.jsonl")), default=-1)
        shard = f"{number:05}.safetensors"
        write_tensors(self._out / shard, self._rows)
        text = "".join(json.dumps({**line, "shard": shard}) + "\n" for line in self._lines)
        write_atomic((self._out / shard).with_suffix(".jsonl"), text.encode())
        self._clear()


def _claim(
    out: Path, model: PathWeave, recipe: Recipe, manifest: Path, path: str | None
) -> dict[str, Any]:
    """Write what shards are made with, or refuse a directory of others."""
    about = {
        "language_model": llm_place(recipe),
        "dtype": str(model.llm.dtype).removeprefix("torch."),
        "base": model.base.fingerprint(),
        "paths": {each.spec.name: each.content_hash() for each in model.paths},
        "manifest": manifest_sha256(manifest),
        "path": path,
    }
    file = out / ABOUT
    if file.exists():
        rule = f"{file} must say what the shards beside it were made with"
        before = read_json(file, rule, "choose another --out", RunError)
        # A directory may have moved; it is the fingerprint that tells language models apart.
        if found := differences({**before, "language_model": about["language_model"]}, about):
            raise RunError(
                f"{out} must hold shards of this run and manifest, got others "
                f"({', '.join(found[:3])}); choose another --out, or remove it"
            )
    write_json(file, about)
    return about
