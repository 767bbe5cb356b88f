"""Does the run notice that the medium is not used? On real, blanked and unrelated media.

    python -m scripts.medium_alarm --base runs/mcl_mini/base --data data/mcl-mini/audio --out OUT

learns the questions about sounds three times: as they are; with one sound for all samples, as if a
collator had dropped the others; and with the answers dealt out anew, so that they have nothing to
do with the sounds. Prints the last look of each run, and whether the alarm was given.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from pathweave.data.manifest import Manifest, write_manifest
from pathweave.data.media_store import MediaStore, write_media_store
from pathweave.recipe.reading import parse_recipe
from pathweave.train.evolve import evolve_recipe

STEPS = 120
CASES = ("real", "blanked", "unrelated")


def write_case(data: Path, case: str, out: Path) -> Path:
    """Write the training questions of a case, and return the manifest."""
    samples = [sample.model_dump(mode="json") for sample in Manifest(data / "qa-train.parquet")]
    dealt = np.random.default_rng(0).permutation(len(samples))
    answers = [json.dumps(sample["messages"][-1]) for sample in samples]
    media = [part for s in samples for part in s["messages"][0]["content"] if part["path"]]
    for i, (sample, part) in enumerate(zip(samples, media, strict=True)):
        if case == "blanked":
            part["path"] = media[0]["path"]
        if case == "unrelated":
            sample["messages"][-1] = json.loads(answers[dealt[i]])
            sample["references"] = ()
    keys = {part["path"].partition("#")[2] for part in media}
    store = MediaStore(data / "media.parquet")
    out.mkdir(parents=True, exist_ok=True)
    rows = ({"key": key, "bytes": store.read(key)} for key in sorted(keys))
    write_media_store(out / "media.parquet", rows)
    write_manifest(out / "train.jsonl", samples)
    return out / "train.jsonl"


def main() -> None:
    """Learn the three cases and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--base", "--data", "--out"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    print("case        loss   another's  none   alarm at step")
    for case in CASES:
        manifest = write_case(given.data, case, given.out / case / "data")
        audio = {
            "decoder": {"kind": "sound", "rate": 44100, "seconds": 2.0},
            "encoder": {"kind": "sound-effects"},
            "cue": "audio:",
            "train": {"qa": {"manifest": str(manifest), "balance": 1.0}},
        }
        recipe = {
            "name": f"alarm, {case}",
            "base": str(given.base),
            "modalities": {"audio": audio},
            "curriculum": ["audio"],
            "method": {"queries": 4, "rank": 16},
            "training": {
                **{"steps": STEPS, "batch_size": 8, "lr": 1.5e-3, "up_lr": 6e-3, "warmup": 30},
                **{"max_update_rms": 1, "medium_every": 20},
            },
        }
        run = given.out / case / "run"
        evolve_recipe(parse_recipe(recipe), run, quiet=True)
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        use = [event for event in events if event["event"] == "medium_use"][-1]
        told = [event["step"] for event in events if event["event"] == "medium_unused"]
        figures = f"{use['loss']:<6.3f} {use['swapped']:<10.3f} {use['blank']:<6.3f}"
        print(f"{case:<11} {figures} {told[0] if told else 'none'}", flush=True)


if __name__ == "__main__":
    main()
