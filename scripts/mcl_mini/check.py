"""Checks the built benchmark and prints what is in it.

    python -m scripts.mcl_mini.check --data data/mcl-mini

Exit status 1 if anything is wrong: a split that shares a thing with another, furniture seen both as
depth and as points, a medium that is missing, damaged, unused or without a licence, a joint
question that one medium tells the answer to, a file that differs from checksums.json.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq

from scripts.mcl_mini.balance import Row, media_of, most_told

MODALITIES = ("image", "video", "audio", "depth", "point_cloud")
TASKS = ("qa", "caption")
JOINT = "joint"
JOINT_TASKS = ("qa", "pick", "heard")
SPLITS = ("train", "validation", "test")
LEAST = {"train": 1000, "validation": 100, "test": 300}
MOST_BYTES = 40_000_000
CHECKSUMS = "checksums.json"
CREDIT_COLUMNS = ("object", "source", "licence", "attribution")
MEDIA_COLUMNS = ("key", "bytes", *CREDIT_COLUMNS)
# Of the media of a joint question, the most that must not tell its answer together with the text.
HIDING = {"qa": ((), (0,), (1,)), "pick": ((),), "heard": ((), (0,), (1,))}
MOST_TOLD = 50.0


def rows(path: Path) -> list[Row]:
    """All rows of a Parquet file."""
    return pq.read_table(path).to_pylist()


def key_of(row: Row) -> str:
    """The key of the medium of a manifest row."""
    part = next(p for p in row["messages"][0]["content"] if p["type"] != "text")
    return str(part["path"]).removeprefix("media.parquet#")


def answer_of(row: Row) -> str:
    """The answer of a manifest row."""
    return str(row["messages"][-1]["content"][0]["text"])


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every Parquet file by its path below the folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*/*.parquet"))
    }


def _row_problems(name: str, row: Row, task: str) -> list[str]:
    """What is wrong with one manifest row."""
    found = []
    if answer_of(row) not in row["references"]:
        found.append("the answer is not a reference")
    if task == "qa" and answer_of(row) not in row["choices"]:
        found.append("the answer is not a choice")
    if len(answer_of(row).split()) > (12 if task == "caption" else 3):
        found.append(f"the answer is too long: {answer_of(row)}")
    if answer_of(row) != answer_of(row).lower():
        found.append(f"the answer is not in lower case: {answer_of(row)}")
    return [f"{name} {row['id']}: {text}" for text in found]


def _modality_problems(folder: Path) -> list[str]:
    """What is wrong with one modality."""
    found = []
    media = {row["key"]: row for row in rows(folder / "media.parquet")}
    for key, row in media.items():
        empty = [name for name in MEDIA_COLUMNS if not row[name]]
        if empty:
            found.append(f"{folder.name} {key}: no {', '.join(empty)}")
    where: dict[str, set[str]] = defaultdict(set)
    used: set[str] = set()
    for split in SPLITS:
        keys = set()
        for task in TASKS:
            name = f"{folder.name}/{task}-{split}"
            for row in rows(folder / f"{task}-{split}.parquet"):
                keys.add(key_of(row))
                where[row["object"]].add(split)
                if key_of(row) not in media:
                    found.append(f"{name} {row['id']}: no medium {key_of(row)}")
                found += _row_problems(name, row, task)
        if len(keys) < LEAST[split]:
            found.append(f"{folder.name} {split}: only {len(keys)} samples")
        used |= keys
    found += [f"{folder.name}: {thing} in {sorted(s)}" for thing, s in where.items() if len(s) > 1]
    found += [f"{folder.name}: {key} is not used" for key in media.keys() - used]
    return found


def _known(data: Path, split: str) -> set[str]:
    """Paths of all media of a split, as joint manifests write them."""
    return {
        f"../{name}/media.parquet#{key_of(row)}"
        for name in MODALITIES
        for task in TASKS
        for row in rows(data / name / f"{task}-{split}.parquet")
    }


def _joint_row_problems(name: str, row: Row, known: set[str]) -> list[str]:
    """What is wrong with one row of a joint manifest; `known` are the media of its split."""
    found = _row_problems(name, row, "qa")
    media = media_of(row)
    texts = [f"no {column}" for column in CREDIT_COLUMNS if not row[column]]
    if len({part["type"] for part in media}) != 2:
        texts.append(f"not of two modalities: {[part['type'] for part in media]}")
    for part in media:
        if not part["path"].startswith(f"../{part['type']}/"):
            texts.append(f"{part['path']} is no {part['type']}")
        if part["path"] not in known:
            texts.append(f"{part['path']} is not in the split")
    return found + [f"{name} {row['id']}: {text}" for text in texts]


def _joint_problems(data: Path) -> list[str]:
    """What is wrong with the joint manifests."""
    found = []
    for split in SPLITS:
        known = _known(data, split)
        for task in JOINT_TASKS:
            name = f"{JOINT}/{task}-{split}"
            table = rows(data / f"{name}.parquet")
            found += [text for row in table for text in _joint_row_problems(name, row, known)]
            for shown in HIDING[task]:
                if (told := most_told(table, shown)) > MOST_TOLD:
                    found.append(f"{name}: the question and media {shown} tell {told:.1f} %")
    return found


def problems(data: Path) -> list[str]:
    """Everything that is wrong with the benchmark, one line each."""
    found = [text for name in MODALITIES for text in _modality_problems(data / name)]
    found += _joint_problems(data)
    seen = {
        name: {
            row["object"]
            for row in pq.read_table(data / name / "media.parquet", columns=["object"]).to_pylist()
        }
        for name in ("depth", "point_cloud")
    }
    both = seen["depth"] & seen["point_cloud"]
    found += [f"{thing} is in depth and in point_cloud" for thing in sorted(both)]

    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        found.append(f"all files take {size} bytes, more than {MOST_BYTES}")
    if json.loads((data / CHECKSUMS).read_text(encoding="utf-8")) != checksums(data):
        found.append(f"files differ from {CHECKSUMS}")
    return found


def _print_counts(data: Path) -> None:
    """Table of samples and things (of joint questions: couples of things), in Markdown."""
    print("| modality | task | " + " | ".join(f"{split} (things)" for split in SPLITS) + " |")
    print("|---|---|---|---|---|")
    for name in (*MODALITIES, JOINT):
        for task in JOINT_TASKS if name == JOINT else TASKS:
            cells = []
            for split in SPLITS:
                table = rows(data / name / f"{task}-{split}.parquet")
                cells.append(f"{len(table):,} ({len({row['object'] for row in table}):,})")
            print(f"| {name} | {task} | " + " | ".join(cells) + " |")


def _print_classes(data: Path) -> None:
    """Classes with their counts, in Markdown."""
    for name in MODALITIES:
        tables = {split: rows(data / name / f"qa-{split}.parquet") for split in SPLITS}
        counts = {split: Counter(map(answer_of, table)) for split, table in tables.items()}
        classes = ", ".join(
            f"{label} {'/'.join(str(counts[split][label]) for split in SPLITS)}"
            for label in tables["train"][0]["choices"]
        )
        print(f"- **{name}**: {classes}")


def _print_licences(data: Path) -> None:
    """Packages and licences with the number of media, in Markdown."""
    print("| modality | source | licence | media |\n|---|---|---|---|")
    for name in MODALITIES:
        table = pq.read_table(data / name / "media.parquet", columns=["source", "licence"])
        pairs = Counter((row["source"].split(" ")[0], row["licence"]) for row in table.to_pylist())
        for (source, licence), count in sorted(pairs.items()):
            print(f"| {name} | {source} | {licence} | {count:,} |")


def main() -> None:
    """Prints the tables of the data card, then the problems."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    for show in (_print_counts, _print_classes, _print_licences):
        show(data)
        print()
    found = problems(data)
    print("\n".join(found) or "no problems")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
