"""What must always hold (docs/architecture.md), each invariant one test."""

import ast
import re
import subprocess
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

import pytest
import torch

from pathweave.errors import BaseMismatchError, PathError
from pathweave.methods.pathweave import expand
from pathweave.model.generate import generate
from pathweave.model.prompt import Medium, token_ids
from pathweave.recipe.reading import load_recipe
from pathweave.runs.path_directory import load_path, save_path
from tests.tiny import chain, medium, randomise, tiny_base, tiny_model, write_tiny_recipe

PACKAGE = Path(__file__).parents[1] / "pathweave"
# Names that belong to a library we call or to a format we read, not to us.
FOREIGN = {
    ("decoders/clip.py", "video"),
    ("bases/pretrained.py", "image"),
    ("serve/openai_requests.py", "audio"),
    *(("bases/vision_llm.py", name) for name in ("image", "video")),
    *(("lmms_eval/mcl_mini_task.py", name) for name in ("image", "audio")),
    *(("released/layout.py", name) for name in ("image", "depth", "pc", "point_cloud")),
}
SENSES = ("sight", "motion", "sound", "range", "shape")


def outputs(model, name):
    prompts = [[medium(name, units=2, seed=s), "What is it?"] for s in range(3)]
    with torch.no_grad():
        soft = model.soft_tokens([p[0] for p in prompts], [p[1] for p in prompts])
        loss, _ = model(prompts, ["this", "that", "another"])
    return [*soft, loss], generate(model, prompts, 4)


@pytest.mark.parametrize("gate", ["softmax", "noisy_softmax", "top_k", None])
def test_1_nothing_is_forgotten(gate):
    """Features, loss and answers of every earlier path are bit-identical after later stages."""
    specs = chain(*SENSES, gate=gate)
    model = tiny_model(specs[0])
    before = {}
    for spec in specs:
        if spec.name not in model.paths:
            randomise(model.paths.expand(spec))
            model.eval()
        for name, (tensors, answers) in before.items():
            now, said = outputs(model, name)
            assert all(torch.equal(a, b) for a, b in zip(now, tensors, strict=True)), name
            assert said == answers
        before[spec.name] = outputs(model, spec.name)


