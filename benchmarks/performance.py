"""Run the benchmarks one after another and write docs/performance.md from their figures.

    python -m benchmarks.performance                  (make bench)
    python -m benchmarks.performance --only connector,start_up
    python -m benchmarks.performance --write          (the page alone, of figures that are there)

A benchmark that fails is named, and the others go on. Nothing else should run meanwhile.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "performance"
PAGE = ROOT / "docs" / "performance.md"
# In the order of the page; what needs a server, a GPU, a night, 14 GB or more (full_size_step,
# load_base) or keeps all cores busy on purpose (busy) is run by hand.
SCRIPTS = (
    "connector",
    "llm_hosts",
    "profile_stage",
    "inference",
    "peft_switching",
    "serving",
    "memory",
    "feature_store",
    "sensor_inputs",
    "side_by_side",
)
START, END = "<!-- figures: written by python -m benchmarks.performance -->", "<!-- end -->"


def sections(results: Path) -> Iterator[str]:
    """Yield the page's section of every benchmark that has figures."""
    for name in [
        *SCRIPTS,
        *sorted(p.stem for p in results.glob("*.json") if p.stem not in SCRIPTS),
    ]:
        if (path := results / f"{name}.json").exists():
            yield section(json.loads(path.read_text(encoding="utf-8")))


def section(found: Mapping[str, Any]) -> str:
    """Return the section of one benchmark: question, command, machine, table."""
    settings = ", ".join(f"{key} {value}" for key, value in found["settings"].items())
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    lines = [f"## {found['question']}", "", f"`python -m benchmarks.{found['name']}`"]
    lines += [settings + "." if settings else "", f"Machine: {machine}.", ""]
    figures = [Figure(**each) for each in found["figures"]]
    peers = any(each.peer is not None for each in figures)
    head = ["", "measured", "limit", "kept", *(["peer"] if peers else []), "note"]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for each in figures:
        peer = [] if not peers else ["" if each.peer is None else f"{each.peer:,.3g}"]
        shown = f"{each.value:,.3g} {each.unit}".replace(" x", "")
        cells = [each.label, shown, each.limit, each.verdict, *peer, each.note]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(page: Path, results: Path) -> None:
    """Replace what stands between the two marks of the page."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    body = "\n\n".join(sections(results))
    page.write_text(f"{before}{START}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Run what was asked for, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="names, with commas between them")
    parser.add_argument("--write", action="store_true", help="write the page alone")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else SCRIPTS
    if wrong := [name for name in names if name not in SCRIPTS]:
        raise SystemExit(f"benchmarks are {', '.join(SCRIPTS)}, got {wrong[0]}")
    failed = []
    for name in () if options.write else names:
        line = [sys.executable, "-m", f"benchmarks.{name}", "--out", str(RESULTS)]
        if subprocess.run(line, cwd=ROOT, check=False).returncode:
            failed.append(name)
    write(PAGE, RESULTS)
    if failed:
        raise SystemExit(f"benchmarks failed: {', '.join(failed)}; see above")


if __name__ == "__main__":
    main()
