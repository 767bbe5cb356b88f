"""A picture of results: the score matrix and what each stage made the model forget."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.evaluate.report import points
from pathweave.evaluate.results import Results
from pathweave.extras import import_extra
from pathweave.metrics import unit_of
from pathweave.storage.atomic import write_atomic

Axes = Any  # of an optional library
Figure = Any

# Share of a row's height that its bars fill.
_GROUP_HEIGHT = 0.84

_MIDDLE = {"ha": "center", "va": "center", "fontsize": 11}


def plot(results: Results, path: Path) -> None:
    """Draw the score matrix and the forgetting after each stage as a PNG.

    Raises:
        PathWeaveError: If matplotlib is not installed.
        DiskError: If the disk is full or the directory cannot be written.
    """
    figure = new_figure(12.0, 2.2 + 0.62 * max(3, len(results.curriculum)))
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1), sharey=True)
    figure.suptitle(f"{results.recipe} ({results.method})", fontsize=14, fontweight="bold")
    _draw_scores(left, results)
    _draw_forgetting(right, results)
    write_atomic(path, png(figure, 150))


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches.

    Raises:
        PathWeaveError: If matplotlib is not installed.
    """
    figure = import_extra("matplotlib.figure", "report").Figure
    return figure(figsize=(width, height), layout="constrained")


def png(figure: Figure, dots_per_inch: int) -> bytes:
    """Return a figure as a PNG, the same one for the same figure whatever drew it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return stream.getvalue()


def hide(axes: Axes, *sides: str) -> None:
    """Remove the lines at some sides."""
    for side in sides:
        axes.spines[side].set_visible(False)


def _draw_scores(axes: Axes, results: Results) -> None:
    columns = results.columns
    scores = np.full((len(results.curriculum), len(columns)), np.nan)
    for stage, modality, dataset, score in results.scored():
        scores[stage, columns.index((modality, dataset))] = score
    sizes = sorted({d.num_samples for _, d in columns if d.num_samples is not None})
    ends = " to ".join(f"{size:,}" for size in dict.fromkeys((*sizes[:1], *sizes[-1:])))
    samples = f", on {ends} samples a set" if ends else ""
    # Metrics differ in scale, so a cell's colour is its share of the best of its column.
    best = np.fmax.reduce(scores, axis=0, initial=1e-9)
    if columns:  # a run without test sets has nothing to colour
        axes.imshow(np.clip(scores / best, 0, 1), cmap="Blues", vmin=0, vmax=1.9, aspect="auto")
    for stage, column in np.argwhere(np.isfinite(scores)):
        is_new = columns[column][0] == results.curriculum[stage]
        weight = "bold" if is_new else "normal"
        axes.text(column, stage, f"{scores[stage, column]:.1f}", fontweight=weight, **_MIDDLE)
    labels = [f"{dataset.name}\n{unit_of(dataset.metric)}" for _, dataset in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize=8)
    axes.set_yticks(range(len(results.curriculum)), results.curriculum, fontsize=11)
    axes.set_ylabel("after learning", fontsize=11)
    axes.set_title(
        f"Scores after each stage{samples}\n(bold: just learnt; colour: share of column's best)"
    )
    axes.tick_params(length=0)
    for modality in results.curriculum:
        places = [i for i, column in enumerate(columns) if column[0] == modality]
        if places:
            # Below the two lines of the tick labels.
            style = {"ha": "center", "va": "top", "fontsize": 11}
            at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate(modality, (sum(places) / len(places), 0), (0, -36), **at, **style)
            axes.axvline(places[0] - 0.5, color="grey", linewidth=0.8)


def _draw_forgetting(axes: Axes, results: Results) -> None:
    matrix, curriculum = results.matrix, results.curriculum
    losses = {
        (stage, modality): round(matrix.forgetting(stage, modality), 1) + 0.0
        for stage in results.finished_stages
        for modality in curriculum[:stage]
        if matrix.can_lose(stage, modality)
    }
    axes.set_title("Forgetting F after each stage\n(0.0: nothing lost)")
    axes.set_xlabel("points lost since the best score", fontsize=11)
    thickness = _GROUP_HEIGHT / max(2, len(curriculum) - 1)
    for index, modality in enumerate(curriculum[:-1]):
        stages = [stage for stage, old in losses if old == modality]
        # The bars of a row are centred on it, however many old modalities there are.
        places = [stage + (index - (stage - 1) / 2) * thickness for stage in stages]
        widths = [losses[stage, modality] for stage in stages]
        style = {"color": f"C{index}", "edgecolor": f"C{index}", "linewidth": 3, "zorder": 2}
        bars = axes.barh(places, widths, thickness * 0.7, label=f"of {modality}", **style)
        axes.bar_label(bars, [points(width) for width in widths], padding=4, fontsize=9)
    axes.axvline(0, color="black", linewidth=0.8, zorder=1)
    # Without losses the axis still spans ten points, so that zero looks like zero.
    low, high = min(0, *losses.values(), 0), max(10, *losses.values(), 10)
    axes.set_xlim(1.2 * low - 0.02 * high, 1.15 * high)
    axes.tick_params(axis="y", length=0)
    hide(axes, "top", "right", "left")
    if losses:
        axes.legend(loc="upper right", fontsize=9)
