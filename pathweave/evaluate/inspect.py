"""A summary of everything in the directory of a run."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console

from pathweave.display import WholeTable
from pathweave.evaluate.gates import recorded_gate_usage
from pathweave.evaluate.report import score_table
from pathweave.evaluate.results import Results
from pathweave.runs.loading import load_run
from pathweave.runs.path_directory import describe_path
from pathweave.runs.run_directory import RunDirectory


def inspect_run(root: Path, gates: bool = True) -> dict[str, Any]:
    """Return what is known of a run's paths, as plain values.

    Args:
        root: Directory of the run.
        gates: Measure gate usage on the inputs recorded with each path.

    Raises:
        RunError: If the directory is no run.
        PathError: If a path is damaged.
    """
    run = RunDirectory(root)
    recipe = run.recipe()
    finished = run.finished(recipe)
    descriptions = {name: describe_path(run.path(name)) for name in finished}
    usage = {}
    if gates and finished:
        model, _ = load_run(root)
        usage = recorded_gate_usage(model, run, finished)
    shown = ("parameters", "trained_parameters", "content_hash", "modality", "licences")
    paths = {
        name: {
            "predecessors": list(described["predecessors"]),
            **{field: described[field] for field in shown},
            "bytes": sum(f.stat().st_size for f in run.path(name).iterdir()),
            "gate_usage": usage.get(name, {}),
            "medium_use": described.get("medium_use"),
        }
        for name, described in descriptions.items()
    }
    results = Results.load(run.results).model_dump(mode="json") if run.results.exists() else None
    return {
        "run": recipe.name,
        "base": recipe.base,
        "curriculum": list(recipe.curriculum),
        "paths": paths,
        "results": results,
    }


def show_inspection(inspection: dict[str, Any]) -> None:
    """Print an inspection as tables."""
    console = Console()
    stages = f"{len(inspection['paths'])} of {len(inspection['curriculum'])} stages"
    console.print(f"{inspection['run']}: base {inspection['base']}, {stages}")
    headings = ("path", "builds on", "trained", "on disk", "gate usage", "medium", "hash")
    table = WholeTable(*headings, title="Paths", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, path in inspection["paths"].items():
        usage = "  ".join(f"{expert} {w:.2f}" for expert, w in path["gate_usage"].items()) or "-"
        earlier = ", ".join(path["predecessors"]) or "-"
        size = f"{path['trained_parameters']:,}", f"{path['bytes'] / 1e6:.2f} MB"
        use = path.get("medium_use")
        medium = f"{use['loss']:.2f} / {use['swapped']:.2f}" if use else "-"
        table.add_row(name, earlier, *size, usage, medium, path["content_hash"][:8])
    console.print(table, crop=False)
    if any(path.get("medium_use") for path in inspection["paths"].values()):
        console.print("medium: loss with a sample's own medium / with another's, nats per token")
    if inspection["results"]:
        console.print(score_table(Results.model_validate(inspection["results"])), crop=False)
    licences = WholeTable("path", "parts", title="Licences")
    for name, path in inspection["paths"].items():
        stated = path["licences"].get("encoder", "not stated")
        about = path["modality"]
        read = about["reads"].values() if "reads" in about else [about]
        kinds = ", ".join(dict.fromkeys(media["encoder"]["kind"] for media in read))
        parts = {**path["licences"], "encoder": f"{kinds} ({stated})"}
        parts["data"] = ", ".join(parts.pop("data", [])) or "not stated"
        licences.add_row(name, "  ".join(f"{part}: {value}" for part, value in parts.items()))
    console.print(licences, crop=False)
