import json

import pytest
import yaml

from pathweave.errors import RecipeError
from pathweave.nn.kernels import KernelSpec
from pathweave.recipe.reading import dump_recipe, load_recipe, parse_override, parse_recipe


def modality(**changes):
    return {
        "decoder": {"kind": "array", "width": 12},
        "encoder": {"kind": "precomputed", "width": 12},
        "train": {"qa": {"manifest": "train.jsonl"}},
        "test": {"qa": {"manifest": "sub/test.jsonl", "metric": "exact_match"}},
        **changes,
    }


def tree(**changes):
    return {
        "name": "demo",
        "modalities": {name: modality() for name in ("sight", "sound", "range")},
        "curriculum": ["sight", "sound"],
        **changes,
    }


def write(directory, value):
    file = directory / "recipe.yaml"
    file.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
    return file


def test_defaults_and_options_of_parts():
    recipe = parse_recipe(tree())
    assert recipe.base == "mini"
    assert recipe.method.gate == "softmax"
    assert recipe.modalities["sight"].encoder.options == {"width": 12}
    test_set = recipe.modalities["sight"].test["qa"]
    assert (test_set.beams, test_set.min_tokens, test_set.prompt) == (1, 0, ())
    assert (test_set.length_penalty, test_set.repetition_penalty) == (1.0, 1.0)
    assert (recipe.training.warmup_start_lr, recipe.training.betas) == (0.0, (0.9, 0.999))
    assert (recipe.llm, recipe.quantise) == (None, None)


def test_training_of_a_stage_is_its_own_over_that_of_all():
    own = {"lr": 0.5, "connector": True}
    modalities = {"sight": modality(training=own), "sound": modality()}
    recipe = parse_recipe(
        tree(modalities=modalities, training={"lr": 0.1, "steps": 7}),
    )
    assert recipe.training_of("sight").lr == 0.5
    assert recipe.training_of("sight").connector
    assert recipe.training_of("sight").steps == 7
    assert recipe.training_of("sound").lr == 0.1


def with_sound(**changes):
    sound = modality(**changes)
    return tree(modalities={"sight": modality(), "sound": sound, "range": modality()})


