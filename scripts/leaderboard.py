"""Makes one static page of all submissions in a directory.

    python -m scripts.leaderboard DIR --out page.html

Submissions are what `pathweave compare GRID --out DIR --submit DIR` writes. Each is checked; one
that does not hold is left out and named with the reason, and the exit status is 1. Those with the
same test samples are in one table. The page needs no other file and no network.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from pathweave.compare.quantities import APART
from pathweave.compare.submission import QUANTITIES, Entry, Submission, read_submission
from pathweave.compare.summary import half_text
from pathweave.errors import RunError
from pathweave.storage.atomic import write_atomic

NAMES = {"accuracy": "questions, %", "captions": "captions, CIDEr-D x100"}
STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d0d7de, #3d444d); --soft: light-dark(#59636e,
#9198a1); --back: light-dark(#ffffff, #0d1117); --ink: light-dark(#1f2328, #f0f6fc);
--good: light-dark(#116329, #56d364); }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--back); color: var(--ink);
font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
p, li, summary { overflow-wrap: anywhere } .soft, small { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; white-space: nowrap; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right }
thead tr:first-child th { text-align: center }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
background: var(--back) }
.good { color: var(--good); font-weight: 600 }
pre { overflow-x: auto; font-size: .8rem }
"""
ABOUT = """
<p>T, transfer: the score of a modality right after it is learnt, higher is better. F, forgetting:
what earlier modalities lose, lower is better. Final: the score of all modalities after the last
stage. A cell is the mean over seeds &plusmn; the half-width of its 95 % confidence interval over
seeds / over test samples. <span class="good">0, proved</span>: with every seed each test sample of
each earlier modality got the same after every later stage, to the last bit.</p>
<p>To add a file: <code>pathweave compare GRID --out DIR --submit DIR</code>. The means are computed
again from the scores in the file; recipes and seeds tell how to run it again.</p>
"""


def main() -> None:
    """Writes the page and says what was left out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found, refused = read_all(options.directory)
    write_atomic(options.out, page(found, refused).encode())
    for reason in refused:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"wrote {options.out}: {len(found)} submissions")
    sys.exit(1 if refused else 0)


def read_all(directory: Path) -> tuple[list[Submission], list[str]]:
    """The submissions of a directory that hold, and why the others do not."""
    found, refused = [], []
    for file in sorted(directory.glob("*.json")):
        try:
            found.append(read_submission(file))
        except RunError as error:
            refused.append(str(error).replace(f"{directory}/", ""))
    return found, refused


def page(found: Sequence[Submission], refused: Sequence[str]) -> str:
    """The page, as HTML."""
    alike: dict[str, list[Submission]] = defaultdict(list)
    for each in found:
        scored = {key: own for key, own in each.data.items() if "/train/" not in key}
        alike[json.dumps([each.curriculum, each.metrics, scored], sort_keys=True)].append(each)
    body = "".join(part for group in alike.values() for part in _group(group))
    if refused:
        rows = "".join(f"<li>{escape(reason)}</li>" for reason in refused)
        body += f"<h2>Left out</h2><ul>{rows}</ul>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>PathWeave: results</title>'
        f"<style>{STYLE}</style></head><body><h1>Learning one modality after another: results</h1>"
        f"{ABOUT}{body or '<p>No submission yet.</p>'}</body></html>\n"
    )


def _group(group: Sequence[Submission]) -> Iterator[str]:
    """The table of submissions with the same test samples, and what is behind it."""
    first = group[0]
    yield f"<h2>{escape(', '.join(first.curriculum))}</h2>"
    metrics = "; ".join(f"{name}: {metric}" for name, metric in first.metrics.items())
    yield f'<p class="soft">{escape(metrics)}</p>'
    kinds = [k for k in APART if any(f"T/{k}" in e.means for s in group for e in s.entries)]
    rows = [(entry, each) for each in group for entry in each.entries]
    best = f"{QUANTITIES[-1]}/{kinds[0]}" if kinds else ""
    rows.sort(key=lambda row: -row[0].means[best].value if best in row[0].means else 0.0)
    top = "".join(f'<th colspan="3">{NAMES[kind]}</th>' for kind in kinds)
    names = "".join(f"<th>{quantity}</th>" for _ in kinds for quantity in QUANTITIES)
    yield f'<div class="wide"><table><thead><tr><th></th>{top}<th colspan="3"></th></tr>'
    yield f"<tr><th>method</th>{names}<th>trained a stage</th><th>seeds</th><th>from</th></tr>"
    yield "</thead><tbody>"
    for entry, each in rows:
        means = "".join(f"<td>{_mean(entry, f'{q}/{k}')}</td>" for k in kinds for q in QUANTITIES)
        trained = f"{max(cell.trained for cell in entry.cells):,}"
        more = f"<td>{trained}</td><td>{len(each.seeds)}</td><td>{escape(each.name)}</td>"
        yield f"<tr><td>{escape(entry.method)}</td>{means}{more}</tr>"
    yield "</tbody></table></div>"
    for each in group:
        yield f"<details><summary>Behind {escape(each.name)}: hashes, versions, proofs</summary>"
        yield f"<pre>{escape(_behind(each))}</pre></details>"


def _mean(entry: Entry, name: str) -> str:
    mean = entry.means.get(name)
    if mean is None:
        return ""
    if name[0] == "F" and entry.forgets_nothing:
        return '<span class="good">0, proved</span>'
    around = None if mean.low is None or mean.high is None else (mean.high - mean.low) / 2
    halves = f"{half_text(mean.seeds)}/{half_text(around)}"
    return f"{mean.value:.1f} <small>&plusmn;{halves}</small>"


def _behind(each: Submission) -> str:
    """What a submission was made from, as text."""
    lines = [f"file: {each.content_hash}", *(f"{k}: {v}" for k, v in each.data.items())]
    for entry in each.entries:
        proof = f"{entry.proof.identical} of {entry.proof.compared} test sets unchanged"
        lines.append(f"\n{entry.method}: {proof}")
        for cell in entry.cells:
            versions = ", ".join(f"{name} {version}" for name, version in cell.versions.items())
            lines.append(f"  seed {cell.seed}: recipe {cell.recipe_hash}; {versions}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
