"""Write the table of docs/mcl.md that puts PathWeave's claims beside what the grids show.

python -m scripts.mcl_verdict
"""

import csv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- verdict: begin -->", "<!-- verdict: end -->"
GRIDS = {"grid": "mcl_mini_grid", "full length": "mcl_mini_full_length"}
KINDS = {"accuracy": "questions", "captions": "captions"}
CLAIMS = {
    "F, sequential fine-tuning": ("F", "sequential"),
    "final, sequential fine-tuning": ("final", "sequential"),
    "T, sequential fine-tuning": ("T", "sequential"),
    "T, EProj": ("T", "eproj"),
    "T, L2": ("T", "l2"),
    "T, WiSE-FT": ("T", "wise_ft"),
    "T, without gates": ("T", "no_gate"),
    "T, adapters alone": ("T", "adapters"),
    "T, a connector for each modality (`independent`, upper bound)": ("T", "independent"),
}

# Rows of a report's CSV: means over the modalities of the main order, by method, quantity, kind.
Rows = Mapping[tuple[str, str, str], Mapping[str, str]]


def main() -> None:
    """Read the CSV files of both reports and replace the table."""
    grids = {name: read(ROOT / f"docs/results/{file}.csv") for name, file in GRIDS.items()}
    page = ROOT / "docs/mcl.md"
    page.write_text(with_table(page.read_text(encoding="utf-8"), grids), encoding="utf-8")


def read(file: Path) -> Rows:
    """Return the rows of a report that hold means in the main order."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["order"] == "main"]
    means = [row for row in rows if row["modality"] == "mean"]
    return {(row["method"], row["quantity"], row["kind"]): row for row in means}


def with_table(page: str, grids: Mapping[str, Rows]) -> str:
    """Return the page with the table between the marks replaced."""
    before, rest = page.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{table(grids)}\n{END}{rest.split(END, 1)[1]}"


def table(grids: Mapping[str, Rows]) -> str:
    """Return differences, PathWeave minus the other, as Markdown."""
    columns = [(grid, kind) for grid in grids for kind in KINDS]
    lines = [["PathWeave minus the other", *(f"{grid}: {KINDS[kind]}" for grid, kind in columns)]]
    lines += [["---"] * len(lines[0])]
    lines += [["F of PathWeave itself", *(_own(grids[grid], kind) for grid, kind in columns)]]
    for claim, (quantity, method) in CLAIMS.items():
        rows = [grids[grid].get((method, quantity, kind)) for grid, kind in columns]
        lines.append([claim, *map(difference, rows)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _own(rows: Rows, kind: str) -> str:
    own = rows["pathweave", "F", kind]
    seeds = int(own["num_seeds"])
    exactly = float(own["value"]) == 0 and float(own["samples_high"]) == 0
    return f"{'exactly 0' if exactly else own['value']}, {seeds} seed{'s' * (seeds > 1)}"


def difference(row: Mapping[str, str] | None) -> str:
    """Return PathWeave minus the other with its interval; the report's is the other way round.

    Example:
        >>> difference({"minus_reference": "-4.17", "both_half": "6.59"})
        '+4.2 ± 6.6 (n.s.)'
        >>> difference(None)
        ''
    """
    if row is None or not row["minus_reference"]:
        return ""
    value, half = -float(row["minus_reference"]), float(row["both_half"])
    digits = 1 if half < 10 else 0
    return f"{value:+.{digits}f} ± {half:.{digits}f}" + " (n.s.)" * (abs(value) <= half)


if __name__ == "__main__":
    main()