def with_both(reads, **changes):
    both = {"reads": reads, "train": {"qa": {"manifest": "both.jsonl"}}, **changes}
    modalities = {**tree()["modalities"], "both": both}
    return tree(modalities=modalities, curriculum=["sight", "both"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tree(sed=1), r"field sed must be one of \[.*\], got 'sed'; did you mean 'seed'\?"),
        (tree(zzzz=1), r"field zzzz must be one of \[.*'seed'.*\], got 'zzzz'$"),
        (
            tree(method={"rnak": 4}),
            r"field method\.rnak must be one of .*; did you mean 'rank'\?",
        ),
        (
            tree(training={"step": 4}),
            r"field training\.step must be one of .*; did you mean 'steps'\?",
        ),
        (
            tree(evaluation={"subsets": 4}),
            r"field evaluation\.subsets must be one of .*; did you mean 'subset'\?",
        ),
        (
            with_sound(encodr={}),
            r"field modalities\.sound\.encodr must be one of .*; did you mean 'encoder'\?",
        ),
        (
            with_sound(train={"qa": {"manifests": "a", "manifest": "a"}}),
            r"field modalities\.sound\.train\.qa\.manifests .*; did you mean 'manifest'\?",
        ),
        (
            with_sound(test={"qa": {"manifest": "a", "metric": "ranking", "beam": 2}}),
            r"field modalities\.sound\.test\.qa\.beam .*; did you mean 'beams'\?",
        ),
        (
            with_sound(training={"lrr": 2}),
            r"field modalities\.sound\.training\.lrr must be .*got 'lrr'; did you mean 'lr'\?",
        ),
        (
            tree(curriculum=["sight", "soudn"]),
            r"a stage of curriculum must be one of .*, got 'soudn'; did you mean 'sound'\?",
        ),
        (tree(curriculum=["sight", "sight"]), "must have one stage, got 'sight' twice"),
        (tree(curriculum=[]), r"curriculum: .* at least 1 item.*got \[\]"),
        (tree(modalities={"help": modality()}), r"name must be .*none of .*, got 'help'"),
        (tree(modalities={"3d": modality()}), r"name must be lower-case .*, got '3d'"),
        (
            with_sound(predecessors=["range"]),
            "a predecessor of 'sound' must be an earlier stage, got 'range'",
        ),
        (
            with_sound(predecessors=["sound"]),
            "a predecessor of 'sound' must be an earlier stage, got 'sound'",
        ),
        (tree(training={"steps": 0}), r"training\.steps: .*greater than or equal to 1.*got 0"),
        (tree(training={"lr": "much"}), r"training\.lr: .*number.*got 'much'"),
        (tree(method={"gate": "soft"}), r"method\.gate: .*'top_k'.*got 'soft'"),
        (tree(method={"name": "magic"}), r"method\.name: .*'pathweave'.*got 'magic'"),
        (tree(bad_samples=2), r"bad_samples: .*less than or equal to 1.*got 2"),
        (with_sound(training={"lr": -1}), r"modalities\.sound\.training\.lr: .*greater.*got -1"),
        (with_sound(decoder={}), r"modalities\.sound\.decoder\.kind: .*required"),
        ({"name": "demo"}, r"modalities: .*required"),
        (
            with_sound(train={"qa": {"manifest": "a", "prompt": "{} or {}?"}}),
            r"sound\.train\.qa\.prompt\.0: a prompt must have {} at most once, got '{} or {}\?'",
        ),
        (
            with_sound(train={"qa": {"manifest": "a", "prompt": 3}}),
            r"modalities\.sound\.train\.qa\.prompt: .*got 3",
        ),
        (
            with_sound(test={"qa": {"manifest": "a", "metric": "ranking", "min_tokens": -1}}),
            r"sound\.test\.qa\.min_tokens: .*greater than or equal to 0.*got -1",
        ),
        (
            with_sound(
                test={"qa": {"manifest": "a", "metric": "ranking", "repetition_penalty": 0}}
            ),
            r"sound\.test\.qa\.repetition_penalty: .*greater than 0.*got 0",
        ),
        (tree(training={"betas": [0.9, 1.0]}), r"training\.betas\.1: .*less than 1, got 1\.0"),
        (tree(training={"betas": [0.9]}), r"training\.betas\.1: .*required"),
        (tree(training={"warmup_start_lr": -1}), r"training\.warmup_start_lr: .*got -1"),
        (with_both(["sound", "rang"]), r"modalities\.both\.reads must be one of .*'range'"),
        (with_both(["both"]), r"modalities\.both\.reads must be one of \['range', .* got 'both'"),
        (
            with_both(["sound"], encoder={"kind": "precomputed", "width": 12}),
            r"modalities\.both: a modality that reads others must have no .*, got 'encoder'; leave",
        ),
        (with_both(["sound"], cue="both:"), "no decoder, encoder or cue of its own, got 'cue'"),
        (
            with_both(["sound"], train={"qa": {"manifest": "a", "path": "sound"}}),
            "path of the data sets of 'both' must be 'both' or null, got 'sound'; leave it out",
        ),
        (with_sound(decoder=None), r"a modality must have a decoder and .*, got no decoder; add"),
        (
            with_sound(train={"qa": {"manifest": "a", "limit": 0}}),
            r"sound\.train\.qa\.limit: .*greater than or equal to 1.*got 0",
        ),
        (tree(quantise="2bit"), r"quantise: .*'8bit' or '4bit', got '2bit'"),
    ],
)
def test_an_error_names_the_field_the_rule_and_the_value(value, message):
    with pytest.raises(RecipeError, match="^demo: .*" + message):
        parse_recipe(value, "demo")


def test_only_stages_need_their_predecessors():
    modalities = tree()["modalities"] | {"range": modality(predecessors=["shape"])}
    assert parse_recipe(tree(modalities=modalities)).curriculum == ("sight", "sound")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("training.lr=0.001", ("training.lr", 0.001)),
        ("seed = 3", ("seed", 3)),
        ("method.gate=null", ("method.gate", None)),
        ("curriculum=[a, b]", ("curriculum", ["a", "b"])),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_an_override(text, pair):
    assert parse_override(text) == pair


