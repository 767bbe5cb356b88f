"""A plan as text."""

from rich.filesize import decimal

from pathweave.train.dry_run import Plan, StagePlan
from pathweave.train.manifest_reports import ManifestReport


def lines(plan: Plan) -> list[str]:
    """Return line by line what would happen, then what is missing."""
    text = [f"{plan.recipe}: what a run into {plan.out} would do", "", "Weights"]
    for found in plan.weights:
        state = "missing" if found.problem else "here"
        text.append(f"  {state:<8} {found.part}: {found.place}")
    for number, stage in enumerate(plan.stages, start=1):
        text += ["", f"Stage {number}: {stage.name}", *(f"  {line}" for line in _stage(stage))]
    text += [
        "",
        f"Scored: {plan.answers:,} answers over all stages",
        f"Cached: at most {decimal(plan.cache_bytes)} of features in {plan.cache} "
        f"({decimal(plan.free_bytes)} free)",
        "",
    ]
    if not plan.problems:
        return [*text, "Nothing is missing."]
    text.append(f"Problems ({len(plan.problems)})")
    return [*text, *(f"  {number}. {said}" for number, said in enumerate(plan.problems, start=1))]


def _stage(stage: StagePlan) -> list[str]:
    text = {
        "learnt": ["learnt already"],
        "in the base": ["comes with the base: nothing is trained"],
        "to learn": [
            f"trains {', '.join(stage.trains)}",
            f"builds on {', '.join(stage.predecessors) or 'the base alone'}",
            f"{stage.steps:,} steps of {stage.batch_size}: "
            f"{stage.steps * stage.batch_size:,} samples",
        ],
    }[stage.state]
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
    size = "of a size not known yet"
    if stage.medium_bytes is not None:
        size = f"{decimal(stage.medium_bytes)} a medium, {decimal(stage.feature_bytes)}"
    return [*text, f"features on disk: {size}"]


def _rows(data: ManifestReport) -> str:
    if not data.samples:
        return "no manifest"
    return f"{data.samples:,} samples" + (f" ({data.broken:,} more broken)" if data.broken else "")
