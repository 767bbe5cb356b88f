"""Adapters inside the language model: what they reach, and what they leave as it was."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from pathweave.errors import PathError, RecipeError, RunError
from pathweave.model.generate import generate
from pathweave.model.laid_out import pad
from pathweave.model.llm_hosts import dead_sites, llm_linears, recomputed
from pathweave.model.paths import PathSpec
from pathweave.model.rank import log_likelihoods
from pathweave.nn.hooked import carrying
from tests.tiny import FAMILIES, WIDTH, chain, medium, randomise, tiny_llm, tiny_model

INSIDE = ("llm/*",)
SCOPES = ("onward", "medium", "prompt")
EVERYWHERE = [(name, "onward") for name in FAMILIES] + [("llama", scope) for scope in SCOPES[1:]]
ANSWERS = ["a dog", "no", "hello there", "b"]


def specs(scope="onward", sites=INSIDE, names=("sight", "sound", "range")):
    return chain(*names, sites=sites, scope=scope)


def prompts():
    return [
        ["Look:", medium("sound", seed=1), "What is it?"],
        ["Look here:", medium("range", units=2, tokens=3, seed=2), "and", medium("sight"), "Same?"],
        ["Say hello."],
        [medium("sound", seed=4), "or", medium("range", seed=3), "?"],
    ]


def outputs(model, asked, answers=ANSWERS):
    with torch.no_grad():
        loss, _ = model(asked, answers[: len(asked)])
        return loss, log_likelihoods(model, asked, ["a", "no dog"]), generate(model, asked, 4)


def same(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]) and one[2] == other[2]


def merged(model, name):
    """The language model with an ungated path's adapters in its weights."""
    llm = copy.deepcopy(model.llm)
    for site, experts in model.paths[name].experts.items():
        adapter, layer = experts.adapter, llm_linears(llm)[site]
        with torch.no_grad():
            delta = adapter.scale * adapter.up.weight @ adapter.down.weight
            constant = adapter.scale * (adapter.up.weight @ adapter.down.bias + adapter.up.bias)
            layer.weight += delta
            layer.bias = nn.Parameter(constant + (0 if layer.bias is None else layer.bias))
    for module in llm.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return llm


@torch.no_grad()
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", ["llama", "gemma", "granite", "cohere"])
def test_each_scope_corrects_the_tokens_that_it_says(scope, family):
    """The language model with merged weights reads these tokens, and the plain one the others."""
    model = tiny_model(*specs(scope, names=("sight", "sound")), **FAMILIES[family])
    prompt = ["Look:", medium("sound", seed=1), "What is it?"]
    [embeds] = model.embed_prompts([prompt])
    start = len(model.base.tokenizer.encode("Look: sound:"))
    end = start + 3
    other = merged(model, "sound")
    parts = {
        "onward": [(model.llm, embeds[:start]), (other, embeds[start:])],
        "medium": [
            (model.llm, embeds[:start]),
            (other, embeds[start:end]),
            (model.llm, embeds[end:]),
        ],
        "prompt": [(other, embeds)],
    }[scope]
    cache = None
    for llm, rows in parts:
        made = llm(inputs_embeds=rows[None], cache=cache, use_cache=True)
        cache = made.cache
    laid_out = model.lay_out([prompt])
    ids = torch.tensor([sum(laid_out.rows[0], ())])
    with carrying(laid_out.ride):
        found = model.llm(input_ids=ids).logits[0, -1]
    torch.testing.assert_close(found, made.logits[0, -1], atol=2e-4, rtol=2e-4)
    assert (found - model.llm(inputs_embeds=embeds[None]).logits[0, -1]).abs().max() > 1e-2
    first = model.answer_ids("yes")[:1]
    assert torch.isfinite(found[first]).all()