def test_an_override_without_a_value():
    with pytest.raises(RecipeError, match="--set must be given as field=value, got 'seed'"):
        parse_override("seed")


def test_an_override_that_is_no_yaml():
    with pytest.raises(RecipeError, match=r"--set curriculum: the value must be YAML, got '\[a, '"):
        parse_override("curriculum=[a, ")


def test_overrides_are_set_by_dotted_field(tmp_path):
    overrides = {"training.lr": "25e-2", "modalities.sound.training.steps": 3, "seed": 9}
    recipe = load_recipe(write(tmp_path, tree()), overrides)
    assert recipe.seed == 9
    assert recipe.training_of("sight").lr == 0.25
    assert recipe.training_of("sound").steps == 3


def test_overrides_of_what_is_no_section(tmp_path):
    file = write(tmp_path, tree())
    with pytest.raises(RecipeError, match=r"name\.x must name a field, got 'name', which holds a"):
        load_recipe(file, {"name.x": 1})
    with pytest.raises(RecipeError, match=r"field training\.stpes .*did you mean 'steps'\?"):
        load_recipe(file, {"training.stpes": 1})


def test_quick_is_a_section_of_overrides_under_those_given(tmp_path):
    file = write(tmp_path, tree(quick={"training.steps": 5, "seed": 4}))
    assert load_recipe(file).training.steps == 200
    assert load_recipe(file, quick=True).training.steps == 5
    both = load_recipe(file, {"training.steps": 6}, quick=True)
    assert (both.training.steps, both.seed) == (6, 4)


def test_quick_needs_a_section(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe\.yaml must have a section quick: for --quick"):
        load_recipe(write(tmp_path, tree()), quick=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", r"recipe\.yaml must be YAML, got .*line"),
        ("a: {b: 1,\n c: 2, b: 3}", r"must be YAML, got b twice, in line 2; remove one"),
        ("- a", r"recipe\.yaml must hold fields such as modalities:, got list"),
        ("", r"must hold fields such as modalities:, got NoneType"),
    ],
)
def test_a_broken_file(tmp_path, content, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, content))


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"recipe\.yaml must be"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_missing_file(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml must be a recipe, got No such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="must be a recipe, got Is a directory"):
        load_recipe(tmp_path)


