"""A picture of results: the score matrix and what each stage made the model forget."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.evaluate.report import points, unit
from pathweave.evaluate.results import Results
from pathweave.extras import import_extra
from pathweave.storage.atomic import write_atomic

_DOTS_PER_INCH = 150

# Share of a row's height that its bars fill.
_GROUP_HEIGHT = 0.84


def plot(results: Results, path: Path) -> None:
    """Draw the score matrix and the forgetting after each stage as a PNG.

    Raises:
        PathWeaveError: If matplotlib is not installed.
        DiskError: If the disk is full or the directory cannot be written.
    """
    figure = import_extra("matplotlib.figure", "report").Figure(
        figsize=(12, 2.2 + 0.62 * max(3, len(results.curriculum))), layout="constrained"
    )
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1), sharey=True)
    figure.suptitle(f"{results.recipe} ({results.method})", fontsize=14, fontweight="bold")
    _draw_scores(left, results)
    _draw_forgetting(right, results)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH)
    write_atomic(path, stream.getvalue())


def _samples(results: Results) -> str:
    """Say how many samples of each set were scored, where that is known."""
    sizes = [n for _, dataset in results.columns if (n := dataset.num_samples) is not None]
    ends = sorted({min(sizes), max(sizes)}) if sizes else []
    return f", on {' to '.join(f'{n:,}' for n in ends)} samples a set" if ends else ""


def _draw_scores(axes: Any, results: Results) -> None:  # noqa: ANN401 (of an optional library)
    matrix, columns = results.matrix, results.columns
    scores = np.full((len(results.curriculum), len(columns)), np.nan)
    for stage in range(len(results.curriculum)):
        for column, (modality, dataset) in enumerate(columns):
            if matrix.has(stage, modality, dataset.name):
                scores[stage, column] = matrix.score(stage, modality, dataset.name)
    # Metrics differ in scale, so a cell's colour is its share of the best of its column.
    best = np.fmax.reduce(scores, axis=0, initial=1e-9)
    axes.imshow(np.clip(scores / best, 0, 1), cmap="Blues", vmin=0, vmax=1.9, aspect="auto")
    for stage, column in np.argwhere(np.isfinite(scores)):
        is_new = columns[column][0] == results.curriculum[stage]
        axes.text(
            *(column, stage, f"{scores[stage, column]:.1f}"),
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold" if is_new else "normal",
        )
    labels = [f"{dataset.name}\n{unit(dataset)}" for _, dataset in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize=8)
    axes.set_yticks(range(len(results.curriculum)), results.curriculum, fontsize=11)
    axes.set_ylabel("after learning", fontsize=11)
    axes.set_title(
        f"Scores after each stage{_samples(results)}\n"
        "(bold: just learnt; colour: share of column's best)"
    )
    axes.tick_params(length=0)
    for modality in results.curriculum:
        places = [i for i, column in enumerate(columns) if column[0] == modality]
        if places:
            # Below the two lines of the tick labels.
            axes.annotate(
                modality,
                (sum(places) / len(places), 0),
                (0, -36),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=11,
            )
            axes.axvline(places[0] - 0.5, color="grey", linewidth=0.8)


def _draw_forgetting(axes: Any, results: Results) -> None:  # noqa: ANN401 (of an optional library)
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
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if losses:
        axes.legend(loc="upper right", fontsize=9)
