"""A learning curve: what its cells learn from, what they share, and what is refused."""

import json
import shutil
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pathweave.compare.curve import (
    load_curve,
    parse_samples,
    parse_seeds,
    parse_variants,
    run_curve,
    shares,
)
from pathweave.errors import PathWeaveError, RecipeError, RunError
from pathweave.recipe.reading import dump_recipe, load_recipe
from tests.train.test_series import MOTION, write_motion
from tests.whole_runs import Background, command, events, hashes, write_recipe

USUAL, ALONE = "usual: {}", "alone: {modalities.tilt.predecessors: []}"
CELLS = [f"{name}-n{n}-seed0" for n in (4, 24) for name in ("usual", "alone")]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 60), min_size=1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_sets_give_in_proportion_and_never_take_back(sizes, one, other):
    total = sum(sizes.values())
    few, many = sorted(round(each * total) for each in (one, other))
    fewer, more = shares(sizes, few), shares(sizes, many)
    assert (sum(fewer.values()), sum(more.values())) == (few, many)
    for name, size in sizes.items():
        assert 0 <= fewer[name] <= more[name] <= size
        assert abs(fewer[name] - few * size / total) < len(sizes)


@pytest.mark.parametrize(
    ("text", "expected"), [("10,20", (10, 20)), ("5, all", (5, None)), ("all", (None,))]
)
def test_samples_are_numbers_and_all(text, expected):
    assert parse_samples(text) == expected


@pytest.mark.parametrize("text", ["", "0,5", "20,10", "5,5", "all,5", "5,x", "5,-1", "9" * 5000])
def test_samples_that_do_not_increase_are_refused(text):
    with pytest.raises(RecipeError, match="must be numbers from 1 that increase, at the end also"):
        parse_samples(text)


@pytest.mark.parametrize("text", ["", "0,-1", "a"])
def test_seeds_that_are_no_numbers_are_refused(text):
    with pytest.raises(RecipeError, match="--seeds must be numbers from 0, got"):
        parse_seeds(text)


@pytest.mark.parametrize("texts", [["alone"], ["a: 3"], ["{"], ["a: {}\nb: {}"], ["3: {}"]])
def test_variants_that_are_no_names_with_fields_are_refused(texts):
    with pytest.raises(RecipeError, match="--variant must be a name and the fields that differ"):
        parse_variants(texts)


def test_two_variants_of_one_name_are_refused():
    with pytest.raises(RecipeError, match="must have different names, got 'usual' twice"):
        parse_variants([USUAL, USUAL])


def load(recipe, samples="4,24", variants=(), overrides=(), seeds=(0,), **more):
    numbers, declared = parse_samples(samples), parse_variants(variants)
    return load_curve(recipe, numbers, seeds, declared, dict(overrides), **more)


def test_a_cell_is_the_recipe_with_fewer_samples(recipe_file):
    curve = load(recipe_file, "4,all", [USUAL, ALONE], seeds=(7, 8))
    assert (curve.stage, curve.samples, curve.variants) == ("tilt", (4, 24), ["usual", "alone"])
    assert len(curve.grid.cells) == 8
    cell = curve.cell("alone", 4, 8)
    recipe, whole = cell.recipe, load_recipe(recipe_file)
    assert (recipe.seed, recipe.curriculum) == (8, whole.curriculum)
    assert recipe.modalities["tilt"].train["qa"].draw == 4
    assert recipe.modalities["tilt"].predecessors == ()
    assert recipe.modalities["tilt"].test == whole.modalities["tilt"].test
    assert recipe.modalities["sound"].test == {}
    assert recipe.training_of("tilt") == whole.training_of("tilt")


def test_variants_may_differ_in_how_a_recording_is_read(tmp_path):
    recipe = write_recipe(tmp_path, "sight")
    write_motion(tmp_path, count=4)
    tree = json.loads(recipe.read_text(encoding="utf-8"))
    tree["modalities"]["motion"] = MOTION
    recipe.write_text(json.dumps({**tree, "curriculum": ["sight", "motion"]}), encoding="utf-8")
    kernels = {"modalities.motion.patches": None, "modalities.motion.kernels": {"reach": 8}}
    curve = load_curve(recipe, (2,), (0,), {"patches": {}, "kernels": kernels}, {})
    assert curve.cell("kernels", 2, 0).recipe.modalities["motion"].kernels.reach == 8
    assert curve.cell("patches", 2, 0).recipe.modalities["motion"].kernels is None


