"""Options of methods, and recipes that extend others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pathweave
from pathweave.errors import RecipeError
from pathweave.methods import METHODS, method_of, stages_of
from pathweave.methods.ewc import Ewc
from pathweave.recipe.reading import dump_recipe, load_recipe, parse_recipe
from pathweave.recipe.schema import MethodSection
from pathweave.train.dry_run import make_plan
from tests.methods.world import recipe
from tests.recipe.test_schema import tree, write

OPTIONS = {name: method.options for name, method in METHODS.items() if method.options}


def test_every_method_has_a_name_and_every_section_a_method():
    assert set(OPTIONS) == {"l2", "wise_ft", "ewc", "lwf", "replay", "lora", "mera"}
    for name in METHODS:
        method = MethodSection.model_validate({"name": name})
        given = {n: getattr(method, n) for n in OPTIONS if getattr(method, n) is not None}
        assert given == ({name: method.options} if name in OPTIONS else {})
    for name, options in OPTIONS.items():
        assert type(MethodSection(name=name).options) is options
        assert all(f.description for f in options.model_fields.values())
        assert MethodSection.model_fields[name].description == f"Options of `{name}`."


EXTRA = """
from pydantic import Field

from pathweave.methods.lesson import Method
from pathweave.methods.pathweave import learn as as_pathweave
from pathweave.methods.settings import Settings


class Extra(Settings):
    depth: int = Field(3, ge=1, description="How deep.")


def learn(context, options):
    yield from as_pathweave(context)


METHOD = Method(learn, Extra, shares=True)
"""
USE = """
from pathweave.errors import RecipeError
from pathweave.methods import METHODS
from pathweave.recipe.reading import parse_recipe

from tests.recipe.test_schema import tree

assert METHODS["extra"].shares
recipe = parse_recipe(tree(method={"name": "extra", "extra": {"depth": 5}}))
assert recipe.method.options.depth == recipe.method.extra.depth == 5
for name, field in (("ewc", "depth"), ("extra", "dpeth")):
    try:
        parse_recipe(tree(method={"name": name, "extra": {field: 5}}))
    except RecipeError as error:
        print(error)
