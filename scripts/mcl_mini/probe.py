"""How far a linear probe on the frozen features gets, and how far guessing the most common answer.

    python -m scripts.mcl_mini.probe --cache DIR [--recipe recipes/mcl_mini.yaml] [--run RUN]

Decoders, encoders and data are those of the recipe, so that its paths and the probe see the same
features. A probe is a logistic regression on features averaged over tokens and frames, its strength
chosen on the validation set. Captions are probed as classes (every training caption is one) and
scored with CIDEr-D against all references. With a run, its answers to the same test samples are
compared: path minus probe, with the interval of 95 % over the things that the samples show.
"""

import argparse
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathweave.data.cache import FeatureCache
from pathweave.data.manifest import Manifest
from pathweave.decoders import build_decoder
from pathweave.encoders import build_encoder
from pathweave.metrics import METRICS
from pathweave.metrics.bootstrap import paired_difference
from pathweave.recipe.reading import load_recipe
from pathweave.recipe.schema import Modality
from pathweave.runs.run_directory import RunDirectory

STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.1)


def _features(manifest: Manifest, modality: Modality, cache: FeatureCache) -> np.ndarray:
    """One averaged feature vector a sample."""
    parts = [next(p for p in sample.prompt if not p.is_text) for sample in manifest]
    media = [(manifest.read_media(part), str(part.path)) for part in parts]
    opened, read = modality.parts
    encoder = build_encoder(read.kind, **read.options)
    decoder = build_decoder(opened.kind, **opened.options)
    features = cache.features(encoder, decoder, media)
    return np.stack([f.float().mean((0, 1)).numpy() for f in features])


def _fitted(strength: float, x: np.ndarray, y: list[str]) -> LogisticRegression:
    """A logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=150, C=strength))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


METRIC = {"qa": METRICS["exact_match"], "caption": METRICS["cider_d"]}


def _statistics(task: str, answers: Sequence[str], manifest: Manifest) -> np.ndarray:
    """What each answer adds to the score."""
    samples = list(manifest)
    references = [list(s.references) or [s.answer] for s in samples]
    return METRIC[task].measure(list(answers), references, [list(s.choices) for s in samples])


def _score(task: str, answers: Sequence[str], manifest: Manifest) -> float:
    """Accuracy in percent for questions, CIDEr-D for captions."""
    return METRIC[task].score(_statistics(task, answers, manifest))


def probe(modality: Modality, task: str, cache: FeatureCache) -> tuple[list[str], str, Manifest]:
    """Answers of the probe to the test set, the most common training answer, and the set."""
    folder = Path(modality.test[task].manifest).parent
    splits = {s: Manifest(folder / f"{task}-{s}.parquet") for s in ("train", "validation", "test")}
    x = {name: _features(manifest, modality, cache) for name, manifest in splits.items()}
    y = [sample.answer for sample in splits["train"]]
    models = [_fitted(strength, x["train"], y) for strength in STRENGTHS]
    best = max(
        models,
        key=lambda m: _score(task, list(m.predict(x["validation"])), splits["validation"]),
    )
    return list(best.predict(x["test"])), Counter(y).most_common(1)[0][0], splits["test"]


def compared(run: Path, name: str, task: str, answers: Sequence[str], test: Manifest) -> str:
    """Say by how much a run's path is better than the probe."""
    file = RunDirectory(run).whole_predictions(name, task)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    own = {row["id"]: row["answer"] for row in rows}
    path = _statistics(task, [own[sample.id] for sample in test], test)
    gain = paired_difference(
        path,
        _statistics(task, answers, test),
        METRIC[task].combine,
        [sample.object or sample.id for sample in test],
    )
    score = METRIC[task].score(path)
    return f"  path {score:6.1f}  path - probe {gain.value:6.1f} [{gain.low:.1f}, {gain.high:.1f}]"


def main() -> None:
    """Prints one row a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/mcl_mini.yaml"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="A finished run, to compare its paths with.")
    parser.add_argument("--only", nargs="*", help="Modalities; all if none are named.")
    arguments = parser.parse_args()
    cache = FeatureCache(arguments.cache)
    recipe = load_recipe(arguments.recipe)
    for name in arguments.only or recipe.curriculum:
        for task in ("qa", "caption"):
            answers, common, test = probe(recipe.modalities[name], task, cache)
            score = _score(task, answers, test)
            guess = _score(task, [common] * len(test), test)
            line = f"{name:12} {task:8} probe {score:6.1f}  most common {guess:6.1f}  n {len(test)}"
            against = compared(arguments.run, name, task, answers, test) if arguments.run else ""
            print(line + against)


if __name__ == "__main__":
    main()