def test_manifests_and_base_are_relative_to_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "my_base").mkdir()
    absolute = {"qa": {"manifest": "/data/train.jsonl"}}
    modalities = {"sight": modality(), "sound": modality(train=absolute)}
    write(tmp_path, tree(base="my_base", modalities=modalities))
    monkeypatch.chdir(tmp_path)
    for file in (tmp_path / "recipe.yaml", tmp_path.relative_to(tmp_path) / "recipe.yaml"):
        recipe = load_recipe(file)
        assert recipe.modalities["sight"].train["qa"].manifest == str(tmp_path / "train.jsonl")
        assert recipe.modalities["sight"].test["qa"].manifest == str(tmp_path / "sub/test.jsonl")
        assert recipe.modalities["sound"].train["qa"].manifest == "/data/train.jsonl"
        assert recipe.base == str(tmp_path / "my_base")
    write(tmp_path, tree())
    assert load_recipe(tmp_path / "recipe.yaml").base == "mini"


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("vit.pth", "{}/vit.pth"),
        ("weights/missing.pth", "{}/weights/missing.pth"),
        ("../weights", "{}/../weights"),
        ("weights/vit", "{}/weights/vit"),
        ("/weights/vit.pth", "/weights/vit.pth"),
        ("facebook/dinov2-base", "facebook/dinov2-base"),
        (3, 3),
    ],
)
@pytest.mark.parametrize("option", ["directory", "model"])
def test_weights_of_encoders_are_relative_to_the_recipe(tmp_path, option, given, resolved):
    (tmp_path / "weights" / "vit").mkdir(parents=True)
    encoder = {"kind": "any", option: given, "size": "weights/vit"}
    write(
        tmp_path, tree(modalities={name: modality(encoder=encoder) for name in ("sight", "sound")})
    )
    for _ in range(2):  # what is stored is read back as it is
        recipe = load_recipe(tmp_path / "recipe.yaml")
        (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        expected = resolved.format(tmp_path) if isinstance(resolved, str) else resolved
        options = recipe.modalities["sight"].encoder.options
        assert options == {option: expected, "size": "weights/vit"}


def test_a_prompt_is_one_template_or_several(tmp_path):
    sound = {
        "train": {"qa": {"manifest": "a", "prompt": ["How {}", "Say it."]}},
        "test": {"qa": {"manifest": "a", "metric": "ranking", "prompt": "How {}"}},
    }
    modality = parse_recipe(with_sound(**sound)).modalities["sound"]
    assert modality.train["qa"].prompt == ("How {}", "Say it.")
    assert modality.test["qa"].prompt == ("How {}",)
    sound["test"]["qa"]["prompt"] = None
    recipe = parse_recipe(with_sound(**sound))
    assert recipe.modalities["sound"].test["qa"].prompt == ()
    assert parse_recipe(json.loads(dump_recipe(recipe))) == recipe


def test_a_language_model_may_be_a_directory_beside_the_recipe(tmp_path):
    (tmp_path / "vicuna").mkdir()
    write(tmp_path, tree(llm="vicuna", base="Salesforce/instructblip-vicuna-7b"))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.llm == str(tmp_path / "vicuna")
    assert recipe.base == "Salesforce/instructblip-vicuna-7b"
    write(tmp_path, tree(llm="lmsys/vicuna-7b-v1.1", quantise="4bit"))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.llm, recipe.quantise) == ("lmsys/vicuna-7b-v1.1", "4bit")


def test_dump_and_parse_round_trip(tmp_path):
    changes = {"method": {"gate": None, "sites": ["*/key"]}, "quick": {"training.lr": 0.5}}
    recipe = load_recipe(write(tmp_path, tree(**changes)))
    assert parse_recipe(json.loads(dump_recipe(recipe))) == recipe
    (tmp_path / "again.json").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "again.json") == recipe


def test_a_modality_may_read_others():
    recipe = parse_recipe(with_both(["sound", "range"]))
    both = recipe.modalities["both"]
    assert both.train["qa"].path == "both"
    assert recipe.modalities["sight"].train["qa"].path is None
    assert recipe.read_by("both") == ("sound", "range")
    assert recipe.read_by("sight") == ("sight",)
    assert recipe.media == ("sight", "sound", "range")
    assert recipe.about_media("both")["reads"]["range"] == recipe.about_media("range")
    assert recipe.encoder_kinds("both") == ["precomputed"]
    assert set(recipe.cut(1).modalities) == {"sight"}
    assert set(recipe.cut(2).modalities) == {"sight", "sound", "range", "both"}
    assert parse_recipe(json.loads(dump_recipe(recipe))) == recipe
    decoder, encoder = recipe.modalities["sound"].parts
    assert (decoder.kind, encoder.kind) == ("array", "precomputed")
    with pytest.raises(RecipeError, match=r"must be of a modality with a decoder, got one that re"):
        _ = both.parts


def test_a_training_set_has_a_limit_of_its_own():
    train = {"qa": {"manifest": "both.jsonl", "limit": 7}, "all": {"manifest": "both.jsonl"}}
    value = with_both(["sound"], train=train)
    for limit, expected in ((None, (7, None)), (5, (5, 5)), (9, (7, 9))):
        recipe = parse_recipe(value | {"limit": limit})
        sets = recipe.modalities["both"].train
        assert (recipe.limit_of(sets["qa"]), recipe.limit_of(sets["all"])) == expected


