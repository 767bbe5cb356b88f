"""What every benchmark shares: variants that take turns, and figures with their limits.

A figure is a ratio, or a number of a unit, with the limit it should keep where there is one. A
script measures in one process and ends with ``Report.finish``, which prints a table and, with
``--out DIR``, writes ``DIR/NAME.json``; ``python -m benchmarks.performance`` makes a page of all.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table

ROUNDS = 9


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        label: What was measured.
        value: The figure.
        unit: Its unit; "x" for a ratio.
        at_most: The most it should be, if there is a limit.
        at_least: The least it should be, if there is a limit.
        peer: What another system has for the same, if known.
        note: What the reader must know beside it.
    """

    label: str
    value: float
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None
    peer: float | None = None
    note: str = ""

    @property
    def limit(self) -> str:
        """The limit in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"

    @property
    def verdict(self) -> str:
        """Whether the figure keeps its limit: yes, no, or nothing where it has none."""
        kept = (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )
        return ("yes" if kept else "no") if self.limit else ""


@dataclass
class Report:
    """The figures of one benchmark.

    Attributes:
        name: Name of the script.
        question: What it answers, in one line.
        settings: Sizes and settings that the figures depend on.
        figures: What was found.
    """

    name: str
    question: str
    settings: dict[str, object] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def finish(self, out: Path | None) -> None:
        """Print the table, and write the JSON file if a directory is given."""
        table = Table(title=self.question, title_justify="left")
        for heading in ("", "measured", "limit", "kept", "note"):
            table.add_column(heading, justify="right" if heading == "measured" else "left")
        for each in self.figures:
            shown = f"{each.value:,.3g} {each.unit}"
            table.add_row(each.label, shown, each.limit, each.verdict, each.note)
        Console().print(table)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            found = {**asdict(self), "machine": machine()}
            text = json.dumps(found, indent=1) + "\n"
            (out / f"{self.name}.json").write_text(text, encoding="utf-8")


def machine() -> dict[str, object]:
    """Return what the figures were measured on."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16 instructions": bool(torch.cpu._is_avx512_bf16_supported()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load before": round(os.getloadavg()[0], 1),
    }


def in_turn(
    variants: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Return the seconds that each variant took in each round; the variants take turns.

    Every variant is called once before, and is not timed then. The device is waited for.
    """
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for run in variants.values():
        run()
    wait()
    times: dict[str, list[float]] = {label: [] for label in variants}
    for turn in range(rounds):
        # Forwards and backwards in turn: a machine that slows down harms all alike.
        order = [*variants] if turn % 2 == 0 else [*variants][::-1]
        for label in order:
            start = clock()
            variants[label]()
            wait()
            times[label].append(clock() - start)
    return times


def ratio(times: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    """Return the median over rounds of the ratio of one variant's times or rates to another's."""
    return statistics.median(a / b for a, b in zip(times[of], times[to], strict=True))


def options(description: str | None) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="directory to write the JSON file to")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each comparison")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run?")
    return parser
