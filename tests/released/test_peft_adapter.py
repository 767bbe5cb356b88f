"""A path as a LoRA: the real peft computes with it what the path does."""

import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from pathweave.errors import PathError, PathWeaveError
from pathweave.model.base import load_directory, save_base
from pathweave.model.llm_hosts import PREFIX, llm_linears
from pathweave.nn import Route
from pathweave.nn.hooked import Carried, carrying
from pathweave.recipe.reading import dump_recipe, load_recipe
from pathweave.released import export_lora
from pathweave.runs.loading import new_model
from pathweave.runs.path_directory import load_path, save_path
from pathweave.runs.run_directory import RunDirectory
from tests import whole_runs as runs
from tests.tiny import FAMILIES, chain, medium, randomise, tiny_base, write_tiny_recipe
from tests.vision_llms import write_vision_llm

peft = pytest.importorskip("peft")

NAMES = ("sight", "sound", "range")
ATTENTION = "llm/*/self_attn/*"
# A language model with a state space beside attention.
STATES = {
    "llm": "falcon_h1",
    **{"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    **{"mamba_n_groups": 1, "mamba_chunk_size": 8, "mamba_expand": 1},
}
PROMPTS = [
    ["Look:", medium("sound", seed=1), "What is it?"],
    [medium("sound", units=2, tokens=3, seed=2), "and", medium("sound", seed=3), "Same?"],
    ["Say", medium("sound", seed=4)],
]


def write_run(root, names=NAMES, llm="llama", scope="prompt", sites=("llm/*",), **fields):
    """The directory of a run, with paths of random weights, and its model."""
    recipe = load_recipe(write_tiny_recipe(root / "sensors", *names))
    save_base(tiny_base(**{**FAMILIES, "falcon_h1": STATES}[llm]), Path(recipe.base), whole=True)
    return write_paths(root, recipe, chain(*names, scope=scope, sites=sites, **fields))


def write_paths(root, recipe, specs):
    run, model = RunDirectory(root / "run"), new_model(recipe)
    run.root.mkdir()
    run.recipe_file.write_text(dump_recipe(recipe), encoding="utf-8")
    fingerprint = model.base.fingerprint()
    for spec in specs:
        path = randomise(model.paths.expand(spec))
        save_path(path, model.paths, run.path(spec.name), fingerprint)
    return run, model.eval()


def with_peft(run, adapter):
    """The plain language model of a run, in which peft has placed an adapter."""
    llm = load_directory(Path(run.recipe().base), torch.float32).llm
    with warnings.catch_warnings():
        # Of peft: of layers without a bias, in which an adapter's cannot be merged, and of its own
        # use of transformers.
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(llm, adapter).eval()


@torch.no_grad()
def assert_equal_logits(model, name, lora):
    """On media and text as soft tokens, and on ids of text alone."""
    close = {"atol": 1e-5, "rtol": 1e-5}
    for prompt in PROMPTS:
        asked = [medium(name, seed=7) if not isinstance(p, str) else p for p in prompt]
        laid_out = model.lay_out([asked])
        with carrying(laid_out.ride):
            expected = model.llm(input_ids=torch.tensor([sum(laid_out.rows[0], ())])).logits
        [embeds] = model.embed_prompts([asked])
        torch.testing.assert_close(lora(inputs_embeds=embeds[None]).logits, expected, **close)
    ids = torch.tensor([model.base.tokenizer.encode("Say hello to all of us.")])
    everywhere = Route(((model.paths.mixtures(name), torch.arange(ids.numel())),), ids.numel())
    with carrying(Carried(everywhere)):
        expected = model.llm(input_ids=ids).logits
    torch.testing.assert_close(lora(input_ids=ids).logits, expected, **close)
    assert (expected - model.llm(input_ids=ids).logits).abs().max() > 1e-2


@pytest.mark.parametrize("llm", ["llama", "gemma3", "cohere", "granite"])
def test_peft_gives_the_logits_of_the_path(tmp_path, llm):
    run, model = write_run(tmp_path, NAMES[:2], llm)
    made = export_lora(run.root, "sound", tmp_path / "lora")
    assert made["layers"] == len(llm_linears(model.llm)) == sum(made["ranks"].values())
    assert made["difference"] < 1e-5
    assert made["base_model"] == str(Path(run.recipe().base, "llm"))
    assert_equal_logits(model, "sound", with_peft(run, tmp_path / "lora"))


PATTERNS = ("*/q_proj", "*/v_proj", "*/o_proj", "*/up_proj", "*/down_proj", "*/0/*", "*/1/mlp/*")
FOUND = st.lists(st.sampled_from([f"llm/{p}" for p in PATTERNS]), min_size=1, max_size=3)


@settings(max_examples=8)
@given(sites=FOUND, plain=FOUND, rank=st.integers(1, 9), plain_rank=st.integers(1, 9))
def test_any_ranks_at_any_sites_are_exported(tmp_path_factory, sites, plain, rank, plain_rank):
    root = tmp_path_factory.mktemp("any")
    fields = {"rank": rank, "plain_rank": plain_rank, "plain_sites": tuple(plain)}
    run, model = write_run(root, ("sound",), sites=tuple(sites), **fields)
    made = export_lora(run.root, "sound", root / "lora")
    inside = {s: e for s, e in model.paths["sound"].experts.items() if s.startswith(PREFIX)}
    ranks = [experts.adapter.rank for experts in inside.values()]
    assert made["ranks"] == {str(rank): ranks.count(rank) for rank in sorted(set(ranks))}
    assert_equal_logits(model, "sound", with_peft(run, root / "lora"))


def test_a_later_path_without_gates_is_one_lora_too(tmp_path):
    """All experts are affine: those of the predecessors are stacked beside the path's own."""
    run, model = write_run(tmp_path, gate=None)
    made = export_lora(run.root, "range", tmp_path / "lora")
    assert made["ranks"] == {"8": len(llm_linears(model.llm))}
    assert_equal_logits(model, "range", with_peft(run, tmp_path / "lora"))


def test_the_whole_path_lies_beside_the_lora(tmp_path):
    sites = ("*/self_attention/*", ATTENTION)
    run, model = write_run(tmp_path, NAMES[:2], sites=sites)
    export_lora(run.root, "sound", tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert all("self_attn" in name for name in tensors)
    model.paths.drop("sound")
    path = load_path(tmp_path / "lora" / "path", model.paths, model.base.fingerprint())
    assert path.adapter("layer_0/self_attention/query") is not None
    assert_equal_logits(model, "sound", with_peft(run, tmp_path / "lora"))


def test_exporting_twice_gives_the_same_bytes(tmp_path):
    run, _ = write_run(tmp_path, NAMES[:2])
    for out in ("a", "b"):
        export_lora(run.root, "sound", tmp_path / out)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({}, "range", r"'range' must have no gates .* got one at llm/layers/0/.*with gate: null"),
        ({"scope": "onward"}, "sound", "scope prompt to be a LoRA, .* got onward; train one with"),
        ({"scope": "medium"}, "sound", "scope prompt to be a LoRA, .* got medium; train one with"),
        ({"sites": ("*",)}, "sound", r"adapters in the language model .*got sites \['\*'\]; train"),
        ({}, "sight", "'sight' must have adapters in the language model"),
        ({}, "sounds", "path must be one of .*got 'sounds'; did you mean 'sound'"),
    ],
)
def test_what_no_lora_can_be_is_refused(tmp_path, fields, name, message):
    run, _ = write_run(tmp_path, **fields)
    with pytest.raises(PathError, match=message):
        export_lora(run.root, name, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_a_layer_that_peft_does_not_take_is_refused(tmp_path):
    run, _ = write_run(tmp_path, NAMES[:2], "falcon_h1", sites=("llm/*/mamba/*",))
    with pytest.raises(PathError, match=r"LoRA of peft must adapt .*out_proj.*name other method"):
        export_lora(run.root, "sound", tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_a_path_of_a_vision_llm_is_exported_for_the_whole_model(tmp_path):
    base = write_vision_llm(tmp_path / "llava", "llava")
    fields = {"base": str(base), "method.reducer.width": 16}
    recipe = load_recipe(write_tiny_recipe(tmp_path / "sensors", "sound"), fields)
    [spec] = chain("sound", scope="prompt", sites=("llm/*",), rank=2)
    run, model = write_paths(tmp_path, recipe, [spec])
    made = export_lora(run.root, "sound", tmp_path / "lora")
    assert made["base_model"] == str(base)
    assert made["layers"] == len(llm_linears(model.llm))
    assert made["difference"] < 1e-4
    names = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert not [name for name in names if "vision" in name]


def test_a_directory_that_exists_and_a_machine_without_peft_are_refused(tmp_path, monkeypatch):
    run, _ = write_run(tmp_path, NAMES[:2])
    with pytest.raises(PathError, match="must be a new directory, got one that exists; choose"):
        export_lora(run.root, "sound", tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PathWeaveError, match=r"peft must be installed .* 'pathweave\[peft\]'"):
        export_lora(run.root, "sound", tmp_path / "lora")


def test_the_command_says_what_it_wrote_and_how_far_off_peft_is(tmp_path, capsys):
    run, _ = write_run(tmp_path, NAMES[:2], sites=(ATTENTION,))
    assert runs.command("export", run.root, "sound", "--lora", tmp_path / "lora") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lora (8 layers: 8 of rank 4) for" in said
    assert re.search(r"loaded by peft; logits of up to .* differ by .* at most \(float32\)", said)


@pytest.mark.parametrize("words", [(), ("sound",), ("sound", "--out", "x"), ("--lora", "x")])
def test_the_command_wants_one_form_of_export(tmp_path, capsys, words):
    assert runs.command("export", tmp_path, *words) == 2
    assert "either --out alone, or --lora and the name of a path" in capsys.readouterr().err
