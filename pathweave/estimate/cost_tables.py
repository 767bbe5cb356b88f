"""An estimate as tables for the terminal, and as plain values for JSON."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from rich.box import SIMPLE_HEAD

from pathweave.display import WholeTable
from pathweave.estimate.costs import Estimate, Memory, StageCost

GIGA, MEGA, KILO = 1e9, 1e6, 1e3
FLOAT32 = 4
NONE = "-"
STAGES = 5  # in a table
Rows = dict[str, Callable[[StageCost], str]]


def as_json(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as plain values, with its sums; memory in bytes."""
    plain = asdict(estimate)
    for values, stage in zip(plain["stages"], estimate.stages, strict=True):
        values["reduction"] = stage.reduction
        values["load"]["sequence"] = stage.load.sequence
        for part in ("trained", "training", "inference", "step", "answer"):
            if values[part] is not None:
                values[part]["total"] = getattr(stage, part).total
    return plain


def tables(estimate: Estimate) -> list[WholeTable]:
    """Return one table a question (parameters, memory, operations, growth), for 80 columns."""
    starts = range(0, len(estimate.stages), STAGES)
    parts = [replace(estimate, stages=estimate.stages[i : i + STAGES]) for i in starts]
    by_stage = (parameter_table, memory_table, operation_table)
    return [make(part) for make in by_stage for part in parts] + [growth_table(estimate)]


def heading(estimate: Estimate) -> str:
    """Return what is estimated."""
    return (
        f"{estimate.recipe}: base {estimate.base}\n"
        f"language model {estimate.llm_parameters:,} parameters, "
        f"Q-Former and projector {estimate.connector_parameters:,}"
    )


def parameter_table(estimate: Estimate) -> WholeTable:
    """Return what each stage trains, by kind, against full tuning."""
    rows: Rows = {
        "adapters": lambda s: f"{s.trained.adapters:,}",
        "in-adapters": lambda s: f"{s.trained.in_adapters:,}",
        "gates and noise": lambda s: f"{s.trained.gates:,}",
        "projector adapter": lambda s: f"{s.trained.projector_adapter:,}",
        "query tokens": lambda s: f"{s.trained.queries:,}",
        "input norm": lambda s: f"{s.trained.input_norm:,}",
        "input projection": lambda s: f"{s.trained.input_projection:,}",
    }
    others: Rows = {
        "llm adapters": lambda s: f"{s.trained.llm_adapters:,}",
        "positions": lambda s: f"{s.trained.positions:,}",
        "patch encoder": lambda s: f"{s.trained.patches:,}",
        "connector itself": lambda s: f"{s.trained.connector:,}",
        "low-rank update": lambda s: f"{s.trained.low_rank:,}",
        "earlier paths": lambda s: f"{s.trained.earlier:,}",
    }
    rows |= {k: v for k, v in others.items() if any(v(s) != "0" for s in estimate.stages)}
    rows |= {
        "total": lambda s: f"{s.trained.total:,}",
        "full tuning": lambda s: f"{s.full_tuning:,}",
        "reduction": lambda s: f"{s.reduction:.2%}" if s.training else NONE,
    }
    caption = (
        "full tuning: Q-Former, projector, and the stage's query tokens, input norm and input "
        "projection; reduction: 1 - total / full tuning; -: the base was pretrained with it"
    )
    return _by_stage("Trained parameters", estimate, rows, caption)


def memory_table(estimate: Estimate) -> WholeTable:
    """Return the memory of training and of answering, and the cached features."""
    rows: Rows = {
        "samples at once": lambda s: f"{s.batch_size}",
        "language model": lambda s: _giga(s.inference.llm),
        "encoder": lambda s: _giga(s.inference.encoder),
        "connector, paths": lambda s: _giga(s.inference.connector),
        "gradients": lambda s: _memory(s.training, "gradients"),
        "AdamW's moments": lambda s: _memory(s.training, "optimizer"),
        "activations": lambda s: _memory(s.training, "activations"),
        "method's copies": lambda s: _memory(s.training, "copies"),
        "training": lambda s: _memory(s.training, "total"),
        "keys and values": lambda s: _giga(s.inference.keys_and_values),
        "answering": lambda s: _giga(s.inference.total),
        "features, kB each": lambda s: f"{s.feature_bytes / KILO:,.1f}",
    }
    caption = (
        "training: all rows above it; answering: weights, keys and values; the language model in "
        "bfloat16, gradients and moments in float32; features: cached on disk"
    )
    return _by_stage("Memory, GB", estimate, rows, caption)


def operation_table(estimate: Estimate) -> WholeTable:
    """Return the operations of training on a sample and of answering one."""
    rows: Rows = {
        "encoder, once": lambda s: _giga(s.answer.encoder),
        "train: connector": lambda s: _giga(s.step.connector) if s.step else NONE,
        "train: llm": lambda s: _giga(s.step.llm) if s.step else NONE,
        "train: all": lambda s: _giga(s.step.total - s.step.encoder) if s.step else NONE,
        "answer: connector": lambda s: _giga(s.answer.connector),
        "answer: llm, prompt": lambda s: _giga(s.answer.llm),
        "answer: llm, tokens": lambda s: _giga(s.answer.decoding),
        "answer: all": lambda s: _giga(s.answer.total),
    }
    load = estimate.stages[-1].load
    caption = (
        f"{load.text} tokens of question, {load.answer} of answer; matrix products alone; train: "
        "forward and backward, without gradients of frozen weights; features are cached, so an "
        "encoder runs once a sample, not once an epoch"
    )
    return _by_stage("Operations a sample, 10^9", estimate, rows, caption)


def growth_table(estimate: Estimate) -> WholeTable:
    """Return what a path costs with more and more predecessors."""
    table = WholeTable(
        title="A path and its predecessors",
        caption=f"every path of the shape of {estimate.stages[-1].label}'s, in float32; "
        "relative: operations of the connector, forward, against a path without adapters",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("paths")
    headings = ("in-adapters", "gates", "newest path", "all paths", "all, MB", "relative")
    for name in headings:
        table.add_column(name, justify="right")
    for row in estimate.growth:
        counts = (row.in_adapters, row.gates, row.path, row.all_paths)
        table.add_row(
            str(row.modalities),
            *(f"{count:,}" for count in counts),
            f"{row.all_paths * FLOAT32 / MEGA:.1f}",
            f"{row.connector_flops:.3f}",
        )
    return table


def _by_stage(title: str, estimate: Estimate, rows: Rows, caption: str) -> WholeTable:
    table = WholeTable(title=title, caption=caption, box=SIMPLE_HEAD, padding=0)
    table.add_column("")
    for stage in estimate.stages:
        table.add_column(stage.label, justify="right")
    for name, value in rows.items():
        table.add_row(name, *(value(stage) for stage in estimate.stages))
    return table


def _memory(memory: Memory | None, part: str) -> str:
    return NONE if memory is None else _giga(getattr(memory, part))


def _giga(value: int) -> str:
    return f"{value / GIGA:,.2f}"
