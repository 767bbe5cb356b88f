"""Report of a learning curve: how many samples are enough, as a line, a table, JSON and a picture.

A gain is what a number of samples adds to the next smaller one, a difference what a variant adds to
the first, both with the same seeds on the same test samples; all with the intervals of
``uncertainty``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pathweave.compare.analysis import check_samples
from pathweave.compare.cell import LoadedCell, Scored, load_cell
from pathweave.compare.curve import Curve
from pathweave.compare.summary import cell_text, half_text
from pathweave.compare.tables import ReportTable, markdown, wrap
from pathweave.compare.uncertainty import SeedMean, mean_over_seeds
from pathweave.evaluate.plot import Axes, hide, new_figure, png
from pathweave.evaluate.report import points
from pathweave.metrics import METRICS
from pathweave.metrics.bootstrap import Column, draw_scores
from pathweave.storage.atomic import write_atomic, write_json

PICTURE, NUMBERS = "curve.png", "curve.json"

HOW_TO_READ = (
    "A score is the mean over seeds ± the half-width of its 95 % confidence interval over seeds "
    "(Student's t; a seed draws the samples and trains anew) / over test samples (bootstrap over "
    "the objects shown). gain: minus the row above; differences and gains: same seeds, same test "
    "samples, ± over seeds and test samples together. *: larger than that, so significant; (*): "
    "larger than the interval over test samples, with one seed. What was learnt before is the same "
    "in all. There is no correction for multiple comparisons."
)

Draws = Float[np.ndarray, " draws"]
Place = tuple[str, int, int]
"""Variant, number of samples, seed."""


@dataclass(frozen=True)
class Point:
    """What a number of samples comes to.

    Attributes:
        samples: How many.
        score: Mean over seeds.
        guess: Mean score of not looking: of the questions without their media or of the most
            frequent answer learnt from, whichever is better; None if it was not measured.
        gains: By smaller number of samples, how much better this one is.
        difference: The score minus that of the first variant; None for the first.
    """

    samples: int
    score: SeedMean
    guess: float | None
    gains: dict[int, SeedMean]
    difference: SeedMean | None

    @property
    def gain(self) -> SeedMean | None:
        """Return how much better it is than the next smaller number; None if there is none."""
        return self.gains[max(self.gains)] if self.gains else None

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        told = {"samples": self.samples, **_as_json(self.score), "guess": self.guess}
        for name, found in (("gain", self.gain), ("difference", self.difference)):
            told[name] = None if found is None else {**_as_json(found), "verdict": found.verdict}
        return told


@dataclass(frozen=True)
class TestCurve:
    """The curve of every variant on one test set.

    Attributes:
        dataset: Name of the test set.
        unit: Unit of its scores.
        variants: Points by variant.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    dataset: str
    unit: str
    variants: dict[str, list[Point]]

    def answers(self) -> dict[str, str]:
        """Return by variant in a sentence how many samples are enough."""
        return {name: enough(found) for name, found in self.variants.items() if found}


@dataclass(frozen=True)
class CurveReport:
    """What was written.

    Attributes:
        tree: Everything as plain values, the content of ``curve.json``.
        curves: By test set.
        files: The files.
    """

    tree: dict[str, Any]
    curves: list[TestCurve]
    files: list[Path]

    def text(self, width: int) -> str:
        """Return tables and sentences, in lines of so many characters where they can be broken."""
        parts = []
        for curve in self.curves:
            parts.append(markdown(table(self.tree["stage"], curve), width))
            named = len(curve.variants) > 1
            for name, answer in curve.answers().items():
                parts.append(wrap(f"{name}: {answer}" if named else answer, width))
        parts.append(wrap(HOW_TO_READ, width))
        return "\n\n".join(parts) + "".join(f"\nwrote {file}" for file in self.files)


