import copy
from dataclasses import replace

import pytest
import torch
from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

from pathweave.bases.qformer_names import our_state
from pathweave.nn import QFormer, QFormerConfig, Route

SHAPE = QFormerConfig(
    dim=16,
    num_layers=3,
    num_heads=2,
    hidden_dim=32,
    encoder_width=12,
    vocab_size=40,
    max_positions=9,
)


def qformer(**changes):
    torch.manual_seed(0)
    return QFormer(replace(SHAPE, **changes)).eval()


def inputs(batch=2, queries=3, tokens=5, text=6):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, queries, 16, generator=generator),
        torch.randn(batch, tokens, 12, generator=generator),
        torch.randint(40, (batch, text), generator=generator),
    )


@torch.no_grad()
@pytest.mark.parametrize("with_text", [True, False])
def test_it_is_that_of_transformers(with_text):
    theirs = InstructBlipQFormerModel(
        InstructBlipQFormerConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=9,
            encoder_hidden_size=12,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).eval()
    for parameter in theirs.parameters():
        parameter.normal_(std=0.3)
    ours = qformer()
    ours.load_state_dict(our_state(theirs.state_dict()))
    queries, features, text = inputs()
    feature_mask = torch.arange(5) < torch.tensor([[5], [3]])
    text_mask = torch.arange(6) < torch.tensor([[6], [2]])
    rows = torch.cat([torch.ones(2, 3), text_mask], dim=1)[:, : 9 if with_text else 3]
    expected = theirs(
        query_embeds=queries,
        encoder_hidden_states=features,
        encoder_attention_mask=feature_mask.long(),
        attention_mask=rows.long(),
        input_ids=text if with_text else None,
    ).last_hidden_state[:, :3]
    beside = (text, text_mask) if with_text else (None, None)
    found = ours(queries, features, Route(), feature_mask, *beside)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_text_steers_the_queries():
    model, (queries, features, text) = qformer(), inputs()
    without = model(queries, features, Route())
    one = model(queries, features, Route(), None, text)
    other = model(queries, features, Route(), None, (text + 1) % 40)
    assert without.shape == one.shape == queries.shape
    assert not torch.allclose(without, one, atol=1e-3)
    assert not torch.allclose(one, other, atol=1e-3)


@torch.no_grad()
def test_padding_changes_nothing():
    model, (queries, features, text) = qformer(), inputs()
    feature_mask, text_mask = torch.ones(2, 5).bool(), torch.ones(2, 6).bool()
    feature_mask[0, 2:], text_mask[0, 4:] = False, False
    together = model(queries, features, Route(), feature_mask, text, text_mask)
    features[0, 2:], text[0, 4:] = 1e3, 39
    again = model(queries, features, Route(), feature_mask, text, text_mask)
    assert torch.equal(together, again)
    alone = model(queries[:1], features[:1, :2], Route(), None, text[:1, :4])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_text_of_no_tokens_is_no_text():
    model, (queries, features, text) = qformer(), inputs()
    none = model(queries, features, Route(), None, text[:, :0])
    assert torch.equal(none, model(queries, features, Route()))


def test_layers_of_cross_attention():
    has = [layer.cross_attention is not None for layer in qformer(cross_attention_every=1).layers]
    assert has == [True, True, True]
    assert [layer.cross_attention is not None for layer in qformer().layers] == [True, False, True]


def test_a_qformer_without_vocabulary_takes_no_text():
    model, (queries, features, text) = qformer(vocab_size=None), inputs()
    assert all(layer.text_ffn is None for layer in model.layers)
    assert model(queries, features, Route()).shape == queries.shape
    with pytest.raises(ValueError, match="text must be None for a Q-Former built without a vocab"):
        model(queries, features, Route(), None, text)


def test_feed_forward_layers_are_saved_as_plain_layers():
    model = qformer()
    state = model.state_dict()
    block = [name for name in state if name.startswith("layers.1.query_ffn.")]
    parts = ("expand", "contract", "norm")
    assert block == [f"layers.1.query_ffn.{p}.{t}" for p in parts for t in ("weight", "bias")]
    assert "layers.1.self_attention.query.host.weight" in state
    weights = model.state_dict(keep_vars=True)
    assert (
        weights["layers.1.query_ffn.expand.weight"] is model.layers[1].query_ffn.expand.host.weight
    )
    for other in (qformer(), copy.deepcopy(qformer())):
        for parameter in other.parameters():
            torch.nn.init.zeros_(parameter)
        other.load_state_dict(state)
        again = other.state_dict()
        assert list(again) == list(state)
        assert all(torch.equal(again[name], state[name]) for name in state)
    alone = model.layers[1].query_ffn
    assert list(alone.state_dict()) == [f"{p}.{t}" for p in parts for t in ("weight", "bias")]
    alone.load_state_dict(alone.state_dict())
    # Below another module, whose name may be that of the part that is left out.
    held = torch.nn.ModuleDict({"host": torch.nn.ModuleDict({"host": model.layers[1].query_ffn})})
    assert set(held.state_dict()) == {
        f"host.host.{p}.{t}" for p in parts for t in ("weight", "bias")
    }
    held.load_state_dict(held.state_dict())


def test_text_that_is_too_long_is_refused():
    queries, features, text = inputs(text=10)
    with pytest.raises(ValueError, match="text must have at most 9 tokens, got 10"):
        qformer()(queries, features, Route(), None, text)
