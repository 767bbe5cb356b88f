"""Write ``examples/``: one test sample of each modality of MCL-mini, as files, with its licence.

python -m scripts.mcl_mini.examples --data data/mcl-mini --out examples
"""

import argparse
import json
from pathlib import Path

import pyarrow.parquet as pq

from pathweave.data.manifest import Manifest

# Modality: sample of its question set, and the name of the file.
CHOSEN = {
    "image": ("image-qa-clothes-t10k-00152", "trousers.png"),
    "video": ("video-qa-tribes-workers-amazons-ferry-walk_w-1", "boat.webp"),
    "audio": ("audio-qa-fluid-019-0986", "organ.ogg"),
    "depth": ("depth-qa-blendswap-cc-0-143-view00", "chair.png"),
    "point_cloud": ("point_cloud-qa-blendswap-cc-0-152-turn04", "desk.npy"),
}
ABOUT = """# One small input a modality

Test samples of [MCL-mini](../data/mcl-mini/README.md), written by

    python -m scripts.mcl_mini.examples --data data/mcl-mini --out examples

`questions.jsonl` asks about each of them, and holds the answers. Their licences are their own; the
texts of the licences stand in [data/mcl-mini/LICENSES.md](../data/mcl-mini/LICENSES.md).

| file | modality | licence | whom to name | source |
|---|---|---|---|---|
"""


def main() -> None:
    """Write the files, a manifest of their questions, and where they come from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the benchmark")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows, about = [], ABOUT
    for modality, (chosen, file) in CHOSEN.items():
        samples = Manifest(options.data / modality / "qa-test.parquet")
        sample = next(sample for sample in samples if sample.id == chosen)
        medium = next(part for part in sample.prompt if not part.is_text)
        (options.out / file).write_bytes(samples.read_media(medium))
        question = " ".join(part.text or "" for part in sample.prompt if part.is_text)
        content = [{"type": modality, "path": file}, {"type": "text", "text": question}]
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": sample.answer},
        ]
        rows.append({"id": chosen, "messages": messages, "licence": sample.licence})
        store = pq.read_table(options.data / modality / "media.parquet").to_pylist()
        key = (medium.path or "").partition("#")[2]
        origin = next(row for row in store if row["key"] == key)
        cells = (file, modality, origin["licence"], origin["attribution"], origin["source"])
        about += f"| {' | '.join(cells)} |\n"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (options.out / "questions.jsonl").write_text(lines, encoding="utf-8")
    (options.out / "README.md").write_text(about, encoding="utf-8")


if __name__ == "__main__":
    main()