def test_a_stage_is_cut_out_and_several_sets_share_the_samples(recipe_file):
    manifest = str(recipe_file.parent / "sound-train.jsonl")
    overrides = {"modalities.sound.train.more": {"manifest": manifest, "limit": 12}}
    curve = load(recipe_file, "1,9", overrides=overrides, stage="sound")
    one, nine = (curve.cell("recipe", n, 0).recipe for n in (1, 9))
    assert one.curriculum == ("sight", "sound")
    assert {n: s.draw for n, s in one.modalities["sound"].train.items()} == {"qa": 1}
    assert {n: s.draw for n, s in nine.modalities["sound"].train.items()} == {"qa": 6, "more": 3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": "4,25"}, "--samples must be at most the 24 that stage 'tilt' has to learn"),
        ({"samples": "24,all"}, "each once, got 24, 24"),
        ({"stage": "tlit"}, "--stage must be one of .*did you mean 'tilt'"),
        ({"overrides": {"modalities.tilt.test": {}}}, r"tilt\.test must name a data set to be sc"),
        ({"overrides": {"modalities.tilt.train": {}}}, r"tilt\.train must name a data set to lea"),
        ({"overrides": {"method.name": "joint"}}, "stage by stage, got method 'joint'"),
        ({"seeds": (1, 1)}, "seeds must be different"),
        ({"variants": ["Alone: {}"]}, "a name must be lower-case letters"),
        ({"variants": ["a: {seed: 3}"]}, "variant 'a' must change how the stage learns"),
        ({"variants": ["a: {training.stps: 3}"]}, "variant 'a': .*did you mean 'steps'"),
        (
            {"variants": [USUAL, "a: {modalities.tilt.test.qa.metric: exact_match}"]},
            r"variant 'a' must differ .* how 'tilt' is learnt alone, got .*tilt\.test\.qa\.metric",
        ),
        (
            {"variants": [USUAL, "a: {modalities.sound.training: {steps: 3}}"]},
            r"got another value of modalities\.sound\.training",
        ),
    ],
)
def test_what_makes_no_curve_is_refused(recipe_file, changes, words):
    with pytest.raises(RecipeError, match=words):
        load(recipe_file, **changes)


def test_a_run_must_hold_the_stages_before(recipe_file, finished_run, tmp_path):
    assert load(recipe_file, run=finished_run).run.root == finished_run
    with pytest.raises(RunError, match="must be the directory of a run"):
        load(recipe_file, run=tmp_path)
    with pytest.raises(RunError, match=r"must be a run of the recipe up to 'sound', got .*rank"):
        load(recipe_file, run=finished_run, overrides={"method.rank": 3})
    with pytest.raises(RecipeError, match="--run must go with a stage that has others before it"):
        load(recipe_file, run=finished_run, stage="sight")
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "results.json").unlink()
    with pytest.raises(RunError, match="must be a finished run with the stages before 'tilt'"):
        load(recipe_file, run=run)


def test_a_sense_is_added_to_a_run(recipe_file, finished_run, tmp_path):
    tree = json.loads(recipe_file.read_text(encoding="utf-8"))
    heat = json.dumps(tree["modalities"]["tilt"]).replace("tilt-", f"{recipe_file.parent}/tilt-")
    added = {"name": "heat", "modalities": {"heat": json.loads(heat)}, "curriculum": ["heat"]}
    (tmp_path / "heat.yaml").write_text(json.dumps(added), encoding="utf-8")
    curve = load(tmp_path / "heat.yaml", "4", run=finished_run)
    assert curve.cell("recipe", 4, 0).recipe.curriculum == ("sight", "sound", "tilt", "heat")
    assert curve.earlier(tmp_path)[0].curriculum == ("sight", "sound", "tilt")
    extended = shutil.copytree(finished_run, tmp_path / "extended")
    (extended / "recipe.json").write_text(dump_recipe(curve.recipe), encoding="utf-8")
    again = load(tmp_path / "heat.yaml", "4", run=extended)
    assert again.recipe == curve.recipe


@pytest.fixture(scope="module")
def words(recipe_file, finished_run):
    return (
        *("curve", recipe_file, "--run", finished_run, "--samples", "4,all", "--seeds", "0"),
        *("--variant", USUAL, "--variant", ALONE),
    )


@pytest.fixture(scope="module")
def finished(words, shared_home, tmp_path_factory):
    """A curve that was stopped after its first cell and gone on with."""
    out = tmp_path_factory.mktemp("curve") / "out"
    log = out.parent / "stopped.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        stopped = Background(log, *words, "--out", out)
        stopped.wait_until((out / "results" / f"{CELLS[0]}.json").exists)
        stopped.signal(signal.SIGINT)
        assert stopped.exit_code() == 130
        assert "run the same command again to go on" in log.read_text(encoding="utf-8")
        assert not (out / "results" / f"{CELLS[-1]}.json").exists()
        assert command(*words, "--out", out, "--json", "--track", "tensorboard") == 0
    return out


