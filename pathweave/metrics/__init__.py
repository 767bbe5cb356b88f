"""Every metric, by name: on what scale it is, what it needs, and how it is computed.

A metric is statistics of each sample and a function of their sums over the samples. For most the
statistic is the sample's score and the function is the mean; BLEU divides sums of counts. Scores
are from 0, the worst, to ``best``. To add one is to add an entry here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from pathweave.errors import PathWeaveError, RecipeError
from pathweave.metrics.bleu import bleu, bleu_statistics
from pathweave.metrics.bootstrap import Combine, Statistics, score
from pathweave.metrics.choices import ranking, word_match
from pathweave.metrics.cider import cider, cider_d
from pathweave.metrics.exact_match import exact_match
from pathweave.metrics.meteor import meteor, meteor_statistics
from pathweave.metrics.rouge import rouge_l
from pathweave.metrics.tokens import TOKENIZER
from pathweave.metrics.vqa import vqa_accuracy, vqa_accuracy_released
from pathweave.parts import Parts, told


def mean(
    totals: Float[np.ndarray, "sets 1"], counts: Float[np.ndarray, " sets"]
) -> Float[np.ndarray, " sets"]:
    """Return the mean of a statistic from its sum and the number of samples."""
    return totals[:, 0] / counts


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: How recipes, manifests and results call it.
        statistics: From predictions and references (and choices) to numbers of each sample.
        combine: From their sums and the number of samples to the score.
        unit: How the score is printed.
        best: The largest score there is.
        ranks_choices: Whether the answer is the likeliest of a sample's choices and not generated.
        takes_choices: Whether ``statistics`` takes the choices of each sample too.
        tokenizer: How texts are cut into words; None if they are compared whole.
    """

    name: str
    statistics: Callable[..., Statistics]
    combine: Combine = mean
    unit: str = "%"
    best: float = 100.0
    ranks_choices: bool = False
    takes_choices: bool = False
    tokenizer: str | None = None

    def measure(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        choices: Sequence[Sequence[str]] = (),
    ) -> Statistics:
        """Return the statistics of each sample.

        Raises:
            ManifestError: If there is no sample, the lengths differ, or a sample lacks what the
                metric needs.
            RecipeError: If the metric, one of a user's, fails or gives something else.
        """
        given = (predictions, references, choices)[: 3 if self.takes_choices else 2]
        try:
            found = self.statistics(*given)
        except PathWeaveError:
            raise
        except Exception as error:
            raise RecipeError(
                f"metric {self.name!r} must measure every answer, got {told(error)}; mend it"
            ) from error
        found = np.asarray(found)
        if found.ndim != 2 or len(found) != len(predictions) or not np.isfinite(found).all():
            raise RecipeError(
                f"metric {self.name!r} must give finite numbers [samples, statistics] for "
                f"{len(predictions)} samples, got {list(found.shape)} of {found.dtype}; mend it"
            )
        return found

    def score(self, statistics: Statistics) -> float:
        """Return the score of the set from the statistics of its samples."""
        return score(statistics, self.combine)


_CAPTION = partial(Metric, tokenizer=TOKENIZER)


def _bleu(max_n: int) -> Metric:
    unit = f"BLEU-{max_n} x100"
    return _CAPTION(
        f"bleu_{max_n}", bleu_statistics, combine=lambda totals, _: bleu(totals, max_n), unit=unit
    )


_OURS = (
    Metric("exact_match", exact_match),
    Metric("vqa_accuracy", vqa_accuracy),
    Metric("vqa_accuracy_released", vqa_accuracy_released),
    Metric("ranking", ranking, ranks_choices=True, takes_choices=True),
    Metric("word_match", word_match, takes_choices=True, tokenizer=TOKENIZER),
    _CAPTION("cider_d", cider_d, unit="CIDEr-D x100", best=1000.0),
    _CAPTION("cider", cider, unit="CIDEr x100", best=1000.0),
    *map(_bleu, (1, 2, 3, 4)),
    _CAPTION("rouge_l", rouge_l, unit="ROUGE-L x100"),
    _CAPTION("meteor", meteor_statistics, lambda totals, _: meteor(totals), "METEOR x100"),
)
METRICS = Parts(
    "metric",
    {metric.name: metric for metric in _OURS},
    "a pathweave.metrics.Metric",
    lambda part: isinstance(part, Metric),
)


def unit_of(metric: str) -> str:
    """Return how the scores of a metric are printed; of an unknown one, its name."""
    return METRICS[metric].unit if metric in METRICS else metric
