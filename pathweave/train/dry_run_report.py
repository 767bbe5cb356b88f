"""A plan as text."""

from rich.console import Console

from pathweave.train.dry_run import Plan, StagePlan
from pathweave.train.manifest_reports import ManifestReport

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def show_plan(plan: Plan, console: Console) -> None:
    """Print what would happen, then what is missing."""
    for line in lines(plan):
        # A path that is cut in two cannot be copied.
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def lines(plan: Plan) -> list[str]:
    """Return the plan line by line."""
    text = [f"{plan.recipe}: what a run into {plan.out} would do", "", "Weights"]
    for found in plan.weights:
        state = "missing" if found.problem else "here"
        text.append(f"  {state:<8} {found.part}: {found.place}")
    for number, stage in enumerate(plan.stages, start=1):
        text += ["", f"Stage {number}: {stage.name}", *(f"  {line}" for line in _stage(stage))]
    text += [
        "",
        f"Scored: {plan.answers:,} answers over all stages",
        f"Cached: at most {_size(plan.cache_bytes)} of features in {plan.cache} "
        f"({_size(plan.free_bytes)} free)",
        "",
    ]
    if not plan.problems:
        return [*text, "Nothing is missing."]
    text.append(f"Problems ({len(plan.problems)})")
    return [*text, *(f"  {number}. {said}" for number, said in enumerate(plan.problems, start=1))]


def _stage(stage: StagePlan) -> list[str]:
    said = {"learnt": "learnt already", "in the base": "comes with the base: nothing is trained"}
    text = [said.get(stage.state) or f"trains {', '.join(stage.trains)}"]
    if stage.state == "to learn":
        text.append(f"builds on {', '.join(stage.predecessors) or 'the base alone'}")
        drawn = stage.steps * stage.batch_size
        text.append(f"{stage.steps:,} steps of {stage.batch_size}: {drawn:,} samples")
    text += [
        f"learns {train.name}: {_rows(train.data)}, {train.share:.1%} of the samples drawn, "
        f"{train.rounds:g} rounds; licences: {', '.join(train.data.licences) or 'unknown'}"
        for train in stage.train
    ]
    text += [
        f"scores {test.name}: {_rows(test.data)}, {test.scored:,} of them after each stage, by "
        f"{test.metric}"
        for test in stage.test
    ]
    if stage.medium_bytes is None:
        return [*text, "features on disk: of a size not known yet"]
    return [
        *text,
        f"features on disk: {_size(stage.medium_bytes)} a medium, {_size(stage.feature_bytes)}",
    ]


def _rows(data: ManifestReport) -> str:
    if not data.samples:
        return "no manifest"
    return f"{data.samples:,} samples" + (f" ({data.broken:,} more broken)" if data.broken else "")


def _size(count: int) -> str:
    for factor, unit in _UNITS:
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count} B"
