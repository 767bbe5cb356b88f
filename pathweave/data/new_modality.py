"""A new modality from labelled files: a split without leaks, manifests and a recipe."""

import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pathweave.data.labelled_files import LabelledFile, find_labelled_files
from pathweave.data.manifest import write_manifest
from pathweave.data.splits import SHARES, split_without_leaks
from pathweave.data.survey import SHOWN, Survey, survey_files
from pathweave.display import Display
from pathweave.errors import ManifestError, RecipeError, RequestError
from pathweave.model.paths import NAME
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.schema import RESERVED_NAMES
from pathweave.storage.atomic import new_directory, write_atomic


def new_modality(  # noqa: PLR0913 (what a user says)
    name: str,
    source: Path,
    display: Display,
    label: str | None = None,
    question: str = "What is it?",
    group: str | None = None,
    recording: str | None = None,
    rate: float | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write manifests and a recipe for labelled files; nothing is written if they are refused.

    Args:
        name: Name of the modality.
        source: A directory of class folders, a directory with a table beside the media, or a table.
        display: Where progress is shown.
        label: Column of the labels.
        question: What is asked about every medium.
        group: Column of what must stay in one split.
        recording: Column that says which recording a row of one long table belongs to.
        rate: Samples per second, in Hz, of recordings that do not say it; others are resampled.
        out: Directory to write; None is ``name``.
        seed: Seed of the split.

    Returns:
        What was found and written, as plain values.

    Raises:
        RecipeError: If the name cannot be one.
        RequestError: If the arguments do not fit the files, or ``out`` is not empty.
        ManifestError: If labels are missing, of one class, or too few to be split.
        MediaError: If more than a tenth of the files cannot be read.
    """
    out = Path(name) if out is None else out
    _check_words(name, question, rate, out)
    found = find_labelled_files(source, label, group, recording)
    _check_classes(found.files)
    with display:
        survey = survey_files(found, rate, display)
    files = [file for file in found.files if file.name not in survey.problems]
    _check_classes(files)
    splits = _split(files, survey, seed)
    rows, media = _rows(name, question, files, out)
    text = _recipe_text(name, source, out, survey, max(len(file.label) for file in files))
    with new_directory(out) as directory:
        for path, data in media.items():
            (directory / path).parent.mkdir(exist_ok=True)
            write_atomic(directory / path, data)
        for split in SHARES:
            write_manifest(
                directory / f"{split}.jsonl",
                [row for row in rows if splits[row["id"]] == split],
            )
        write_atomic(directory / "recipe.yaml", text.encode())
        load_recipe(directory / "recipe.yaml")
    lengths = sorted(survey.lengths)
    shown = next(row for row in rows if splits[row["id"]] == "test")
    medium = os.path.normpath(out / shown["messages"][0]["content"][0]["path"])
    run = f"runs/{name}"
    return {
        "name": name,
        "out": str(out),
        "kind": found.kind,
        "recordings": len(files),
        "channels": survey.channels,
        "rate": survey.rate,
        "seconds": [lengths[0], float(np.median(lengths)), lengths[-1]] if lengths else None,
        "classes": dict(sorted(Counter(file.label for file in files).items())),
        "with_gaps": survey.with_gaps,
        "left_out": list(survey.problems.values()),
        "notes": [*found.notes, *survey.notes],
        "warnings": survey.warnings,
        "splits": dict(Counter(splits[file.name] for file in files)),
        "decoder": survey.decoder,
        "next": [
            shlex.join(["pathweave", "evolve", str(out / "recipe.yaml"), "--out", run]),
            shlex.join(["pathweave", "ask", run, f"--{name}", medium, question]),
        ],
    }


def _check_words(name: str, question: str, rate: float | None, out: Path) -> None:
    """Check what the user has said by itself.

    Raises:
        RecipeError: If the name cannot be one.
        RequestError: If the question is empty, the rate not positive, or ``out`` not empty.
    """
    if not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise RecipeError(
            "a modality's name must be lower-case letters, digits and underscores and none of "
            f"{sorted(RESERVED_NAMES)}, got {name!r}; choose another"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"--out must be new or empty, got {out}; choose another directory")
    if not question.strip():
        raise RequestError(f"--question must be words, got {question!r}; leave it out or ask")
    if rate is not None and not (rate > 0 and math.isfinite(rate)):
        raise RequestError(f"--rate must be positive, in Hz, got {rate:g}; correct it")


def show_modality(made: Mapping[str, Any]) -> str:
    """Return what was found and written, and what to type next, as lines of text."""
    channels, seconds = made["channels"], made["seconds"]
    lines = [f"{made['name']}: {made['recordings']:,} recordings ({made['kind']})"]
    if channels is not None:
        named = channels if isinstance(channels, int) else f"{len(channels)}: {', '.join(channels)}"
        time = made["decoder"].get("time")
        unit = f" (in {told})" if (told := made["decoder"].get("time_unit")) else ""
        by = f", by the times in column {time!r}{unit}" if time else ""
        lines.append(f"channels: {named}; {made['rate']:g} Hz{by}")
    elif made["rate"]:
        lines.append(f"rate: {made['rate']:g} Hz")
    if seconds:
        shortest, median, longest = (f"{value:.3g} s" for value in seconds)
        lines.append(f"length: {shortest} to {longest}, median {median}")
    counts = ", ".join(f"{answer} {count:,}" for answer, count in made["classes"].items())
    lines.append(f"classes: {counts}")
    if made["with_gaps"]:
        lines.append(f"gaps: values are missing in {made['with_gaps']:,}; the recipe masks them")
    lines += made["notes"]
    if left_out := made["left_out"]:
        more = f", and {len(left_out) - SHOWN:,} more" if len(left_out) > SHOWN else ""
        lines.append(f"left out, as they cannot be read: {len(left_out):,}{more}")
        lines += [f"  {problem}" for problem in left_out[:SHOWN]]
    lines += [f"warning: {warning}" for warning in made["warnings"]]
    lines.append(", ".join(f"{split}: {made['splits'][split]:,}" for split in SHARES))
    names = ", ".join(f"{split}.jsonl" for split in SHARES)
    return "\n".join([*lines, f"{made['out']}: recipe.yaml, {names}", "", "next:",
                      *(f"  {command}" for command in made["next"])])  # fmt: skip


def _check_classes(files: Sequence[LabelledFile]) -> None:
    if len(classes := {file.label for file in files}) < 2:
        raise ManifestError(
            f"labels must be of two classes or more, got {', '.join(classes) or 'none'} alone; add "
            "media of another class"
        )


def _split(files: Sequence[LabelledFile], survey: Survey, seed: int) -> dict[str, str]:
    """Return the split of each file, and warn of what it does to the classes."""
    labels = {file.name: file.label for file in files}
    keys = {
        file.name: [f"content {survey.hashes[file.name]}"]
        + ([f"group {file.group}"] if file.group else [])
        for file in files
    }
    splits, rare = split_without_leaks(labels, keys, seed)
    for split in SHARES:
        if split not in splits.values():
            raise ManifestError(
                f"a class must have {len(SHARES)} samples or groups of different content, one a "
                f"split, got fewer in every class ({', '.join(rare[:SHOWN])}) and none for "
                f"{split}; add some"
            )
    if rare:
        survey.warnings.append(
            f"learnt and never tested, as there are fewer than {len(SHARES)} samples or groups of "
            f"them: {', '.join(rare)}; add some, or leave the class out"
        )
    there = {(labels[name], split) for name, split in splits.items()}
    for split in SHARES:
        lacking = {label for label in labels.values() if (label, split) not in there} - {*rare}
        if lacking:
            survey.warnings.append(
                f"{split} has none of {', '.join(sorted(lacking))}, as groups cannot be parted; "
                "try another --seed, or add groups"
            )
    by_content: dict[str, LabelledFile] = {}
    twins = [(by_content.setdefault(survey.hashes[file.name], file), file) for file in files]
    if wrong := [(one, other) for one, other in twins if one.label != other.label]:
        one, other = wrong[0]
        survey.warnings.append(
            f"{len(wrong):,} files are identical to one with another label, as {other.name} "
            f"({other.label}) is to {one.name} ({one.label}); correct the labels"
        )
    return splits


def _rows(
    name: str, question: str, files: Sequence[LabelledFile], out: Path
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the rows of all manifests, and the media to be written, by their place in ``out``."""
    here = Path(os.path.abspath(out))
    rows, media = [], {}
    for number, file in enumerate(files, start=1):
        if file.path is None:
            path = f"media/{number:05d}.csv"
            media[path] = file.read()
        else:
            place = Path(os.path.abspath(file.path))
            is_near = place.is_relative_to(here.parent)
            path = Path(os.path.relpath(place, here) if is_near else place).as_posix()
        content = [{"type": name, "path": path}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content},
                    {"role": "assistant", "content": file.label}]  # fmt: skip
        group = {"object": file.group} if file.group else {}
        rows.append({"id": file.name, "messages": messages, **group})
    return rows, media


