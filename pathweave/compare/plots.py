"""Pictures of a grid."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pathweave.compare.analysis import Analysis, Group
from pathweave.compare.quantities import APART, MEAN, Key, Kind, Quantity, kind_of
from pathweave.compare.summary import gate_weights
from pathweave.evaluate.plot import Axes, hide, new_figure, png
from pathweave.evaluate.report import points
from pathweave.extras import import_extra

_BETTER, _WORSE, _NOT_SIGNIFICANT = "#1f6fb2", "#c0392b", "#7f8c8d"
# White behind the figures: many stand on the line of zero.
_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
_SMALL = {"ha": "center", "va": "bottom", "fontsize": 8, "bbox": _WHITE}
_MIDDLE = {"ha": "center", "va": "center", "fontsize": 9}

QUANTITIES = {
    Quantity.T: "Transfer T (higher is better)",
    Quantity.F: "Forgetting F (lower is better)",
}
_NAMES = {Kind.ACCURACY: "accuracy, %", Kind.CAPTIONS: "captions, points of the metric"}


def pictures(analysis: Analysis) -> dict[str, tuple[str, bytes]]:
    """Return the pictures of a report: by what they show a caption and a PNG.

    Raises:
        PathWeaveError: If matplotlib is not installed.
    """
    groups = analysis.main_groups
    if not groups:
        return {}
    used = {key.kind for group in groups for key in analysis.estimates[group]}
    kinds = [kind for kind in APART if kind in used]
    made = {"means": ("Transfer and forgetting", _means(analysis, groups, kinds))}
    if others := [group for group in groups if group in analysis.differences]:
        caption = f"Differences to {analysis.about.reference}"
        made["differences"] = (caption, _differences(analysis, others, kinds))
    if len(analysis.about.orders[analysis.main]) > 1:
        made["forgetting"] = ("Forgetting along the sequence", _curves(analysis, groups, kinds))
    for kind in kinds:
        drawn = _matrices(analysis, groups, kind)
        made[f"matrices_{kind}"] = (f"Score matrices, {_NAMES[kind]}", drawn)
    if bars := gate_weights(analysis):
        made["gates"] = ("Gate usage", _gates(bars))
    return made


def _means(analysis: Analysis, groups: list[Group], kinds: list[Kind]) -> bytes:
    """Draw T and F of every method with both intervals."""

    def draw(axes: Axes, key: Key) -> None:
        for row, group in enumerate(groups):
            found = analysis.estimates[group].get(key)
            if found is None:
                continue
            if found.samples is not None:
                axes.plot([found.low, found.high], [row, row], color="C0", linewidth=1.2, zorder=2)
            if found.seeds is not None:
                _beyond(axes, found.value, found.seeds, row, color="C0", linewidth=5, alpha=0.35)
            _dot(axes, found.value, row, points(found.value) if any(found.per_seed) else "0")

    counts = {method: len(analysis.groups[method, order]) for method, order in groups}
    names = list(counts)
    if len(set(counts.values())) > 1:
        names = [f"{n} ({count} seed{'s' * (count > 1)})" for n, count in counts.items()]
    note = (
        "dot: mean over seeds; thin line: 95 % confidence interval over test samples; thick line: "
        "over seeds, cut off at the edge"
    )
    return _panels(names, kinds, draw, note)


def _differences(analysis: Analysis, groups: list[Group], kinds: list[Kind]) -> bytes:
    """Draw paired differences to the reference."""

    def draw(axes: Axes, key: Key) -> None:
        axes.axvline(0, color="black", linewidth=0.8)
        by_row = [analysis.differences[group].get(key) for group in groups]
        known = [(row, found) for row, found in enumerate(by_row) if found is not None]
        # Half of the intervals end within the axes for certain.
        usual = float(np.median([found.both or 0.0 for _, found in known] or [0.0]))
        for row, found in known:
            value, verdict = found.value, found.verdict
            axes.update_datalim([(value - usual, row), (value + usual, row)])
            color = _BETTER if (value > 0) == (key.quantity == Quantity.T) else _WORSE
            color = color if verdict in ("yes", "1 seed") else _NOT_SIGNIFICANT
            fill = "white" if verdict == "1 seed" else color
            _beyond(axes, value, found.both or 0.0, row, color=color, linewidth=1.6)
            text = verdict if verdict == "identical" else points(value, "+")
            _dot(axes, value, row, text, color=color, markerfacecolor=fill)

    note = (
        f"minus {analysis.about.reference}, same seeds and samples; lines: 95 % confidence "
        "interval over seeds and samples together, cut off at the edge\ngrey: not significant; "
        "blue: better; red: worse; hollow: one seed, interval over samples only"
    )
    return _panels([method for method, _ in groups], kinds, draw, note)


def _dot(axes: Axes, value: float, row: int, text: str, **style: str) -> None:
    axes.plot(value, row, "o", **{"color": "C0", "markersize": 6, "zorder": 3, **style})
    axes.annotate(text, (value, row), (0, 6), textcoords="offset points", **_SMALL)


def _beyond(axes: Axes, value: float, half: float, row: int, **style: Any) -> None:  # noqa: ANN401
    """Draw an interval that may end outside of the axes: with few seeds it is very wide."""
    before = axes.dataLim.frozen()
    axes.plot([value - half, value + half], [row, row], zorder=1, **style)
    axes.dataLim.set(before)


def _panels(
    names: list[str], kinds: list[Kind], draw: Callable[[Axes, Key], None], note: str
) -> bytes:
    """Draw a panel for T and one for F of each kind, a row a method."""
    figure = new_figure(12.0, 0.9 + len(kinds) * (0.9 + 0.36 * len(names)))
    rows = figure.subplots(len(kinds), 2, sharey=True, squeeze=False)
    for row, kind in zip(rows, kinds, strict=True):
        for axes, (quantity, title) in zip(row, QUANTITIES.items(), strict=True):
            draw(axes, Key(quantity, MEAN, kind))
            axes.set_title(f"{title}, {_NAMES[kind]}", fontsize=11)
            axes.set_yticks(range(len(names)), names, fontsize=10)
            axes.margins(x=0.3)
            axes.set_ylim(len(names) - 0.5, -0.7)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            hide(axes, "top", "right", "left")
            axes.tick_params(axis="y", length=0)
    figure.supxlabel(note, fontsize=9)
    return png(figure, 130)


def _curves(analysis: Analysis, groups: list[Group], kinds: list[Kind]) -> bytes:
    """Draw F after each stage of the sequence, a line a method."""
    figure = new_figure(12.0, 5.2)
    stages = analysis.about.orders[analysis.main][1:]
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        none, ends = [], []
        for method, order in groups:
            found = analysis.estimates[method, order]
            keys = [Key(Quantity.F, name, kind) for name in stages]
            known = [(i, found[key].value) for i, key in enumerate(keys) if key in found]
            if known and not any(value for _, value in known):
                none.append(method)
            elif known:
                place = analysis.about.methods.index(method)
                color, dash = f"C{place % 10}", ("-", "--", ":")[place // 10 % 3]
                axes.plot(*zip(*known, strict=True), dash, marker="o", color=color)
                ends.append((*known[-1], method, color))
        axes.axhline(0, color="black", linewidth=1.2)
        # The names stand at the ends of the lines, moved apart where they would overlap.
        low, high = axes.get_ylim()
        ends.sort(key=lambda end: end[1])
        heights = _apart([value for _, value, _, _ in ends], (high - low) / 24)
        for (stage, value, method, color), height in zip(ends, heights, strict=True):
            line = {"arrowstyle": "-", "color": color, "linewidth": 0.6}
            style = {"color": color, "fontsize": 9, "va": "center", "arrowprops": line}
            axes.annotate(method, (stage, value), (stage + 0.15, height), **style)
        if none:
            axes.set_xlabel(f"exactly 0: {', '.join(none)}", fontsize=9, wrap=True)
        axes.set_title(_NAMES[kind], fontsize=11)
        axes.set_ylabel("F", fontsize=10)
        axes.set_xticks(range(len(stages)), stages, fontsize=10)
        axes.set_xlim(-0.2, len(stages) - 1 + 0.28 * max(1, len(stages)))
        hide(axes, "top", "right")
    lost = "mean loss of all earlier modalities after learning ..."
    figure.suptitle(f"Forgetting F (lower is better): {lost}", fontsize=12)
    return png(figure, 130)


def _apart(heights: list[float], step: float) -> list[float]:
    """Return ascending heights moved apart to a distance, each as little as can be."""
    if not heights:
        return []
    needed = step * np.arange(len(heights))
    regression = import_extra("scipy.optimize", "report").isotonic_regression
    return list(regression(heights - needed).x + needed)


def _matrices(analysis: Analysis, groups: list[Group], kind: Kind) -> bytes:
    """Draw the score matrix of every method, means over seeds and test sets of the kind."""
    names = analysis.about.orders[analysis.main]
    num_columns = min(4, len(groups))
    num_rows = -(-len(groups) // num_columns)
    side = 0.5 * len(names)
    figure = new_figure(1.2 + num_columns * (side + 0.5), 1.0 + num_rows * (side * 0.72 + 1.2))
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False, sharey=True).flat)
    grids = [_matrix(analysis, group, kind) for group in groups]
    top = max((float(np.nanmax(grid)) for grid in grids if np.isfinite(grid).any()), default=1.0)
    for axes, (method, _), grid in zip(panels, groups, grids, strict=False):
        axes.imshow(grid, cmap="Blues", vmin=0, vmax=max(top, 1e-9) * 1.7, aspect="auto")
        for stage, column in np.argwhere(np.isfinite(grid)):
            weight = "bold" if stage == column else "normal"
            axes.text(column, stage, f"{grid[stage, column]:.0f}", fontweight=weight, **_MIDDLE)
        axes.set_title(method, fontsize=10)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(length=0)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    title = (
        f"Scores of each modality (columns) after learning ... (rows): {_NAMES[kind]}\n"
        "bold: right after it was learnt; the darker, the higher"
    )
    figure.suptitle(title, fontsize=11)
    return png(figure, 130)


def _matrix(analysis: Analysis, group: Group, kind: Kind) -> np.ndarray:
    names = analysis.about.orders[analysis.main]
    found: dict[tuple[int, int], list[float]] = {}
    for (after, modality, dataset), scores in analysis.scores(group).items():
        if after is not None and kind_of(analysis.metrics[modality, dataset]) == kind:
            found.setdefault((names.index(after), names.index(modality)), []).extend(scores)
    grid = np.full((len(names), len(names)), np.nan)
    for place, scores in found.items():
        grid[place] = np.mean(scores)
    return grid


def _gates(bars: Mapping[tuple[str, str], dict[str, float]]) -> bytes:
    """Draw the mean weight that the gates of each path give to which adapter."""
    is_one = len({method for method, _ in bars}) == 1
    labels = [path if is_one else f"{path} ({method})" for method, path in bars]
    figure = new_figure(10.0, 1.6 + 0.42 * len(bars))
    axes = figure.subplots()
    for row, weights in enumerate(bars.values()):
        left = 0.0
        for index, (name, width) in enumerate(weights.items()):
            if width > 0:
                axes.barh(row, width, 0.7, left, color=f"C{index % 10}", label=name)
            if width > 0.05:
                axes.text(left + width / 2, row, f"{width:.2f}", **_MIDDLE)
            left += width
    axes.set_yticks(range(len(bars)), labels, fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    title = "Mean gate weight, in each path with predecessors, of the adapter of ..."
    axes.set_title(title, fontsize=11)
    shown, names = axes.get_legend_handles_labels()
    handles = dict(zip(names, shown, strict=True))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "ncols": len(handles)}
    axes.legend(handles.values(), handles.keys(), fontsize=9, **place)
    hide(axes, "top", "right", "left")
    return png(figure, 130)