def test_1_training_a_later_path_changes_no_earlier_one(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path, "sight", "sound", "range"))
    model = tiny_model(*chain("sight", "sound"))
    before = outputs(model, "sight"), outputs(model, "sound")
    modules = expand(model, recipe, "range", encoder_width=12)
    optimizer = torch.optim.SGD(modules.parameters(), lr=1.0)
    model.train()
    for seed in range(3):
        loss, _ = model([[medium("range", seed=seed), "What?"]], ["far"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    for name, (tensors, answers) in zip(("sight", "sound"), before, strict=True):
        now, said = outputs(model, name)
        assert all(torch.equal(a, b) for a, b in zip(now, tensors, strict=True))
        assert said == answers


def test_1_a_new_first_path_is_a_no_op():
    model = tiny_model(*chain("sight"))
    path = model.paths.expand(chain("sight", "sound")[1])
    path.queries.data.copy_(model.paths["sight"].queries.data)
    path.input_norm.load_state_dict(model.paths["sight"].input_norm.state_dict())
    features = medium("sight").features
    media = [Medium("sight", features), Medium("sound", features)]
    with torch.no_grad():
        old, new = (model.soft_tokens([m], ["What?"])[0] for m in media)
    assert torch.equal(old, new)


def test_2_the_path_is_an_argument_and_a_batch_may_mix_paths():
    model = tiny_model(*chain(*SENSES))
    media = [medium(SENSES[i % 5], units=1 + i % 2, tokens=4 + i % 3, seed=i) for i in range(10)]
    texts = [f"Question {i}?" for i in range(10)]
    with torch.no_grad():
        together = model.soft_tokens(media, texts)
        alone = [model.soft_tokens([m], [t])[0] for m, t in zip(media, texts, strict=True)]
    for a, b in zip(together, alone, strict=True):
        # Padding and another shape of the matrix products: rounding, and nothing else.
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_2_one_prompt_may_mix_paths():
    model = tiny_model(*chain(*SENSES))
    first, second = medium("sound", seed=1), medium("shape", units=2, seed=2)
    both = model.embed_prompts([[first, second, "Which is louder?"]])[0]
    text = "Which is louder?"
    soft = model.soft_tokens([first, second], [text, text])
    cue = len(token_ids(model.base.tokenizer, "sound:"))
    torch.testing.assert_close(both[cue : cue + len(soft[0])], soft[0], atol=1e-5, rtol=1e-5)


def test_2_threads_may_mix_paths():
    model = tiny_model(*chain(*SENSES))
    alone = {name: outputs(model, name) for name in SENSES}
    with ThreadPoolExecutor(4) as pool:
        names = [SENSES[i % 5] for i in range(20)]
        for name, (tensors, answers) in zip(
            names, pool.map(lambda n: outputs(model, n), names), strict=True
        ):
            assert all(torch.equal(a, b) for a, b in zip(tensors, alone[name][0], strict=True))
            assert answers == alone[name][1]


def _held(model):
    """Return all that modules hold, by module and attribute, and copies of all tensors."""
    held = {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in {
            **vars(module),
            **module._buffers,
            **module._parameters,
            **module._modules,
        }.items()
    }
    return held, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _remembers(model):
    """Say whether an input leaves anything in a model."""
    held, tensors = _held(model)
    # A container is the same object before and after: what it holds is compared with a copy.
    copies = {at: copy(value) for at, value in held.items() if isinstance(value, (dict, list))}
    outputs(model, "shape")
    now, tensors_now = _held(model)
    return not (
        now.keys() == held.keys()
        and all(now[at] is held[at] or _equal(now[at], held[at]) for at in held)
        and all(_equal(now[at], copies[at]) for at in copies)
        and tensors_now.keys() == tensors.keys()
        and all(torch.equal(tensors_now[name], tensors[name]) for name in tensors)
    )


def _equal(one, other):
    """Say whether two values are the same object, or equal ones of which none is a tensor."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            one[k] is other[k] or _equal(one[k], other[k]) for k in one
        )
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    return bool(one == other)


def test_2_no_module_remembers_a_path():
    assert not _remembers(tiny_model(*chain(*SENSES)))


def _as_buffer(layer, x):
    layer.register_buffer("last", x)


def _as_buffer_that_is_there(layer, x):
    layer.norm_of_last.fill_(x.norm())


def _as_attribute(layer, x):
    layer.last = x


def _in_a_container(layer, x):
    layer.seen.append(x)


def _as_module(layer, x):
    layer.last = torch.nn.Identity()


@pytest.mark.parametrize(
    "remember", [_as_buffer, _as_buffer_that_is_there, _as_attribute, _in_a_container, _as_module]
)
def test_2_a_module_that_remembers_is_seen(remember):
    model = tiny_model(*chain(*SENSES))
    layer = model.projector.linear
    layer.register_buffer("norm_of_last", torch.zeros(()))
    layer.seen = []
    layer.register_forward_pre_hook(lambda module, inputs: remember(module, inputs[0]))
    assert _remembers(model)


def test_3_no_modality_is_named_in_the_machinery():
    """The names occur in comments and documentation, never as identifiers or strings in code."""
    names = re.compile(r"(?<![a-z])(image|video|audio|depth|point_cloud|pc)(?![a-z])")
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in documentation:
                said = node.value if isinstance(node.value, str) else ""
            else:
                said = getattr(node, "id", None) or getattr(node, "attr", None) or ""
                said = said or getattr(node, "arg", None) or getattr(node, "name", None) or ""
            if not isinstance(said, str) or " " in said:
                continue  # sentences are messages to people
            if (file.relative_to(PACKAGE).as_posix(), said) in FOREIGN:
                continue
            assert not names.fullmatch(said), f"{file.name}:{node.lineno}: {said!r}"


def test_3_any_names_in_any_order():
    names = ["type", "modules", "forward", "zz_9", "state_dict", "keys"]
    model = tiny_model(*chain(*names))
    assert model.paths.names == names
    assert all(outputs(model, name)[1] for name in names)


def test_4_trainable_names_are_exactly_those_of_the_path(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path, "sight", "sound"))
    model = tiny_model(*chain("sight"))
    expand(model, recipe, "sound", encoder_width=12)
    path = model.paths["sound"]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in path.parameters()}
    assert sum(path.count().values()) == sum(p.numel() for p in path.parameters())


def test_4_only_the_newest_path_receives_gradients(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path, "sight", "sound", "range"))
    model = tiny_model(*chain("sight", "sound"))
    expand(model, recipe, "range", encoder_width=12)
    loss, _ = model.train()([[medium("range"), "What?"]], ["far"])
    loss.backward()
    with_gradient = {id(p) for p in model.parameters() if p.grad is not None}
    assert with_gradient == {id(p) for p in model.paths["range"].parameters()}


def test_4_a_saved_path_holds_exactly_its_own_tensors(tmp_path):
    from safetensors.torch import load_file

    model = tiny_model(*chain("sight", "sound", "range"))
    save_path(model.paths["range"], model.paths, tmp_path / "range", "fingerprint")
    saved = load_file(tmp_path / "range" / "path.safetensors")
    assert saved.keys() == model.paths["range"].state_dict().keys()
    assert {name.split(".")[0] for name in saved} == {"queries", "input_norm", "experts"}


def test_5_a_path_on_disk_is_complete_given_base_and_predecessors(tmp_path):
    model = tiny_model(*chain("sight", "sound", "range"))
    before = outputs(model, "range")
    fingerprint = model.base.fingerprint()
    for path in model.paths:
        save_path(path, model.paths, tmp_path / path.spec.name, fingerprint)
    fresh = tiny_model()
    fresh.cues = model.cues
    for name in ("sound", "range"):  # sight is no predecessor of either
        load_path(tmp_path / name, fresh.paths, fresh.base.fingerprint())
    now = outputs(fresh, "range")
    assert all(torch.equal(a, b) for a, b in zip(now[0], before[0], strict=True))
    assert now[1] == before[1]


def test_5_wrong_base_missing_predecessor_and_damage_are_refused(tmp_path):
    model = tiny_model(*chain("sight", "sound", "range"))
    fingerprint = model.base.fingerprint()
    for path in model.paths:
        save_path(path, model.paths, tmp_path / path.spec.name, fingerprint)
    with pytest.raises(BaseMismatchError, match=r"must be loaded into base .* got base"):
        load_path(tmp_path / "sound", tiny_model().paths, tiny_base(seed=1).fingerprint())
    with pytest.raises(PathError, match=r"must find its predecessor 'sound', got \[\]"):
        load_path(tmp_path / "range", tiny_model().paths, fingerprint)
    other = tiny_model(*chain("sight", "sound"), seed=5)
    with pytest.raises(PathError, match=r"predecessor 'sound' .* another path of that name"):
        load_path(tmp_path / "range", other.paths, fingerprint)
    tensors = tmp_path / "sound" / "path.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")
    with pytest.raises(PathError, match=r"must have sha256 .*damaged"):
        load_path(tmp_path / "sound", tiny_model().paths, fingerprint)
    tensors.unlink()
    with pytest.raises(PathError, match="got no file"):
        load_path(tmp_path / "sound", tiny_model().paths, fingerprint)


def test_5_dropping_a_path_leaves_the_others_as_they_are():
    model = tiny_model(*chain("sight", "sound", "range"))
    before = outputs(model, "sound")
    with pytest.raises(PathError, match=r"'sound' cannot be dropped: \['range'\] build on it"):
        model.paths.drop("sound")
    model.paths.drop("range")
    assert model.paths.names == ["sight", "sound"]
    assert all(
        torch.equal(a, b) for a, b in zip(outputs(model, "sound")[0], before[0], strict=True)
    )


# Folders and loose modules of the package, lowest first: each may import those before it alone.
LEVELS = [
    *("errors", "extras", "validation", "display", "storage", "parts", "nn", "model", "methods"),
    *("bases", "encoders", "decoders", "metrics", "recipe", "data", "runs", "evaluate"),
    *("estimate", "train", "compare", "datasets", "released", "lmms_eval", "share", "serve", "cli"),
]


def test_imports_point_one_way():
    """One level a folder, and every import goes down: so no two folders are in a circle."""
    here = {file.name.removesuffix(".py") for file in PACKAGE.iterdir()}
    assert here - {"__init__", "__pycache__", "py.typed"} == {*LEVELS}
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for used in _imported(file):
            assert used == part or LEVELS.index(used) < LEVELS.index(part), (
                f"{file.relative_to(PACKAGE)} imports {used}"
            )


def _imported(file):
    """Return the folders and loose modules of the package that a file imports in any form."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("pathweave.") and (used := name.split(".")[1]) != "__version__":
                yield used


@pytest.mark.parametrize(
    "line", ["import pathweave.cli", "from pathweave import cli", "from pathweave.cli import main"]
)
def test_an_import_is_seen_in_every_form(tmp_path, line):
    (tmp_path / "module.py").write_text(line, encoding="utf-8")
    assert list(_imported(tmp_path / "module.py")) == ["cli"]


def test_no_two_public_classes_have_one_name():
    files = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(file.relative_to(PACKAGE).as_posix())
    assert len(files) > 100
    assert {name: found for name, found in files.items() if len(found) > 1} == {}


# Files of one name in two rooms, as they are about one thing: a method, a format, a kind of model.
ONE_THING = {
    *("pathweave", "checkpoint", "efficientnet", "estimate", "points", "pretrained", "projector"),
    *("tensors", "whisper"),
}


def test_no_two_files_have_one_name_unless_they_are_about_one_thing():
    """The command line is left out: a command bears the name of what it runs."""
    rooms = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        if place.parts[0] != "cli" and file.stem != "__init__":
            rooms[file.stem].add(place.parent.as_posix())
    twice = {name for name, found in rooms.items() if len(found) > 1}
    assert twice <= ONE_THING


def _unguarded(tree):
    """Return the lines at which JSON is parsed without a word on what is nested too deep."""
    guarded = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(
            handler.type is not None and "RecursionError" in ast.unparse(handler.type)
            for handler in node.handlers
        ):
            guarded |= {id(inner) for part in node.body for inner in ast.walk(part)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("json.loads", "json.load")
        and id(node) not in guarded
    ]


def test_json_of_any_depth_is_read_or_refused():
    """Lists in lists without end make the parsers raise no ``ValueError``; a line of ours may."""
    found = {
        file.relative_to(PACKAGE).as_posix(): lines
        for file in PACKAGE.rglob("*.py")
        if (lines := _unguarded(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == {}
    assert _unguarded(ast.parse("try:\n json.loads(a)\nexcept ValueError:\n pass")) == [2]


def test_no_source_is_hidden_from_git():
    """A pattern of .gitignore hides files from git, and from the linter, without a word."""
    kinds = ("--others", "--ignored", "--exclude-standard")
    listed = subprocess.run(
        ["git", "ls-files", *kinds, "pathweave", "tests", "scripts", "benchmarks"],
        cwd=PACKAGE.parent, capture_output=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip
    assert [file for file in listed.splitlines() if file.endswith(".py")] == []