def run_of(out, cell):
    variant, samples, seed = cell.split("-")
    return out / "runs" / variant / samples / seed.replace("seed", "seed-")


def test_what_is_done_is_kept_when_a_curve_is_stopped(finished):
    assert sorted(f.stem for f in (finished / "results").glob("*-*.json")) == sorted(CELLS)
    done = [event["cell"] for event in events(finished, "done")]
    assert sorted(done) == sorted(CELLS)
    assert len(events(run_of(finished, CELLS[0]), "session")) == 1


def test_cells_are_tracked_where_it_is_asked_for(finished):
    assert [*run_of(finished, CELLS[-1]).rglob("events.out.tfevents*")]


def test_a_cell_with_all_samples_is_the_stage_of_the_run(finished, finished_run):
    """Neither the draw of all nor what is shared makes a difference."""
    assert hashes(run_of(finished, "usual-n24-seed0")) == hashes(finished_run)
    fewer = hashes(run_of(finished, "usual-n4-seed0"))
    assert {n for n, found in hashes(finished_run).items() if found != fewer[n]} == {"tilt"}


def test_only_the_stage_is_learnt_and_scored(finished):
    for cell in CELLS:
        run = run_of(finished, cell)
        assert {e["stage"] for e in events(run, "step")} == {"tilt"}
        assert {(e["after"], e["modality"]) for e in events(run, "score")} == {("tilt", "tilt")}
        assert command("verify", run) == 0


def test_variants_differ_in_what_they_say(finished):
    read = (run_of(finished, c) / "paths/tilt/path.json" for c in ("usual-n4-seed0", CELLS[1]))
    before = [json.loads(file.read_text(encoding="utf-8"))["predecessors"] for file in read]
    assert [list(each) for each in before] == [["sound"], []]


def test_a_curve_is_told_as_table_json_and_picture(words, finished, home, capsys):
    assert command(*words, "--out", finished) == 0
    shown = capsys.readouterr().out
    assert "**tilt/qa, %, by samples learnt from**" in shown
    rows = [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("| ")]
    assert rows == ["samples", "4", "24"] * (len(rows) // 3)
    assert "alone - usual" in shown
    assert shown.count("24 samples score") == 2
    capsys.readouterr()
    assert command(*words, "--out", finished, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((finished / "curve.json").read_text(encoding="utf-8"))
    curves = told["test_sets"]["qa"]["curves"]
    assert [p["samples"] for p in curves["alone"]] == [4, 24]
    for variant, found in curves.items():
        for point in found:
            file = finished / "results" / f"{variant}-n{point['samples']}-seed0.json"
            [info] = json.loads(file.read_text(encoding="utf-8"))["results"]["datasets"]["tilt"]
            assert point["value"] == pytest.approx(info["whole"], abs=1e-4)
            assert (point["num_objects"], point["seeds_half"]) == (6, None)
    with Image.open(finished / "curve.png") as picture:
        picture.load()
        assert picture.width > 500
    assert command(*words, "--out", finished, "--dry-run") == 0
    assert "| n24, alone" in capsys.readouterr().out


def test_a_curve_goes_on_with_the_run_it_was_begun_with(words, finished, finished_run, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    [file] = out.glob("shared/*/paths/sound/path.json")
    text = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()  # a link to that of the run
    file.write_text(json.dumps(text | {"content_hash": "0" * 64}), encoding="utf-8")
    curve = load(words[1], "4,all", [USUAL, ALONE], run=finished_run)
    with pytest.raises(PathWeaveError, match=r"must hold stage 'sound' as .* got another"):
        run_curve(curve, out, quiet=True)


def test_what_comes_before_is_learnt_once(recipe_file, home, tmp_path, capsys):
    words = ("curve", recipe_file, "--stage", "sound", "--samples", "6", "--seeds", "3,4")
    assert command(*words, "--out", tmp_path / "out", "--json") == 0
    [point] = json.loads(capsys.readouterr().out)["test_sets"]["qa"]["curves"]["recipe"]
    assert len(point["per_seed"]) == 2
    [shared] = (tmp_path / "out" / "shared").iterdir()
    assert {e["stage"] for e in events(shared, "step")} == {"sight"}
    assert events(shared, "score") == []
    runs = [tmp_path / "out/runs/recipe/n6" / f"seed-{seed}" for seed in (3, 4)]
    assert [{e["stage"] for e in events(run, "step")} for run in runs] == [{"sound"}] * 2
    first, second = map(hashes, runs)
    assert first["sight"] == second["sight"]
    assert first["sound"] != second["sound"]