@pytest.mark.parametrize(("family", "scope"), EVERYWHERE)
def test_the_base_and_earlier_paths_stay_as_they_are(family, scope):
    model = tiny_model(specs()[0], **FAMILIES[family])
    text, sight = [["Say hello."]], [[medium("sight"), "What?"]]
    before = [outputs(model, text), outputs(model, sight), outputs(model, text + sight)]
    names = list(model.llm.state_dict())
    for spec in specs(scope)[1:]:
        path = randomise(model.paths.expand(spec)).requires_grad_(True)
        optimizer = torch.optim.SGD(path.parameters(), lr=0.01)
        for seed in range(2):
            model([[medium(spec.name, seed=seed), "What?"]], ["far"])[0].backward()
            optimizer.step()
        path.requires_grad_(False)
        if spec.name == "sound":
            asked = [["Hm", medium("sound", seed=3), "What?"], [medium("sound", seed=1)]]
            first = outputs(model, asked)
    assert same(first, outputs(model, asked))
    after = [outputs(model, text), outputs(model, sight), outputs(model, text + sight)]
    assert all(map(same, before, after))
    assert not same(first, outputs(model, [["Hm", medium("range", seed=3), "What?"], asked[1]]))
    assert all(p.grad is None for p in model.llm.parameters())
    assert list(model.llm.state_dict()) == names


@torch.no_grad()
@pytest.mark.parametrize(("family", "scope"), EVERYWHERE)
def test_a_mixed_batch_is_as_single_prompts(family, scope):
    model = tiny_model(*specs(scope), **FAMILIES[family])
    loss, ranked, said = outputs(model, prompts())
    alone = [outputs(model, [p], [a]) for p, a in zip(prompts(), ANSWERS, strict=True)]
    torch.testing.assert_close(loss, sum(loss for loss, *_ in alone), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(ranked, torch.cat([r for _, r, _ in alone]), atol=1e-3, rtol=1e-4)
    assert said == [answers[0] for *_, answers in alone]
    assert generate(model, prompts(), 4, beams=3) == [
        generate(model, [p], 4, beams=3)[0] for p in prompts()
    ]


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("scope", SCOPES)
def test_answers_are_the_same_without_a_cache_and_in_chunks(scope, beams):
    model = tiny_model(*specs(scope))
    expected = generate(model, prompts(), 6, beams=beams)
    laid_out = model.lay_out(prompts())
    ids, mask = pad([torch.tensor(prefix + rest) for prefix, rest in laid_out.rows], side="left")
    ways = (
        [{"use_cache": False}]
        if scope == "prompt" or beams > 1
        else [
            {"use_cache": False},
            {"prefill_chunk_size": 4},
            {"cache_implementation": "static", "disable_compile": True},
        ]
    )
    for way in ways:
        with carrying(model.lay_out(prompts()).ride):
            made = model.llm.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=6, num_beams=beams,
                do_sample=False, **way,
            )  # fmt: skip
        said = model.base.tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
        assert [text.strip() for text in said] == expected, way


def test_threads_do_not_see_each_other():
    model = tiny_model(*specs())
    jobs = [[p] for p in prompts()]
    expected = [outputs(model, job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda job: outputs(model, job), jobs * 2)
        assert all(map(same, expected * 2, found))


@pytest.mark.parametrize("family", ["llama", "gemma3", "lfm2"])
def test_gradients_are_the_same_when_layers_are_computed_again(family):
    model = tiny_model(*specs(), **FAMILIES[family])
    model.prefixes.are_shareable = False  # as it is not where layers are computed again
    path, kept = model.paths["range"].requires_grad_(True), []
    passes = []
    layer = model.llm.get_decoder().layers[1]
    layer.register_forward_pre_hook(lambda *_: passes.append(1))
    for model.checkpointing in (False, True):
        model.train()
        model(prompts(), ANSWERS)[0].backward()
        kept.append([p.grad.clone() for p in path.parameters() if p.grad is not None])
        path.zero_grad()
        assert not any(module.training for module in model.llm.modules())
    assert all(map(torch.equal, *kept))
    assert any(grad.abs().max() > 0 for grad in kept[0])
    assert "forward" not in vars(layer)


def test_layers_computed_again_keep_less():
    model = tiny_model(*specs())
    model.paths["range"].requires_grad_(True)
    sizes = []
    for model.checkpointing in (False, True):
        model.train()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t
        ):
            model(prompts(), ANSWERS)
        sizes.append(sum(kept))
    assert sizes[1] < sizes[0] / 2.5


