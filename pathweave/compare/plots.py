"""Pictures of a grid."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from pathweave.compare.analysis import Analysis, Group
from pathweave.compare.quantities import (
    ACCURACY,
    CAPTIONS,
    FORGETTING,
    KINDS,
    MEAN,
    TRANSFER,
    Key,
    kind_of,
)
from pathweave.compare.summary import gate_weights, signed
from pathweave.evaluate.report import points
from pathweave.extras import import_extra

_DOTS_PER_INCH = 130
_BETTER, _WORSE, _NOISE = "#1f6fb2", "#c0392b", "#7f8c8d"

DRAWN = (ACCURACY, CAPTIONS)
QUANTITIES = {
    TRANSFER: "Transfer T (higher is better)",
    FORGETTING: "Forgetting F (lower is better)",
}
_SIGN = {TRANSFER: 1, FORGETTING: -1}  # of what is better


def pictures(analysis: Analysis) -> dict[str, tuple[str, bytes]]:
    """Return the pictures of a report: by what they show a caption and a PNG.

    Raises:
        PathWeaveError: If matplotlib is not installed.
    """
    groups = analysis.main_groups
    kinds = [
        k for k in DRAWN if any(k == key.kind for g in groups for key in analysis.estimates[g])
    ]
    made: dict[str, tuple[str, bytes]] = {}
    if not groups:
        return made
    made["means"] = ("Transfer and forgetting", _means(analysis, groups, kinds))
    others = [group for group in groups if group in analysis.differences]
    if others:
        caption = f"Differences to {analysis.about.reference}"
        made["differences"] = (caption, _differences(analysis, others, kinds))
    if len(analysis.about.orders[analysis.main]) > 1:
        caption = "Forgetting along the sequence"
        made["forgetting"] = (caption, _curves(analysis, groups, kinds))
    for kind in kinds:
        caption = f"Score matrices, {KINDS[kind].in_pictures}"
        made[f"matrices_{kind}"] = (caption, _matrices(analysis, groups, kind))
    if any(cell.result.gate_usage for group in groups for cell in analysis.groups[group]):
        made["gates"] = ("Gate usage", _gates(analysis))
    return made


def _figure(width: float, height: float) -> Any:  # noqa: ANN401 (of an optional library)
    figure = import_extra("matplotlib.figure", "report").Figure
    return figure(figsize=(width, height), layout="constrained")


def _png(figure: Any) -> bytes:  # noqa: ANN401 (of an optional library)
    stream = io.BytesIO()
    # Without the version of matplotlib, so that equal results give equal files.
    figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return stream.getvalue()


def _means(analysis: Analysis, groups: list[Group], kinds: list[str]) -> bytes:
    """Draw T and F of every method with both intervals."""

    def draw(axes: Any, key: Key) -> None:  # noqa: ANN401 (of an optional library)
        for row, group in enumerate(groups):
            found = analysis.estimates[group].get(key)
            if found is None:
                continue
            if found.low is not None and found.high is not None:
                axes.plot([found.low, found.high], [row, row], color="C0", linewidth=1.2, zorder=2)
            if found.seeds is not None:
                _beyond(axes, found.value, found.seeds, row, color="C0", linewidth=5, alpha=0.35)
            axes.plot(found.value, row, "o", color="C0", markersize=6, zorder=3)
            text = "0" if not any(found.per_seed) else points(found.value)
            axes.annotate(text, (found.value, row), (0, 6), textcoords="offset points", **_SMALL)

    note = (
        "dot: mean over seeds; thin line: 95 % over samples; thick: 95 % over seeds, as far as the "
        "axis goes"
    )
    counts = {group: len(analysis.groups[group]) for group in groups}
    names = [
        method if len(set(counts.values())) == 1 else f"{method} ({_seeds(counts[method, order])})"
        for method, order in groups
    ]
    return _panels(names, kinds, draw, note)


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _beyond(axes: Any, value: float, half: float, row: int, **style: Any) -> None:  # noqa: ANN401
    """Draw an interval that may end outside of the axes: with few seeds it is very wide."""
    before = axes.dataLim.frozen()
    axes.plot([value - half, value + half], [row, row], zorder=1, **style)
    axes.dataLim.set(before)


def _differences(analysis: Analysis, groups: list[Group], kinds: list[str]) -> bytes:
    """Draw paired differences to the reference."""

    def draw(axes: Any, key: Key) -> None:  # noqa: ANN401 (of an optional library)
        axes.axvline(0, color="black", linewidth=0.8)
        by_row = {row: analysis.differences[group].get(key) for row, group in enumerate(groups)}
        known = [found for found in by_row.values() if found is not None]
        # Half of the intervals end within the axes for certain.
        usual = float(np.median([found.both or 0.0 for found in known])) if known else 0.0
        for row, found in by_row.items():
            if found is None:
                continue
            value, half = found.value, found.both or 0.0
            axes.update_datalim([(value - usual, row), (value + usual, row)])
            better = value * _SIGN[key.quantity] > 0
            apart = found.verdict in ("yes", "1 seed")
            color = _NOISE if not apart else _BETTER if better else _WORSE
            fill = color if found.verdict != "1 seed" else "white"
            _beyond(axes, value, half, row, color=color, linewidth=1.6)
            axes.plot(value, row, "o", color=color, markerfacecolor=fill, markersize=6, zorder=3)
            text = signed(value) if found.verdict != "equal" else "equal"
            axes.annotate(text, (value, row), (0, 6), textcoords="offset points", **_SMALL)

    note = (
        f"minus {analysis.about.reference}, same seed and samples; lines: 95 % of seeds and "
        "samples together, as far as the axis goes\ngrey: not told from noise; blue: better; red: "
        "worse; hollow: one seed, noise of the samples alone"
    )
    return _panels([method for method, _ in groups], kinds, draw, note)


# White behind the figures: many stand on the line of zero.
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
_SMALL = {"ha": "center", "va": "bottom", "fontsize": 8, "bbox": _WHITE}


def _panels(
    names: list[str],
    kinds: list[str],
    draw: Callable[[Any, Key], None],
    note: str,
) -> bytes:
    """Draw a panel for T and one for F of each kind, a row a method."""
    figure = _figure(12.0, 0.9 + len(kinds) * (0.9 + 0.36 * len(names)))
    rows = figure.subplots(len(kinds), 2, sharey=True, squeeze=False)
    for row, kind in zip(rows, kinds, strict=True):
        for axes, (quantity, title) in zip(row, QUANTITIES.items(), strict=True):
            draw(axes, Key(quantity, MEAN, kind))
            axes.set_title(f"{title}, {KINDS[kind].in_pictures}", fontsize=11)
            axes.set_yticks(range(len(names)), names, fontsize=10)
            axes.margins(x=0.3)
            axes.set_ylim(len(names) - 0.5, -0.7)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
            axes.tick_params(axis="y", length=0)
    figure.supxlabel(note, fontsize=9)
    return _png(figure)


def _curves(analysis: Analysis, groups: list[Group], kinds: list[str]) -> bytes:
    """Draw F after each stage of the sequence, a line a method."""
    figure = _figure(12.0, 5.2)
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    stages = analysis.about.orders[analysis.main][1:]
    colors = {method: f"C{i % 10}" for i, method in enumerate(analysis.about.methods)}
    dashes = ["-", "--", ":"]
    for axes, kind in zip(panels, kinds, strict=True):
        none, ends = [], []
        for method, order in groups:
            found = analysis.estimates[method, order]
            keys = [Key(FORGETTING, name, kind) for name in stages]
            known = [(i, found[key].value) for i, key in enumerate(keys) if key in found]
            if not known:
                continue
            if not any(value for _, value in known):
                none.append(method)
                continue
            dash = dashes[analysis.about.methods.index(method) // 10 % 3]
            axes.plot(*zip(*known, strict=True), dash, marker="o", color=colors[method])
            ends.append((known[-1], method))
        axes.axhline(0, color="black", linewidth=1.2)
        _label_ends(axes, ends, colors)
        if none:
            names = ", ".join(none)
            axes.set_xlabel(f"exactly 0: {names}", fontsize=9, wrap=True)
        axes.set_title(KINDS[kind].in_pictures, fontsize=11)
        axes.set_ylabel("F", fontsize=10)
        axes.set_xticks(range(len(stages)), stages, fontsize=10)
        axes.set_xlim(-0.2, len(stages) - 1 + 0.28 * max(1, len(stages)))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(
        "Forgetting F (lower is better): mean loss of all earlier modalities after learning ...",
        fontsize=12,
    )
    return _png(figure)


def _label_ends(
    axes: Any,  # noqa: ANN401 (of an optional library)
    ends: list[tuple[tuple[int, float], str]],
    colors: dict[str, str],
) -> None:
    """Write the names at the ends of the lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end[0][1])
    heights = _apart([value for (_, value), _ in ordered], (high - low) / 24)
    for ((stage, value), method), height in zip(ordered, heights, strict=True):
        line = {"arrowstyle": "-", "color": colors[method], "linewidth": 0.6}
        axes.annotate(
            method,
            (stage, value),
            (stage + 0.15, height),
            color=colors[method],
            fontsize=9,
            va="center",
            arrowprops=line,
        )


