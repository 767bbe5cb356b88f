"""Results to report, as a run of three stages would give them."""

from pathweave.evaluate.results import DatasetInfo, Environment, Results, StageResults
from pathweave.evaluate.scores import ScoreMatrix

CURRICULUM = ["see", "watch", "hear"]


def example_results(loss: float = 0.0, num_stages: int = 3) -> Results:
    matrix = ScoreMatrix(CURRICULUM)
    for stage in range(num_stages):
        for i in range(stage + 1):
            matrix.add(stage, CURRICULUM[i], "qa", 80.0 - i - loss * (stage - i))
            matrix.add(stage, CURRICULUM[i], "caption", 110.0)
    datasets = {
        modality: [
            DatasetInfo(name="qa", metric="exact_match", majority=12.5, probe=82.7),
            DatasetInfo(name="caption", metric="cider_d"),
        ]
        for modality in CURRICULUM
    }
    stages = [
        StageResults(
            modality=modality,
            **dict(adapters=1000, in_adapters=64 * i, gates=10 * i, other=500),
            **dict(full_tuning=150_000, seconds=12.5, num_bytes=1_250_000),
        )
        for i, modality in enumerate(CURRICULUM[:num_stages])
    ]
    environment = Environment(python="3.11", torch="2.13", num_cpus=2, dtype="bfloat16")
    return Results(
        recipe="demo",
        method="pathweave",
        curriculum=CURRICULUM,
        datasets=datasets,
        scores=matrix.as_dict(),
        stages=stages,
        environment=environment,
    )
