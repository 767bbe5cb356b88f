"""The counts of the paper's settings, and those of the recorded run of the small base."""

from pathlib import Path

import pytest

from pathweave.estimate.estimate import estimate_recipe
from pathweave.evaluate.results import Results
from pathweave.recipe.reading import load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/pathweave_vicuna7b.yaml"
# Trained, full tuning, reduction in per cent.
TOTALS = {
    "video": (1_072_529, 188_837_376, 99.43),
    "audio": (2_411_089, 189_918_848, 98.73),
    "depth": (1_460_753, 188_837_376, 99.23),
    "point_cloud": (2_312_401, 189_557_888, 98.78),
}


@pytest.fixture(scope="module")
def estimate():
    return estimate_recipe(load_recipe(RECIPE), modalities=4, batch_size=1)


@pytest.fixture(scope="module")
def stages(estimate):
    """The four stages that are trained."""
    return {stage.modality: stage for stage in estimate.stages[1:]}


def test_totals_and_reductions_of_every_stage(stages):
    assert {
        name: (stage.trained.total, stage.full_tuning, round(100 * stage.reduction, 2))
        for name, stage in stages.items()
    } == TOTALS


def test_parameters_by_kind(stages):
    found = [stage.trained for stage in stages.values()]
    assert {t.adapters for t in found} == {1_002_120}
    assert {t.projector_adapter for t in found} == {43_017}
    assert {t.queries for t in found} == {32 * 768}
    assert [t.in_adapters for t in found] == [0, 5_184, 10_368, 15_552]
    assert [t.gates for t in found] == [0, 251_904, 377_856, 503_808]
    assert [t.input_norm for t in found] == [2_816, 1_536, 2_816, 1_024]
    assert [t.input_projection for t in found] == [0, 1_082_752, 0, 722_304]
    assert not any(t.connector for t in found)


def test_the_path_that_the_base_came_with_is_not_trained(estimate):
    ready = estimate.stages[0]
    assert (ready.modality, ready.training, ready.step) == ("image", None, None)
    assert ready.trained.total == 0


def test_a_path_grows_with_its_predecessors(estimate):
    growth = estimate.growth
    assert [row.modalities for row in growth] == [1, 2, 3, 4]
    assert [row.in_adapters for row in growth] == [0, 5_184, 10_368, 15_552]
    assert [row.gates for row in growth] == [0, 251_904, 377_856, 503_808]
    assert growth[3].path == TOTALS["point_cloud"][0]
    assert growth[3].all_paths == sum(row.path for row in growth)
    relative = [row.connector_flops for row in growth]
    assert 1 < relative[0] < relative[3] < 1.05


def test_shapes_of_the_base(estimate):
    assert estimate.llm_parameters == 6_738_423_808
    assert estimate.connector_parameters == 185_660_160 + 3_149_824


def test_shapes_of_the_features(stages):
    found = {name: stage.features for name, stage in stages.items()}
    assert {n: (f.units, f.tokens, f.width) for n, f in found.items()} == {
        "video": (5, 257, 1408),
        "audio": (2, 256, 768),
        "depth": (2, 257, 1408),
        "point_cloud": (1, 1, 512),
    }
    # Published files: ViT-g without biases of keys, BEATs with copies of a shared table and the
    # scales of weight normalisation, Point-BERT with buffers of batch normalisation.
    assert found["video"].parameters == 985_894_528 + 39 * 1408
    assert found["audio"].parameters == 90_354_032 - 11 * 320 * 12 - 128
    assert found["point_cloud"].parameters == 22_253_314 - 2 * (128 + 512) - 2


def test_the_recorded_run_of_the_small_base():
    recorded = Results.load(ROOT / "docs/results/mcl_mini.json").stages
    estimated = estimate_recipe(load_recipe(ROOT / "recipes/mcl_mini.yaml")).stages
    for stage, record in zip(estimated, recorded, strict=True):
        trained = stage.trained
        assert trained.adapters + trained.projector_adapter == record.adapters
        assert (trained.in_adapters, trained.gates) == (record.in_adapters, record.gates)
        assert (trained.total, stage.full_tuning) == (record.trained, record.full_tuning)


def test_the_documented_table_is_that_of_the_estimate(stages):
    rows = {}
    for line in (ROOT / "docs/full_size.md").read_text(encoding="utf-8").splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows.setdefault(name, cells)
    documented = dict(zip(stages, ("video", "audio", "depth", "3D"), strict=True))
    for name, stage in stages.items():
        # Neither order nor patches are needed, nothing is adapted in the language model; connector
        # and earlier paths are never trained.
        counts = [n for kind, n in vars(stage.trained).items() if kind != "llm_adapters"][:-5]
        assert sum(counts) == stage.trained.total
        expected = [f"{count:,}" for count in (*counts, stage.trained.total, stage.full_tuning)]
        assert rows[documented[name]][:-2] == expected
        assert rows[documented[name]][-2] == f"{100 * stage.reduction:.2f} %"