def test_a_model_without_such_layers_is_refused():
    model = tiny_model(*specs())
    model.llm.get_decoder().layers = nn.ModuleList()
    refused = pytest.raises(RecipeError, match="checkpointing must go with a language model whose")
    with refused, recomputed(model.llm):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_dead_sites_are_those_that_get_no_gradient(family):
    """Under scope medium, no answer depends on what else the last layer makes of the medium."""
    torch.manual_seed(0)
    model = tiny_model(chain("sight")[0], **FAMILIES[family])
    sites = llm_linears(model.llm)
    made = {}
    for site, layer in sites.items():
        layer.register_forward_hook(
            lambda _, __, y, site=site: made.__setitem__(site, y.requires_grad_()) or y
        )
    ids = torch.tensor([[5, 6, 7, 8]])
    logits = model.llm(input_ids=ids, use_cache=False).logits
    grads = torch.autograd.grad(logits[0, -1].square().sum(), [*made.values()])
    dead = {s for s, g in zip(made, grads, strict=True) if g[0, :2].abs().max() == 0}
    assert dead == dead_sites(list(sites))
    assert dead


def test_dead_sites_are_left_out_and_a_pattern_of_them_alone_is_refused():
    spec = specs("medium")[1]
    model = tiny_model(specs()[0])
    sites = model.paths.expand(spec).experts.keys()
    assert "llm/layers/1/self_attn/k_proj" in sites
    assert "llm/layers/1/self_attn/o_proj" not in sites
    assert "llm/layers/0/self_attn/o_proj" in sites
    alone = PathSpec("range", WIDTH, 3, rank=2, sites=("llm/layers/1/mlp/*",), scope="medium")
    with pytest.raises(PathError, match="that no answer depends on under scope medium"):
        model.paths.expand(alone)


def test_sites_of_heads_and_unknown_ones_are_refused():
    model = tiny_model(specs()[0])
    for sites in (("llm/lm_head",), ("llm/*/router",), ("llm/layers/7/*",)):
        with pytest.raises(PathError, match=r"hosts are .*llm/layers/\*/self_attn/q_proj.* none\)"):
            model.paths.expand(PathSpec("sound", WIDTH, 3, rank=2, sites=sites))
    with pytest.raises(PathError, match=r"rank must be at most the width.* got 20 for llm/layers"):
        model.paths.expand(PathSpec("sound", WIDTH, 3, rank=20, sites=INSIDE))


def test_routers_and_the_head_are_no_hosts():
    tokenizer = tiny_model(specs()[0]).base.tokenizer
    for kind in ("mixtral", "qwen2_moe"):
        extra = {"moe_intermediate_size": 16, "num_experts": 4} if kind == "qwen2_moe" else {}
        found = llm_linears(tiny_llm(tokenizer, kind, **extra))
        assert found
        assert not any(site.endswith(("/gate", "lm_head", "router")) for site in found)


@torch.no_grad()
def test_an_id_of_a_medium_without_its_medium_is_refused():
    model = tiny_model(*specs())
    laid_out = model.lay_out(prompts()[:1])
    ids = torch.tensor([sum(laid_out.rows[0], ())])
    with pytest.raises(RunError, match="an id must be that of a word or of a medium's token"):
        model.llm(input_ids=ids)
    with carrying(laid_out.ride):
        model.llm(input_ids=ids)
        with pytest.raises(RunError, match="an id must be"):
            model.llm(input_ids=ids + 3)
    with pytest.raises(RunError, match="an id must be"):
        model.llm(input_ids=ids)
