"""Writes a modality as Parquet: one media store and six manifests."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.mcl_mini.items import SPLITS, Item, Modality
from scripts.mcl_mini.splits import digest

ROWS = 128
PART = pa.struct([("type", pa.string()), ("path", pa.string()), ("text", pa.string())])
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(PART))])
MANIFEST = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("references", pa.list_(pa.string())),
        ("choices", pa.list_(pa.string())),
        ("object", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("attribution", pa.string()),
    ]
)
MEDIA = pa.schema(
    [
        ("key", pa.string()),
        ("bytes", pa.binary()),
        ("object", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("attribution", pa.string()),
    ]
)


def _row(modality: Modality, item: Item, task: str) -> dict[str, object]:
    """One manifest row: the medium and a question, then the answer."""
    asked = modality.questions if task == "qa" else modality.prompts
    turn = digest(f"{task}/{item.key}") % len(asked) if item.split == "train" else 0
    answer = item.label if task == "qa" else item.captions[0]
    question = [
        {"type": modality.name, "path": f"media.parquet#{item.key}"},
        {"type": "text", "text": asked[turn]},
    ]
    return {
        "id": f"{modality.name}-{task}-{item.key}",
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
        "references": [item.label] if task == "qa" else list(item.captions),
        "choices": list(modality.choices) if task == "qa" else None,
        "object": item.thing,
        "source": item.credit.source,
        "licence": item.credit.licence,
        "attribution": item.credit.attribution,
    }


def _media_row(item: Item) -> dict[str, object]:
    """One row of the media store."""
    return {
        "key": item.key,
        "bytes": item.data,
        "object": item.thing,
        "source": item.credit.source,
        "licence": item.credit.licence,
        "attribution": item.credit.attribution,
    }


def write_table(rows: list[dict[str, object]], schema: pa.Schema, path: Path) -> None:
    """A Parquet file in small row groups; media bytes are only compressed if that pays."""
    table = pa.Table.from_pylist(rows, schema=schema)
    squeezed = {name: "zstd" for name in schema.names}
    if "bytes" in squeezed and path.parent.name != "point_cloud":
        squeezed["bytes"] = "none"
    flat = squeezed if "bytes" in squeezed else "zstd"
    # Moved into place when whole: a run that has the old file open goes on reading it.
    partial = path.with_suffix(".partial")
    pq.write_table(
        table, partial, row_group_size=ROWS, compression=flat, use_dictionary=["licence", "source"]
    )
    partial.replace(path)


def write(modality: Modality, out: Path) -> None:
    """Writes all files of a modality, in the order of a hash, so that any prefix is a fair mix."""
    folder = out / modality.name
    folder.mkdir(parents=True, exist_ok=True)
    items = sorted(modality.items, key=lambda item: (SPLITS.index(item.split), digest(item.key)))
    write_table([_media_row(item) for item in items], MEDIA, folder / "media.parquet")
    for split in SPLITS:
        mine = [item for item in items if item.split == split]
        asked = [_row(modality, item, "qa") for item in mine if item.label]
        captioned = [_row(modality, item, "caption") for item in mine if item.captions]
        write_table(asked, MANIFEST, folder / f"qa-{split}.parquet")
        write_table(captioned, MANIFEST, folder / f"caption-{split}.parquet")