def motion(**changes):
    return {
        "decoder": {"kind": "series", "rate": 50.0},
        "encoder": {"kind": "series", "channels": 3},
        "train": {"qa": {"manifest": "train.jsonl"}},
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "positions"),
    [
        ({}, "sinusoidal"),
        ({"positions": "none"}, "none"),
        ({"positions": "learned"}, "learned"),
        ({"encoder": {"kind": "whisper"}}, "none"),
        ({"encoder": {"kind": "whisper"}, "positions": "sinusoidal"}, "sinusoidal"),
    ],
)
def test_rows_are_a_sequence_unless_a_set_is_declared(changes, positions):
    recipe = parse_recipe(tree(modalities={"sight": modality(**changes), "sound": modality()}))
    found = recipe.input_of("sight")
    assert found == {"positions": positions, "columns": None, "patches": None}


def test_a_grid_has_columns():
    recipe = parse_recipe(tree(modalities={"sight": modality(columns=7), "sound": modality()}))
    assert recipe.input_of("sight")["columns"] == 7
    for wrong in ({"columns": 7, "positions": "none"}, {"columns": 0}):
        with pytest.raises(RecipeError, match="columns"):
            parse_recipe(tree(modalities={"sight": modality(**wrong), "sound": modality()}))


@pytest.mark.parametrize(
    ("patches", "length", "stride"),
    [
        (None, 16, 8),
        ({"length": 10}, 10, 5),
        ({"length": 1}, 1, 1),
        ({"length": "0.5 s"}, 25, 12),
        ({"length": "0.5s", "stride": "0.1 s"}, 25, 5),
        ({"length": "0.001 s", "stride": 3}, 1, 3),
    ],
)
def test_patches_are_in_samples_or_seconds(patches, length, stride):
    modalities = {"sight": motion(patches=patches), "sound": modality()}
    spec = parse_recipe(tree(modalities=modalities)).input_of("sight")["patches"]
    assert (spec.length, spec.stride, spec.width, spec.layers) == (length, stride, 128, 3)


@pytest.mark.parametrize(
    ("kernels", "seconds", "reach"),
    [
        ({}, None, 512),
        ({}, 3.0, 150),
        ({"reach": 40}, 3.0, 40),
        ({"reach": "0.5 s"}, None, 25),
    ],
)
def test_kernels_span_a_window_or_what_is_said(kernels, seconds, reach):
    decoder = {"kind": "series", "rate": 50.0, "seconds": seconds}
    modalities = {"sight": motion(kernels=kernels, decoder=decoder), "sound": modality()}
    recipe = parse_recipe(tree(modalities=modalities))
    assert recipe.input_of("sight")["patches"] == KernelSpec(reach)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (modality(kernels={}), "kernels must go with the encoder 'series', got 'preco"),
        (motion(kernels={}, patches={}), "must have patches or kernels, got both; leave out one"),
        (motion(kernels={"reach": 0}), "reach"),
        (modality(patches={"length": 4}), "patches must go with the encoder 'series', got 'preco"),
        (motion(patches={"length": "4 ms"}), "must be samples, as 16, or seconds, as '0.5 s', got"),
        (motion(patches={"length": 0}), "length"),
        (motion(patches={"width": 10}), "width"),
        (motion(positions="places"), "positions"),
    ],
)
def test_patches_and_positions_that_cannot_be_are_refused(broken, words):
    with pytest.raises(RecipeError, match=words):
        parse_recipe(tree(modalities={"sight": broken, "sound": modality()}))


def test_a_path_of_several_modalities_keeps_their_order():
    def read(other):
        together = {"reads": ["sight", "sound"], "train": {"qa": {"manifest": "train.jsonl"}}}
        modalities = {"sight": motion(), "sound": other, "both": together}
        recipe = parse_recipe(tree(modalities=modalities, curriculum=["sight", "sound", "both"]))
        return recipe.input_of("both")

    assert read(motion())["positions"] == "sinusoidal"
    assert read(motion())["patches"].length == 16
    with pytest.raises(
        RecipeError, match=r"modalities\.both\.reads must name modalities with equal"
    ):
        read(motion(patches={"length": 4}))
    with pytest.raises(RecipeError, match="equal patches, or none"):
        read(modality())
