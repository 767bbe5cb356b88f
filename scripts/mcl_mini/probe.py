"""How far a linear probe on the frozen features gets, and how far guessing the most common answer.

    python -m scripts.mcl_mini.probe --cache DIR [--recipe recipes/mcl_mini.yaml]

Decoders, encoders and data are those of the recipe, so that its paths and the probe see the same
features. A probe is a logistic regression on features averaged over tokens and frames, its strength
chosen on the validation set. Captions are probed as classes (every training caption is one) and
scored with CIDEr-D against all references.
"""

import argparse
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathweave.config import Modality, load_recipe
from pathweave.data.cache import FeatureCache
from pathweave.data.decode import build_decoder
from pathweave.data.manifest import Manifest
from pathweave.encoders import build_encoder
from pathweave.evaluate.cider import cider_d

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


def _score(task: str, predicted: list[str], manifest: Manifest) -> float:
    """Accuracy in percent for questions, CIDEr-D for captions."""
    samples = list(manifest)
    if task == "caption":
        return cider_d(predicted, [list(sample.references) for sample in samples])
    return 100 * float(np.mean([p == s.answer for p, s in zip(predicted, samples, strict=True)]))


def probe(modality: Modality, task: str, cache: FeatureCache) -> tuple[float, float, int]:
    """Score of the probe and of the most common answer on the test set, and its size."""
    folder = Path(modality.test[task].manifest).parent
    splits = {s: Manifest(folder / f"{task}-{s}.parquet") for s in ("train", "validation", "test")}
    x = {name: _features(manifest, modality, cache) for name, manifest in splits.items()}
    y = [sample.answer for sample in splits["train"]]
    models = [_fitted(strength, x["train"], y) for strength in STRENGTHS]
    best = max(
        models,
        key=lambda m: _score(task, list(m.predict(x["validation"])), splits["validation"]),
    )
    test = splits["test"]
    common = [Counter(y).most_common(1)[0][0]] * len(test)
    return _score(task, list(best.predict(x["test"])), test), _score(task, common, test), len(test)


def main() -> None:
    """Prints one row a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/mcl_mini.yaml"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="Modalities; all if none are named.")
    arguments = parser.parse_args()
    cache = FeatureCache(arguments.cache)
    recipe = load_recipe(arguments.recipe)
    for name in arguments.only or recipe.curriculum:
        for task in ("qa", "caption"):
            score, common, count = probe(recipe.modalities[name], task, cache)
            print(f"{name:12} {task:8} probe {score:6.1f}  most common {common:6.1f}  n {count}")


if __name__ == "__main__":
    main()