def _apart(heights: list[float], step: float) -> list[float]:
    """Return ascending heights moved apart to a distance, each as little as can be."""
    runs: list[list[float]] = []
    for height in heights:
        runs.append([height])
        # Names that touch are set around the mean of their lines' ends.
        while len(runs) > 1 and _bottom(runs[-1], step) < _top(runs[-2], step) + step:
            runs[-2:] = [runs[-2] + runs[-1]]
    return [_bottom(run, step) + i * step for run in runs for i in range(len(run))]


def _bottom(run: list[float], step: float) -> float:
    return sum(run) / len(run) - (len(run) - 1) / 2 * step


def _top(run: list[float], step: float) -> float:
    return _bottom(run, step) + (len(run) - 1) * step


def _matrices(analysis: Analysis, groups: list[Group], kind: str) -> bytes:
    """Draw the score matrix of every method, means over seeds and test sets of the kind."""
    names = analysis.about.orders[analysis.main]
    num_columns = min(4, len(groups))
    num_rows = -(-len(groups) // num_columns)
    side = 0.5 * len(names)
    figure = _figure(1.2 + num_columns * (side + 0.5), 1.0 + num_rows * (side * 0.72 + 1.2))
    panels = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
    grids = [_matrix(analysis, group, kind) for group in groups]
    top = max((float(np.nanmax(grid)) for grid in grids if np.isfinite(grid).any()), default=1.0)
    for place, axes in enumerate(panels.flat):
        if place >= len(groups):
            axes.set_visible(False)
            continue
        grid = grids[place]
        axes.imshow(grid, cmap="Blues", vmin=0, vmax=max(top, 1e-9) * 1.7, aspect="auto")
        for stage, column in np.argwhere(np.isfinite(grid)):
            text = f"{grid[stage, column]:.0f}"
            weight = "bold" if stage == column else "normal"
            axes.text(column, stage, text, ha="center", va="center", fontsize=9, fontweight=weight)
        axes.set_title(groups[place][0], fontsize=10)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(length=0)
    title = (
        f"Scores of each modality (columns) after learning ... (rows): {KINDS[kind].in_pictures}\n"
        "bold: right after it was learnt; the darker, the higher"
    )
    figure.suptitle(title, fontsize=11)
    return _png(figure)


def _matrix(analysis: Analysis, group: Group, kind: str) -> Any:  # noqa: ANN401 (an array)
    names = analysis.about.orders[analysis.main]
    cells = [cell.result.results for cell in analysis.groups[group]]
    grid = np.full((len(names), len(names)), np.nan)
    for stage in range(len(names)):
        for column, modality in enumerate(names):
            scores = [
                results.matrix.score(stage, modality, info.name)
                for results in cells
                for info in results.datasets.get(modality, [])
                if kind_of(info.metric) == kind and results.matrix.has(stage, modality, info.name)
            ]
            if scores:
                grid[stage, column] = np.mean(scores)
    return grid


def _gates(analysis: Analysis) -> bytes:
    """Draw the mean weight that the gates of each path give to which adapter."""
    names = analysis.about.orders[analysis.main]
    bars = gate_weights(analysis)
    is_one = len({method for method, _ in bars}) == 1
    labels = [path if is_one else f"{path} ({method})" for method, path in bars]
    figure = _figure(10.0, 1.6 + 0.42 * len(bars))
    axes = figure.subplots()
    for row, weights in enumerate(bars.values()):
        left = 0.0
        for index, name in enumerate(names):
            width = weights[name]
            if width == 0.0:
                continue
            axes.barh(row, width, left=left, height=0.7, color=f"C{index % 10}", label=name)
            if width > 0.05:
                middle = left + width / 2
                axes.text(middle, row, f"{width:.2f}", ha="center", va="center", fontsize=9)
            left += width
    axes.set_yticks(range(len(bars)), labels, fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_title(
        "Mean gate weight, in each path with predecessors, of the adapter of ...",
        fontsize=11,
    )
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(
        unique.values(),
        unique.keys(),
        loc="upper center",
        fontsize=9,
        ncols=len(unique),
        bbox_to_anchor=(0.5, -0.08),
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return _png(figure)