def enough(curve: Sequence[Point]) -> str:
    """Return in a sentence how many samples are enough, as far as a curve can tell.

    Args:
        curve: Points of increasing numbers of samples.
    """
    last = curve[-1]
    number, score = last.samples, last.score
    told = f"{number} samples score {points(score.value)}"
    one = "" if len(score.per_seed) > 1 else " (one seed: how much trainings vary is not known)"
    if last.guess is not None and score.value - (score.both or 0.0) <= last.guess:
        return (
            f"{told} ±{half_text(score.both)}, not surely more than not looking "
            f"({points(last.guess)}): see that it learns at all before you count samples{one}."
        )
    if last.gain is None:
        return f"{told}{one}; give several numbers to see what more of them add."
    before = max(last.gains)
    if _is_sure(last.gain):
        more = f"{told}, {_change(last.gain)} over {before}"
        if last.gain.value < 0:
            return f"{more}: more samples did worse{one}."
        return f"not enough yet: {more}; more are likely to help, try {2 * number}{one}."
    # The smallest number from which on none is surely worse than the largest.
    level = before
    for smaller in sorted(last.gains, reverse=True):
        if _is_sure(last.gains[smaller]):
            break
        level = smaller
    gain = last.gains[level]
    possible = f"; up to {points(gain.value + gain.both, '+')} is possible" if gain.both else ""
    return (
        f"from {level} on no gain can be told from noise: {told}, {_change(gain)} over "
        f"{level}{possible}{one}."
    )


def _is_sure(found: SeedMean) -> bool:
    return found.verdict in ("yes", "1 seed")


def table(stage: str, curve: TestCurve) -> ReportTable:
    """Return the table of a test set: a row a number of samples."""
    first, *others = curve.variants
    header = ["samples"]
    for name in curve.variants:
        header += [name, "gain"]
    header += [f"{name} - {first}" for name in others]
    by_number: dict[int, dict[str, Point]] = {}
    for name, found in curve.variants.items():
        for point in found:
            by_number.setdefault(point.samples, {})[name] = point
    rows = []
    for number, known in sorted(by_number.items()):
        row = [str(number)]
        for name in curve.variants:
            here = known.get(name)
            row += [cell_text(here.score), _change(here.gain)] if here else ["", ""]
        row += [_change(known[name].difference) if name in known else "" for name in others]
        rows.append(row)
    title = f"{stage}/{curve.dataset}, {curve.unit}, by samples learnt from"
    return ReportTable(title, header, rows, HOW_TO_READ)


def write_curve_report(curve: Curve, out: Path) -> CurveReport:
    """Report the cells of a learning curve that are done.

    Args:
        curve: The curve.
        out: Its directory, where ``curve.json`` and ``curve.png`` are written.

    Raises:
        RunError: If a result is damaged, or two were scored on different samples.
        PathWeaveError: If matplotlib or SciPy is not installed.
        DiskError: If a file cannot be written.
    """
    places = {cell.result(out): cell for cell in curve.grid.cells}
    cells = {
        (cell.method, int(cell.order.removeprefix("n")), cell.seed): load_cell(file)
        for file, cell in places.items()
        if file.is_file()
    }
    check_samples(list(cells.values()))
    curves = list(_curves(curve, cells))
    tree = {
        "recipe": curve.recipe.name,
        "stage": curve.stage,
        "steps": curve.recipe.training_of(curve.stage).steps,
        "seeds": list(curve.grid.declared.seeds),
        "variants": curve.grid.declared.model_dump(mode="json")["methods"],
        "test_sets": {
            each.dataset: {
                "unit": each.unit,
                "answers": each.answers(),
                "curves": {n: [p.as_json() for p in found] for n, found in each.variants.items()},
            }
            for each in curves
        },
    }
    write_json(out / NUMBERS, tree)
    write_atomic(out / PICTURE, picture(f"{curve.recipe.name}: {curve.stage}", curves))
    return CurveReport(tree, curves, [out / NUMBERS, out / PICTURE])


def _curves(curve: Curve, cells: Mapping[Place, LoadedCell]) -> Iterator[TestCurve]:
    """Yield the curves of each test set; all cells are scored on the same resamples of it."""
    for dataset, test_set in curve.recipe.modalities[curve.stage].test.items():
        metric = METRICS[test_set.metric]
        # The whole set where it was scored, else the samples that are scored after every stage.
        kinds = [Scored(after, curve.stage, dataset) for after in (None, curve.stage)]
        columns, num_objects = {}, 0
        for place, cell in cells.items():
            scored = next(kind for kind in kinds if kind in cell.statistics)
            things = cell.objects[scored.objects].tolist()
            num_objects = len(set(things))
            columns[place] = Column(cell.statistics[scored], metric.combine, things)
        drawn = dict(zip(columns, draw_scores([*columns.values()]), strict=True))
        guesses = {
            place: max(known)
            for place, cell in cells.items()
            for info in cell.result.results.datasets[curve.stage]
            if info.name == dataset
            and (known := [each for each in (info.text_only, info.majority) if each is not None])
        }
        variants = {
            name: _points(curve, name, drawn, guesses, num_objects) for name in curve.variants
        }
        yield TestCurve(dataset, metric.unit, variants)