_ABOUT = {
    "kind": "",
    "rate": "samples per second; other rates are resampled",
    "channels": "what is read of a recording",
    "time": "the column of times",
    "time_unit": "their unit",
    "gaps": "missing values are marked as missing",
    "header": "the first row holds values and no names",
    "decimal": "the sign between units and tenths",
    "seconds": "length of a window",
    "windows": "most windows that are read of a medium",
    "frames": "pictures that are taken of a clip",
    "length": "samples of a patch, which becomes a token",
    "stride": "samples from one patch to the next",
}
_KINDS = {
    "series": "tables, arrays: numbers over time",
    "sound": "WAV, FLAC, Ogg, MP3",
    "picture": "every format of Pillow",
    "clip": "moving pictures",
    "points": "clouds and meshes",
    "sound-effects": "a frozen encoder of sounds; `pathweave fetch` gets its weights",
    "efficientnet-lite0": "a frozen encoder of pictures; `pathweave fetch` gets its weights",
}


def _recipe_text(name: str, source: Path, out: Path, survey: Survey, longest: int) -> str:
    """Return the recipe as YAML with a comment on every line."""
    key = _yaml(name)
    lines: list[tuple[str, str]] = [
        (f"name: {key}", "title of the run"),
        ("base: mini", "the small base; for others see docs/running.md"),
        ("modalities:", "what can be perceived"),
        (f"  {key}:", "the new sense"),
    ]
    sections = {"decoder": ("how a file becomes numbers", survey.decoder)}
    sections["encoder"] = ("how numbers become features", survey.encoder)
    if survey.patches:
        sections["patches"] = ("the encoder that the path trains for itself", survey.patches)
    for section, (about, options) in sections.items():
        lines.append((f"    {section}:", about))
        for option, value in options.items():
            said = _KINDS.get(str(value), "") if option == "kind" else _ABOUT[option]
            if section == "encoder" and survey.patches:
                said = "hands the numbers on to the patches" if option == "kind" else "how many"
            lines.append((f"      {option}: {_yaml(value)}", said))
    training = "{steps: 300, patches_lr: 2.0e-3}" if survey.patches else "{steps: 300}"
    most = max(12, longest // 2 + 2)
    lines += [
        (f"    cue: {_yaml(name + ':')}", "words put before the medium"),
        ("    train:", "what is learnt from"),
        ("      qa: {manifest: train.jsonl, balance: 0.5}", "rare answers are drawn more often"),
        ("    test:", "scored by the share of right answers"),
        *(
            (f"      {split}: {{manifest: {split}.jsonl, metric: exact_match, max_tokens: {most}}}",
             about)
            for split, about in (("val", "to choose settings by"), ("test", "to be told, once"))
        ),
        (f"    training: {training}", "steps: how long; more for more data"),
        (f"curriculum: [{key}]", "the order in which senses are learnt"),
        ("training:", "how, if a sense does not say otherwise"),
        ("  connector: true", "the small base has seen nothing: its first sense trains all"),
        ("  batch_size: 16", "samples a step"),
        ("  lr: 2.0e-4", "peak learning rate"),
        ("  projector_lr: 1.0e-3", "that of the layer before the language model"),
    ]  # fmt: skip
    extend = shlex.join(["pathweave", "extend", "RUN", str(out / "recipe.yaml")])
    evolve = shlex.join(["pathweave", "evolve", str(out / "recipe.yaml"), "--out", f"runs/{name}"])
    head = [
        f"# {name}, from {str(source)!a}.",
        f"#   {evolve}",
        "#",
        "# To add this sense to a run that is there, which keeps what it has learnt:",
        f"#   {extend}",
    ]
    body = [f"{text:<50}  # {about}" if about else text for text, about in lines]
    return "\n".join(head + body) + "\n"


def _yaml(value: object) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**9)
    return text.strip()[1:-1]
