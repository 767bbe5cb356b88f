"""The recipes that ship: they load, and the paper's values are those of the paper."""

import re
from pathlib import Path

import pytest

from pathweave.decoders import build_decoder
from pathweave.encoders import check_encoder
from pathweave.estimate.encoders import features_of
from pathweave.recipe.reading import load_recipe
from pathweave.runs.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]
# Files of grids are no recipes: tests/grid/test_declaration.py.
RECIPES = sorted(
    f for f in (ROOT / "recipes").glob("*.yaml") if not {"grid", "search"} & {*f.stem.split("_")}
)
MINI, JOINT = (ROOT / "recipes" / f"{name}.yaml" for name in ("mcl_mini", "mcl_joint"))
SHIPPED = ROOT / "data" / "mcl-mini"
PAPER = next(file for file in RECIPES if file.stem == "pathweave_vicuna7b")
SOURCE = re.compile(r"# (paper|released yaml|released code|ours)")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_load_and_their_parts_and_shipped_data_are_there(file):
    recipe = load_recipe(file)
    for loaded in (recipe, load_recipe(file, quick=True)) if recipe.quick else (recipe,):
        for name in loaded.media:
            decoder, encoder = loaded.modalities[name].parts
            build_decoder(decoder.kind, **decoder.options)
            check_encoder(encoder.kind, encoder.options)
        for modality in loaded.modalities.values():
            for data in (*modality.train.values(), *modality.test.values()):
                manifest = Path(data.manifest).resolve()
                assert manifest.exists() or not manifest.is_relative_to(SHIPPED)


@pytest.mark.parametrize("file", [MINI, JOINT], ids=lambda file: file.stem)
def test_a_recipe_of_the_shipped_data_has_a_quick_form(file):
    recipe = load_recipe(file)
    manifests = {data.manifest for m in recipe.modalities.values() for data in m.train.values()}
    assert all(Path(manifest).resolve().is_relative_to(SHIPPED) for manifest in manifests)
    assert recipe.quick


def test_every_value_of_the_papers_recipe_names_its_source():
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        has_value = re.match(r"\s*[\w<]+: *[^# ]", line) and not line.startswith("name:")
        assert SOURCE.search(line) or not has_value, line


def test_the_papers_training():
    recipe = load_recipe(PAPER)
    assert recipe.curriculum == ("image", "video", "audio", "depth", "point_cloud")
    assert (recipe.method.queries, recipe.method.rank) == (32, 8)
    stages = [recipe.training_of(name) for name in recipe.curriculum[1:]]
    assert [(s.steps, s.batch_size) for s in stages] == [
        *((15_000, 64), (65_000, 64), (35_000, 16), (65_000, 128)),
    ]
    for stage in stages:
        assert (stage.lr, stage.warmup, stage.warmup_start_lr) == (1e-5, 1000, 1e-8)
        assert (stage.weight_decay, stage.betas, stage.min_lr_share) == (0.05, (0.9, 0.999), 0)
        assert not stage.connector


def test_the_papers_decoding():
    """Captions of 10 to 80 tokens, short answers, or choices by likelihood."""
    recipe = load_recipe(PAPER)
    sets = {
        f"{name}/{key}": data
        for name, modality in recipe.modalities.items()
        for key, data in modality.test.items()
    }
    written = {k: s for k, s in sets.items() if s.metric != "ranking"}
    assert all(data.beams == 5 for data in written.values())
    found = {
        key: (data.max_tokens, data.min_tokens, data.length_penalty, data.repetition_penalty)
        for key, data in written.items()
    }
    for key, values in found.items():
        match key.partition("/"):
            case ("depth", _, _):
                assert values == (30, 8, 0, 1.15)
            case (_, _, "cap3d_caption"):
                assert values == (80, 10, 0, 1.15)
            case (_, _, "cap3d_qa"):
                assert values == (80, 1, -1, 1.5)
            case (_, _, name):
                expected = (80, 10, 1, 1.15) if "caption" in name else (10, 1, -1, 1.5)
                assert values == expected, key
    assert sorted(set(sets) - set(written)) == [
        *("audio/esc50", "depth/nyu_v2", "depth/sun_rgbd", "point_cloud/modelnet40"),
    ]


def test_joint_questions_are_a_stage_added_to_the_whole_run(tmp_path):
    """A finished run of the one recipe goes on with the other, on any number of samples."""
    before = load_recipe(MINI)
    run = RunDirectory(tmp_path)
    run.claim(before)
    added = load_recipe(JOINT, {"modalities.joint.train.qa.limit": 1000})
    run.claim(added)
    assert run.recipe().curriculum == (*before.curriculum, "joint")
    joint = added.modalities["joint"]
    assert (added.limit_of(joint.train["qa"]), added.limit_of(joint.test["qa"])) == (1000, None)
    assert load_recipe(JOINT).limit_of(load_recipe(JOINT).modalities["joint"].train["qa"]) == 200
    widths = {features_of(added.modalities[name]).width for name in joint.reads}
    assert len(widths) == 1
    assert features_of(added.modalities["audio"]).width not in widths
