"""Which frozen encoder tells sounds apart best? Linear probes on a question-answer set.

    python scripts/audio_encoder_probe.py data/mcl-mini/audio

For each encoder and each way of pooling its tokens, a logistic regression learns the answers of
``qa-train``; its strength is chosen on ``qa-validation``, and the accuracy on ``qa-test`` printed.
The results are in docs/log.md.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pathweave.decoders import build_decoder
from pathweave.encoders import build_encoder

SPLITS = ("train", "validation", "test")
STRENGTHS = (0.003, 0.01, 0.03, 0.1)


def read_answers(directory: Path, split: str) -> tuple[list[str], list[str]]:
    """Return the key of the sound and the answer of each sample."""
    rows = pq.read_table(directory / f"qa-{split}.parquet").to_pylist()
    paths = [
        part["path"]
        for row in rows
        for part in row["messages"][0]["content"]
        if part["type"] != "text"
    ]
    return [path.split("#")[1] for path in paths], [row["references"][0] for row in rows]


def encode(media: dict[str, bytes], kind: str, rate: int, seconds: float, **options: int) -> Tensor:
    """Return the tokens of every sound."""
    decoder = build_decoder("sound", rate=rate, seconds=seconds)
    encoder = build_encoder(kind, **options)
    return torch.cat(encoder([decoder(data, key) for key, data in media.items()]))


def probe(name: str, features: Tensor, keys: list[str], answers: dict) -> None:
    """Print the accuracy of a probe on ``features`` (one row per key)."""
    row = {key: index for index, key in enumerate(keys)}
    x = {s: features.flatten(1)[[row[key] for key in answers[s][0]]].numpy() for s in SPLITS}
    y = {s: np.array(answers[s][1]) for s in SPLITS}
    scores = []
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=strength))
        model.fit(x["train"], y["train"])
        scores.append([model.score(x[s], y[s]) for s in ("validation", "test")])
    validation, test = max(scores, key=lambda score: score[0])
    print(f"{name:<44} {100 * validation:5.1f} {100 * test:5.1f}", flush=True)


def main() -> None:
    """Probe every encoder and pooling."""
    directory = Path(sys.argv[1])
    answers = {split: read_answers(directory, split) for split in SPLITS}
    table = pq.read_table(directory / "media.parquet", columns=["key", "bytes"])
    media = dict(zip(*table.to_pydict().values(), strict=True))
    keys = list(media)
    print("encoder, pooling: accuracy in % on validation, test")
    pooled = {}
    for seconds in (1.0, 2.0):
        tokens = encode(media, "whisper", 16_000, seconds)
        pooled[f"whisper {seconds} s"] = torch.cat([tokens.mean(1), tokens.amax(1)], 1)
        for bands in (1, 3):
            tokens = encode(media, "sound-effects", 44_100, seconds, bands=bands)
            tokens = tokens.unflatten(1, (-1, bands))
            name = f"sound-effects {seconds} s, {bands} bands"
            pooled[name] = torch.cat([tokens.mean(1), tokens.amax(1)], 1).flatten(1)
        both = (f"whisper {seconds} s", name)
        pooled[" + ".join(both)] = torch.cat([pooled[n] / pooled[n].std() for n in both], 1)
    for name, features in pooled.items():
        probe(f"{name}, mean and maximum", features, keys, answers)


if __name__ == "__main__":
    main()
