"""Model card of a path: what the hub reads of it, its scores, licences, and how to use it."""

from typing import Any

import yaml

from pathweave.bases.hub import is_hub_id
from pathweave.bases.mini import KIND, LLM
from pathweave.bases.weights_manifest import manifest
from pathweave.evaluate.report import points
from pathweave.evaluate.results import Results
from pathweave.metrics import unit_of
from pathweave.runs.path_directory import describe_path
from pathweave.runs.run_directory import RunDirectory
from pathweave.share.pack import SUFFIX, Contents
from pathweave.storage.bundle import SHOWN

CARD = "README.md"
COLUMNS = ("score", "whole set", "linear probe", "text only", "majority")


def model_card(run: RunDirectory, contents: Contents, repository: str, licence: str) -> str:
    """Return the model card of a pack, as Markdown with a head of YAML.

    Args:
        run: The run that holds its paths.
        contents: What the pack says of itself.
        repository: Where it is going.
        licence: Licence of the path, as the hub names it.

    Raises:
        PathError: If a path is damaged.
    """
    name, recipe = contents.path, contents.recipe
    about = describe_path(run.path(name))
    head: dict[str, Any] = {"library_name": "pathweave", "pipeline_tag": "any-to-any"}
    if models := _base_models(recipe.base, recipe.llm):
        head |= {"base_model": models, "base_model_relation": "adapter"}
    head |= {"license": licence}
    if licence == "other":
        head["license_name"] = "see-the-card"
    head["tags"] = ["pathweave", "multimodal", "continual-learning", name.replace("_", "-")]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {name}: a path of PathWeave",
        f"A sense for a pretrained vision language model whose weights stay as they are: "
        f"{sum(about['parameters'].values()):,} parameters beside the base `{recipe.base}`"
        f"{f' with the language model `{recipe.llm}`' if recipe.llm else ''} (fingerprint "
        f"`{contents.base[:SHOWN]}`). What base and other paths compute stays the same.",
        _use(contents, repository),
    ]
    if contents.results is not None and (scores := _scores(contents, contents.results)):
        parts.append(scores)
    parts += [_predecessors(contents, about), _licences(run, contents)]
    return "\n\n".join(parts) + "\n"


def _base_models(base: str, llm: str | None) -> list[str]:
    """Return the ids on the hub of what a base is made of, as far as there are any."""
    listed = manifest()
    names = [LLM if base == KIND and llm is None else base, llm or ""]
    found = [listed[name].origin if name in listed else name for name in names]
    return [name for name in found if is_hub_id(name)]


def _use(contents: Contents, repository: str) -> str:
    name, file = contents.path, contents.path + SUFFIX
    reads = contents.recipe.modalities[name].reads
    media = " ".join(f"--{each.replace('_', '-')} FILE" for each in reads or (name,))
    option = f"--path {name} " if reads else ""
    words = [f"pathweave pull {repository}", f"pathweave add RUN {file}      # a run of its base"]
    asked = "RUN"
    if not contents.left_out and contents.connector != "left_out":
        words.append(f"pathweave unpack {file} {name}      # or a run of its own")
        asked = name
    words.append(f'pathweave ask {asked} {option}{media} "What is this?"')
    return "## Use\n\n```bash\n" + "\n".join(words) + "\n```"


def _scores(contents: Contents, results: Results) -> str:
    """Return tables of the scores of the paths in a pack; empty if there are none."""
    matrix, rows = results.matrix, []
    for name, dataset in results.columns:
        stages = [s for s, m, d, _ in results.scored() if (m, d.name) == (name, dataset.name)]
        if name not in contents.paths or not stages:
            continue
        known = (dataset.whole, dataset.probe, dataset.text_only, dataset.majority)
        values = [matrix.score(stages[-1], name, dataset.name), *known]
        shown = ["" if value is None else f"{value:.1f}" for value in values]
        rows.append(
            f"| {name} | {dataset.name} ({unit_of(dataset.metric)}) | {' | '.join(shown)} |"
        )
    if not rows:
        return ""
    head = f"| path | test set | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}"
    told = [f"## Scores\n\n{head}\n" + "\n".join(rows)]
    for name in contents.paths:
        stage = results.curriculum.index(name) if name in results.curriculum else -1
        if stage in results.finished_stages:
            line = f"{name}: transfer T {points(matrix.transfer(stage))}"
            if stage and all(matrix.can_lose(stage, each) for each in results.curriculum[:stage]):
                line += f", forgetting F {points(matrix.forgetting_mean(stage))}"
            told.append(f"{line} (points, after learning it as stage {stage} of its run).")
    return "\n\n".join(told)


def _predecessors(contents: Contents, about: dict[str, Any]) -> str:
    lines = [
        f"- `{name}` `{hash_[:SHOWN]}`, {'in the file' if name in contents.paths else 'not in it'}"
        for name, hash_ in about["predecessors"].items()
    ]
    return "## It builds on\n\n" + ("\n".join(lines) or "The base alone.")


def _licences(run: RunDirectory, contents: Contents) -> str:
    """Return the licences of all that the paths in a pack are made of and with."""
    rows: dict[str, str] = {}
    for name in contents.paths:
        stated = {**describe_path(run.path(name)).get("licences", {})}
        kinds = ", ".join(contents.recipe.encoder_kinds(name))
        rows[f"{name}: encoder {kinds}"] = stated.pop("encoder", "not stated")
        rows[f"{name}: data"] = ", ".join(stated.pop("data", None) or []) or "not stated"
        rows |= stated
    table = "\n".join(f"| {part} | {licence} |" for part, licence in rows.items())
    return f"## Licences of its parts\n\n| part | licence |\n|---|---|\n{table}"