def _points(
    curve: Curve,
    variant: str,
    drawn: Mapping[Place, Draws],
    guesses: Mapping[Place, float],
    num_objects: int,
) -> list[Point]:
    """Return the points of a variant, with what all seeds that are done say of each."""

    def minus(place: Place, other: Place) -> SeedMean | None:
        pairs = [
            drawn[*place[:2], seed] - drawn[*other[:2], seed]
            for seed in curve.grid.declared.seeds
            if (*place[:2], seed) in drawn and (*other[:2], seed) in drawn
        ]
        return mean_over_seeds(np.stack(pairs), num_objects) if pairs else None

    found: list[Point] = []
    for number in curve.samples:
        places = [(variant, number, seed) for seed in curve.grid.declared.seeds]
        known = [place for place in places if place in drawn]
        if not known:
            continue
        own = known[0]
        gains = {p.samples: minus(own, (variant, p.samples, 0)) for p in found}
        guess = [guesses[place] for place in known if place in guesses]
        first = curve.variants[0]
        point = Point(
            samples=number,
            score=mean_over_seeds(np.stack([drawn[place] for place in known]), num_objects),
            guess=float(np.mean(guess)) if guess else None,
            gains={smaller: gain for smaller, gain in gains.items() if gain is not None},
            difference=None if variant == first else minus(own, (first, number, 0)),
        )
        found.append(point)
    return found


def picture(title: str, curves: Sequence[TestCurve]) -> bytes:
    """Draw score against number of samples, a panel a test set, as a PNG.

    Raises:
        PathWeaveError: If matplotlib is not installed.
    """
    figure = new_figure(max(6.5, 5.5 * len(curves)), 4.6)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, curve in zip(panels, curves, strict=True):
        _draw(axes, curve)
    figure.suptitle(title, fontsize=13)
    figure.supxlabel(
        "thin line: 95 % confidence interval over test samples; thick line: over seeds, cut off at "
        "the edge",
        fontsize=8,
    )
    return png(figure, 130)


def _draw(axes: Axes, curve: TestCurve) -> None:
    numbers = sorted({point.samples for found in curve.variants.values() for point in found})
    ends: list[float] = []
    for index, (name, found) in enumerate(curve.variants.items()):
        color = f"C{index % 10}"
        # A little apart, so that the intervals of variants do not hide each other.
        places = [point.samples * 1.03**index for point in found]
        values = [point.score.value for point in found]
        axes.plot(places, values, "-o", color=color, label=name, zorder=3)
        for place, point in zip(places, found, strict=True):
            score = point.score
            ends += score.per_seed
            if score.low is not None and score.high is not None:
                ends += [score.low, score.high]
                axes.plot([place] * 2, [score.low, score.high], color=color, linewidth=1.2)
            if score.seeds is not None:
                wide = [score.value - score.seeds, score.value + score.seeds]
                axes.plot([place] * 2, wide, color=color, linewidth=6, alpha=0.3, zorder=1)
    guesses = [p.guess for found in curve.variants.values() for p in found if p.guess is not None]
    if guesses:
        ends.append(max(guesses))
        style = {"color": "grey", "linewidth": 0.9, "linestyle": "--"}
        axes.axhline(max(guesses), label="without looking", zorder=0, **style)
    room = max(1.0, 0.12 * (max(ends) - min(ends)))
    axes.set_ylim(min(ends) - room, max(ends) + room)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.08)
    axes.set_xlabel("samples learnt from", fontsize=10)
    axes.set_ylabel(curve.unit, fontsize=10)
    axes.set_title(curve.dataset, fontsize=11)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    hide(axes, "top", "right")
    if len(curve.variants) > 1 or guesses:
        axes.legend(fontsize=9, loc="best")


def _change(found: SeedMean | None) -> str:
    if found is None:
        return ""
    mark = {"yes": "*", "1 seed": "(*)"}.get(found.verdict, "")
    return f"{points(found.value, '+')} ±{half_text(found.both)}{mark}"


def _as_json(found: SeedMean) -> dict[str, Any]:
    """Return the plain values of a mean."""
    return {
        "value": found.value,
        "per_seed": list(found.per_seed),
        "seeds_half": found.seeds,
        "samples_low": found.low,
        "samples_high": found.high,
        "both_half": found.both,
        "num_objects": found.num_objects,
    }
