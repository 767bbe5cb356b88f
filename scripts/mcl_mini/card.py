"""Writes what `datasets` and the Hub must know into the head of the page of the benchmark.

    python -m scripts.mcl_mini.card --data data/mcl-mini

The head is YAML between two lines of `---`: a configuration for each list of samples and for the
media of each modality, with the features of every column.
"""

import argparse
from pathlib import Path

import pyarrow as pa
import yaml

from scripts.mcl_mini.check import JOINT, JOINT_TASKS, MODALITIES, SPLITS, TASKS
from scripts.mcl_mini.store import MANIFEST, MEDIA

# What the bytes of media are to `datasets`. Animated WebP is a picture with several frames; arrays
# have no type of their own.
DECODED = {"image": "image", "video": "image", "depth": "image", "audio": "audio"}
ABOUT = {
    "pretty_name": "MCL-mini",
    "language": ["en"],
    "license": ["mit", "gpl-2.0", "cc-by-3.0", "cc-by-sa-3.0", "cc0-1.0"],
    "task_categories": ["visual-question-answering", "image-to-text"],
    "tags": ["continual-learning", "multimodal", "audio", "depth", "point-cloud"],
    "size_categories": ["10K<n<100K"],
}
MARK = "---\n"


def head() -> str:
    """The head of the page."""
    samples, configs, features = _columns(MANIFEST), [], []
    sets = [(name, task) for name in MODALITIES for task in TASKS]
    for name, task in [*sets, *((JOINT, task) for task in JOINT_TASKS)]:
        config = f"{name}_{task}"
        files = [{"split": s, "path": f"{name}/{task}-{s}.parquet"} for s in SPLITS]
        configs.append({"config_name": config, "data_files": files})
        features.append({"config_name": config, "features": samples})
    for name in MODALITIES:
        columns = _columns(MEDIA)
        for column in columns:
            if column["name"] == "bytes":
                column["dtype"] = DECODED.get(name, "binary")
        config, files = f"{name}_media", [{"split": "media", "path": f"{name}/media.parquet"}]
        configs.append({"config_name": config, "data_files": files})
        features.append({"config_name": config, "features": columns})
    # Columns of samples are written once and named again by an anchor.
    tree = {**ABOUT, "configs": configs, "dataset_info": features}
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100)
    return f"{MARK}{text}{MARK}\n"


def with_head(page: str) -> str:
    """A page with its head renewed, or with one where it has none."""
    if page.startswith(MARK):
        page = page.split(f"\n{MARK}", 1)[1].lstrip("\n")
    return head() + page


def _columns(schema: pa.Schema) -> list[dict[str, object]]:
    return [{"name": field.name, **_feature(field.type)} for field in schema]


def _feature(kind: pa.DataType) -> dict[str, object]:
    """The type of a column as `datasets` writes it in YAML."""
    if not pa.types.is_list(kind):
        return {"dtype": str(kind)}
    if pa.types.is_struct(kind.value_type):
        fields = list(kind.value_type)
        return {"list": [{"name": f.name, **_feature(f.type)} for f in fields]}
    return {"list": str(kind.value_type)}


def main() -> None:
    """Renews the head of the page of the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    page = parser.parse_args().data / "README.md"
    page.write_text(with_head(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