"""


def test_a_method_is_one_file(tmp_path):
    package = Path(pathweave.__file__).parent
    (tmp_path / "pathweave").mkdir()
    for entry in package.iterdir():
        if entry.name != "methods":
            (tmp_path / "pathweave" / entry.name).symlink_to(entry)
    (tmp_path / "tests").symlink_to(package.parent / "tests")
    methods = shutil.copytree(package / "methods", tmp_path / "pathweave" / "methods")
    (methods / "extra.py").write_text(EXTRA, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    other, misspelt = done.stdout.splitlines()
    assert "extra must go with name: extra, got name: ewc" in other
    assert (
        "field method.extra.dpeth must be one of ['depth'], got 'dpeth'; did you mean" in misspelt
    )


def test_options_are_read_and_stored():
    read = parse_recipe(tree(method={"name": "ewc", "ewc": {"strength": 3}}))
    assert read.method.ewc == Ewc(strength=3.0, samples=64)
    assert parse_recipe(json.loads(dump_recipe(read))) == read


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            {"name": "ewcc"},
            r"method\.name: method must be .*'pathweave', .* got 'ewcc'; did you mean 'ewc'\?",
        ),
        ({"name": "zzz"}, r"method\.name: method must be .* got 'zzz'$"),
        ({"name": ["ewc"]}, r"method\.name: .*got \['ewc'\]"),
        (
            {"name": "ewc", "ewc": {"strenght": 1}},
            r"field method\.ewc\.strenght must be one of \['samples', 'strength'\].*'strength'\?",
        ),
        (
            {"name": "l2", "ewc": {"strength": 1}},
            r"method: ewc must go with name: ewc, got name: l2; leave it out",
        ),
        ({"lora": {}}, r"method: lora must go with name: lora, got name: pathweave; leave it"),
        ({"name": "wise_ft", "wise_ft": {"alpha": 1.5}}, r"method\.wise_ft\.alpha: .*got 1\.5"),
        ({"name": "ewc", "ewc": {"strength": float("inf")}}, r"ewc\.strength: .*finite.* got inf"),
        ({"name": "replay", "replay": {"samples": 0}}, r"method\.replay\.samples: .*got 0"),
        ({"name": "mera", "mera": 3}, r"method\.mera: .*got 3"),
        ("ewc", r"method: .*got 'ewc'"),
    ],
)
def test_an_error_names_the_rule_and_the_nearest_field(method, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(tree(method=method))


def test_an_override_may_open_a_section(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(dump_recipe(parse_recipe(tree())), encoding="utf-8")
    overrides = {"method.name": "ewc", "method.ewc.strength": 5.0}
    assert load_recipe(file, overrides).method.ewc.strength == 5.0


def test_the_stage_that_makes_the_base_is_the_same_for_all():
    for name in METHODS:
        made = recipe(name, "sight", "sound", "tilt")
        assert method_of(made, "sight").learn is METHODS["pathweave"].learn
        assert not method_of(made, "sight").shares
        assert method_of(made, "sound") == METHODS[name]


def test_stages_that_learn_several_modalities():
    names = ("sight", "sound", "tilt")
    assert stages_of(recipe("replay", *names)) == [(name,) for name in names]
    assert stages_of(recipe("joint", *names)) == [("sight",), ("sound", "tilt")]
    assert stages_of(recipe("joint", *names, base=False)) == [names]
    assert stages_of(recipe("joint", *names, base=False), ["sight", "tilt"]) == [
        *(("sight",), ("sound", "tilt")),
    ]
    assert stages_of(recipe("joint", "sight")) == [("sight",)]


@pytest.mark.parametrize(
    ("method", "trains"),
    [
        ("adapters", ("adapters of rank 2",)),
        ("ewc", ("Q-Former", "projector")),
        ("eproj", ("a projector of its own",)),
    ],
)
def test_a_dry_run_says_what_each_method_trains(recipe_file, tmp_path, method, trains):
    plan = make_plan(load_recipe(recipe_file, {"method.name": method}), tmp_path / "run")
    assert plan.stages[2].trains[2:] == trains
    assert plan.stages[2].predecessors == ()
    assert plan.stages[0].trains[2:] == ("Q-Former", "projector")
    assert plan.problems == ()


def test_a_dry_run_counts_the_answers_of_joint_training(recipe_file, tmp_path):
    plans = [
        make_plan(load_recipe(recipe_file, {"method.name": name}), tmp_path / "run")
        for name in ("sequential", "joint")
    ]
    # Six samples of each of three sets: after stages of 1, 2 and 3 modalities, or of 1 and 3.
    assert [plan.answers for plan in plans] == [6 + 12 + 18, 6 + 18]


def test_a_dry_run_misses_the_data_of_earlier_stages(recipe_file, tmp_path):
    changes = {"method.name": "replay", "modalities.sight.train": {}}
    plan = make_plan(load_recipe(recipe_file, changes), tmp_path / "run")
    assert any("training data of every modality, got none of 'sight'" in p for p in plan.problems)


def extend(directory, stem, **fields):
    file = directory / f"{stem}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return file


def test_a_recipe_is_another_one_with_some_fields_changed(tmp_path):
    whole = load_recipe(write(tmp_path, tree(quick={"training.steps": 5}, method={"rank": 4})))
    changed = extend(
        tmp_path / "sub",
        "a",
        extends="../recipe.yaml",
        method={"gate": None},
        modalities={"sound": {"cue": "hum:", "encoder": {"kind": "other"}}},
        quick={"seed": 1},
    )
    recipe = load_recipe(changed)
    assert recipe.method == whole.method.model_copy(update={"gate": None})
    assert recipe.modalities["sight"] == whole.modalities["sight"]
    assert recipe.modalities["sound"].cue == "hum:"
    assert recipe.modalities["sound"].encoder.options == {}  # a part is taken whole
    assert recipe.modalities["sound"].train == whole.modalities["sound"].train
    assert load_recipe(changed, {"seed": 7}, quick=True).training.steps == 5
    assert load_recipe(changed, {"seed": 7}, quick=True).seed == 7
    again = extend(tmp_path / "sub", "b", extends="a.yaml", name="b", curriculum=["sound"])
    last = load_recipe(again)
    assert (last.name, last.curriculum, last.method) == ("b", ("sound",), recipe.method)
    assert parse_recipe(json.loads(dump_recipe(last))) == last


def test_the_method_of_an_extended_recipe_may_be_another(tmp_path):
    write(tmp_path, tree(method={"name": "ewc", "rank": 4}))
    same = load_recipe(extend(tmp_path, "a", extends="recipe.yaml", method={"ewc": {"samples": 2}}))
    assert same.method.ewc == Ewc(samples=2)
    other = {"name": "sequential", "ewc": None}
    changed = load_recipe(extend(tmp_path, "b", extends="recipe.yaml", method=other))
    assert (changed.method.name, changed.method.rank) == ("sequential", 4)


def test_a_base_beside_the_extended_recipe_is_found(tmp_path):
    (tmp_path / "my_base").mkdir()
    write(tmp_path, tree(base="my_base"))
    recipe = load_recipe(extend(tmp_path / "sub", "a", extends="../recipe.yaml"))
    assert recipe.base == str(tmp_path / "my_base")
    assert recipe.modalities["sight"].train["qa"].manifest == str(tmp_path / "train.jsonl")


@pytest.mark.parametrize("name", ["none.yaml", 3, ["a.yaml"], "."])
def test_a_recipe_that_is_not_there_cannot_be_extended(tmp_path, name):
    file = extend(tmp_path, "a", extends=name)
    with pytest.raises(RecipeError, match=r"a\.yaml: extends must name a recipe, .* correct it"):
        load_recipe(file)


def test_recipes_cannot_extend_each_other(tmp_path):
    file = extend(tmp_path, "a", extends="b.yaml")
    extend(tmp_path, "b", extends="sub/../a.yaml")
    expected = r"must not lead back to .* got a\.yaml -> b\.yaml -> a\.yaml; end it"
    with pytest.raises(RecipeError, match=expected):
        load_recipe(file)
    with pytest.raises(RecipeError, match=r"got c\.yaml -> c\.yaml"):
        load_recipe(extend(tmp_path, "c", extends="c.yaml"))


def test_an_error_in_the_extended_recipe_is_told_of_it(tmp_path):
    write(tmp_path, tree(sed=1))
    with pytest.raises(RecipeError, match=r"recipe\.yaml: field sed must be one of"):
        load_recipe(extend(tmp_path, "a", extends="recipe.yaml"))
