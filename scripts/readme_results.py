"""Copy the results of a run into docs/results and the README.

python scripts/readme_results.py runs/mcl_mini
"""

import argparse
import shutil
from pathlib import Path

from pathweave.evaluate.results import Results
from pathweave.metrics import unit_of

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:", "<!-- end of results -->"


def main() -> None:
    """Read a run, keep its results, and write them into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="Directory of a finished run.")
    run = parser.parse_args().run
    kept = ROOT / "docs" / "results"
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "results.json", kept / "mcl_mini.json")
    shutil.copy(run / "results.png", kept / "mcl_mini.png")
    readme = ROOT / "README.md"
    readme.write_text(
        with_results(readme.read_text(encoding="utf-8"), Results.load(kept / "mcl_mini.json")),
        encoding="utf-8",
    )


def with_results(readme: str, results: Results) -> str:
    """Return the README with the section between the markers replaced."""
    before, rest = readme.split(BEGIN, 1)
    marker, rest = rest.split("\n", 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}{marker}\n{section(results)}{END}{after}"


def section(results: Results) -> str:
    """Return the results as Markdown."""
    environment = results.environment
    assert environment is not None
    peak = environment.peak_memory_bytes / 1e9
    seconds = sum(stage.seconds or 0 for stage in results.stages)
    lines = [
        f"`make evolve` on {environment.num_cpus} CPU cores, Python {environment.python}, torch "
        f"{environment.torch}, language model in {environment.dtype}: {seconds / 60:.0f} minutes "
        f"of training, {peak:.1f} GB peak memory. One seed. Scores are of whole test sets.",
        "",
        "| modality | test set | score | linear probe | majority | text only |",
        "|---|---|---|---|---|---|",
    ]
    for modality, dataset in results.columns:
        cells = [dataset.whole, dataset.probe, dataset.majority, dataset.text_only]
        shown = " | ".join("" if value is None else f"{value:.1f}" for value in cells)
        size = f"{dataset.num_whole:,} samples, {unit_of(dataset.metric)}"
        lines.append(f"| {modality} | {dataset.name} ({size}) | {shown} |")
    lines += [
        "",
        "| stage | trained parameters | share of full fine-tuning | on disk | T | F | training |",
        "|---|---|---|---|---|---|---|",
    ]
    matrix = results.matrix
    for index, stage in enumerate(results.stages):
        forgetting = f"{matrix.forgetting_mean(index):.1f}" if index else ""
        size = f"{(stage.num_bytes or 0) / 1e6:.2f} MB"
        lines.append(
            f"| {stage.modality} | {stage.trained:,} | {stage.share:.2f} % | {size} | "
            f"{matrix.transfer(index):.1f} | {forgetting} | {stage.seconds or 0:.0f} s |"
        )
    subset = results.columns[0][1].num_samples
    lines += [
        "",
        "T (transfer) is the score of a modality right after its stage, F (forgetting) what the "
        "earlier modalities have lost since their best, on average; both as in the paper, points "
        f"on the same {subset} samples of each set. The first stage makes the base: it trains the "
        "whole connector, and stands for the pretrained model that the paper starts from.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
