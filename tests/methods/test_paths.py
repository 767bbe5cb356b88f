"""Paths with parts of the connector for themselves, and with adapters in feed-forward blocks."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pathweave.errors import PathError
from pathweave.evaluate.gates import gate_usage
from pathweave.model.generate import generate
from pathweave.model.prompt import Medium
from pathweave.nn import woven_sites
from pathweave.runs.path_directory import describe_path, load_path, save_path
from tests.tiny import chain, medium, randomise, tiny_model

SENSORS = ("sight", "sound", "range", "shape")
FEED_FORWARD = ("*", "*/query_ffn/*")


def with_own(*owns):
    """Specs without adapters, each with these parts for itself."""
    specs = chain(*SENSORS[: len(owns)], rank=0)
    return [replace(spec, own=own, predecessors=()) for spec, own in zip(specs, owns, strict=True)]


@pytest.fixture
def model():
    return tiny_model(*with_own((), ("projector",), ("qformer", "projector"), ()))


def soft(model, name, seed=1):
    with torch.no_grad():
        return model.soft_tokens([medium(name, units=2, seed=seed)], ["What is it?"])[0]


@pytest.mark.parametrize(
    ("part", "readers"),
    [("projector", ["sight", "shape"]), ("qformer", ["sight", "sound", "shape"])],
)
def test_a_path_is_read_with_its_own_parts(model, part, readers):
    before = {name: soft(model, name) for name in SENSORS}
    with torch.no_grad():
        for parameter in getattr(model, part).parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    moved = [name for name in SENSORS if not torch.equal(soft(model, name), before[name])]
    assert moved == readers


def test_a_copy_of_a_part_gives_what_the_part_gives():
    model = tiny_model(*with_own((), ()))
    path = model.paths.expand(with_own((), (), ("qformer", "projector"))[2])
    path.load_state_dict({**path.state_dict(), **model.paths["sound"].state_dict()})
    features = medium("sound").features
    with torch.no_grad():
        media = [Medium("sound", features), Medium("range", features)]
        one, other = (model.eval().soft_tokens([m], ["What?"])[0] for m in media)
    assert torch.equal(one, other)


def test_a_batch_may_mix_paths_with_and_without_parts_of_their_own(model):
    names = [SENSORS[i % 4] for i in (3, 0, 2, 1, 2, 0, 1)]
    media = [medium(name, units=1 + i % 2, seed=i) for i, name in enumerate(names)]
    texts = [f"Question {i}?" for i in range(len(media))]
    with torch.no_grad():
        together = model.soft_tokens(media, texts)
        for m, text, tokens in zip(media, texts, together, strict=True):
            torch.testing.assert_close(model.soft_tokens([m], [text])[0], tokens)
    assert len(generate(model, [[media[0], media[2], "Which?"]], 3)) == 1


def test_parts_are_counted_saved_and_loaded_with_their_path(model, tmp_path):
    path = model.paths["range"]
    count = path.count()
    assert sum(count.values()) == sum(p.numel() for p in path.parameters())
    connector = sum(t.numel() for t in model.base.connector_state().values())
    assert count["connector"] == connector
    assert "connector" not in model.paths["sight"].count()
    save_path(path, model.paths, tmp_path / "range", "print")
    assert describe_path(tmp_path / "range")["spec"]["own"] == ["qformer", "projector"]
    fresh = tiny_model(seed=3)
    fresh.cues = model.cues
    load_path(tmp_path / "range", fresh.paths, "print")
    assert torch.equal(soft(fresh, "range"), soft(model, "range"))
    assert fresh.paths["range"].content_hash() == path.content_hash()


def test_a_path_without_parts_of_its_own_says_nothing_of_them(model, tmp_path):
    save_path(model.paths["sight"], model.paths, tmp_path / "sight", "print")
    assert "own" not in describe_path(tmp_path / "sight")["spec"]
    assert not any("own" in name for name in load_file(tmp_path / "sight/path.safetensors"))


def test_an_unknown_part_is_refused():
    model = tiny_model()
    [spec] = with_own(("projektor",))
    expected = r"own parts must be of \['qformer', 'projector'\], got 'projektor'; leave it out"
    with pytest.raises(PathError, match=expected):
        model.paths.expand(spec)
    assert model.paths.names == []


def test_training_puts_the_parts_of_the_newest_path_into_training_mode(model):
    path = model.paths["range"]
    path.requires_grad_(True)
    model.train()
    assert path.own["qformer"].training
    assert not model.qformer.training
    assert not model.paths["sound"].own["projector"].training


def test_feed_forward_blocks_are_adapted_where_a_pattern_names_them():
    everywhere = tiny_model(*chain("sight", "sound"))
    sites = {site for site in woven_sites(everywhere.qformer) if "_ffn" in site}
    assert len(sites) == 3 * 2 * 2
    assert not sites & set(everywhere.paths["sound"].experts)
    specs = chain("sight", "sound", sites=FEED_FORWARD)
    path = tiny_model(*specs).paths["sound"]
    adapted = {site for site in sites if "query_ffn" in site}
    assert set(path.experts) == set(everywhere.paths["sound"].experts) | adapted
    host = path.experts_at("layer_0/query_ffn/expand").adapter
    assert (host.down.in_features, host.up.out_features) == (16, 32)
    assert path.count()["adapters"] > everywhere.paths["sound"].count()["adapters"]


def test_adapters_in_feed_forward_blocks_start_from_nothing_and_then_matter():
    model = tiny_model(*chain("sight"))
    path = model.paths.expand(chain("sight", "sound", sites=FEED_FORWARD)[1])
    path.queries.data.copy_(model.paths["sight"].queries.data)
    path.input_norm.load_state_dict(model.paths["sight"].input_norm.state_dict())
    features = medium("sight").features
    media = [Medium("sight", features), Medium("sound", features)]
    with torch.no_grad():
        old, new = (model.soft_tokens([m], ["What?"])[0] for m in media)
        assert torch.equal(old, new)
        path.experts_at("layer_1/query_ffn/contract").adapter.up.weight.normal_()
        assert not torch.allclose(model.soft_tokens(media[1:], ["What?"])[0], old, atol=1e-4)
        assert torch.equal(model.soft_tokens(media[:1], ["What?"])[0], old)


def test_adapters_in_feed_forward_blocks_add_to_their_layer():
    model = tiny_model(*chain("sight", "sound", "range", sites=FEED_FORWARD))
    layer = model.qformer.layers[0].query_ffn.expand
    experts = model.paths["range"].experts_at(layer.site)
    x = torch.randn(3, 2, 16)
    route = model.paths.route(["sight", "range", "range"])
    earlier = model.paths["sound"].adapter(layer.site)
    weights = experts.gate(x[1:])
    expected = torch.nn.functional.linear(x, layer.host.weight, layer.host.bias)
    expected[1:] += weights[..., :1] * earlier(x[1:], experts.in_adapters[0])
    expected[1:] += weights[..., 1:] * experts.adapter(x[1:])
    torch.testing.assert_close(layer(x, route), expected, atol=1e-5, rtol=1e-5)


def test_gates_of_feed_forward_blocks_count_in_the_usage():
    model = tiny_model(*chain(*SENSORS[:3], sites=("*/query_ffn/*",)))
    for experts in model.paths["range"].experts.values():
        experts.gate.weight.data.zero_()
    features = [medium("range").features]
    usage = gate_usage(model, "range", features, ["What?"])
    assert usage == pytest.approx({"sound": 0.5, "range": 0.5})


def test_nothing_is_forgotten_with_feed_forward_blocks():
    specs = chain(*SENSORS, sites=FEED_FORWARD)
    model = tiny_model(*specs[:2])
    before = soft(model, "sound")
    for spec in specs[2:]:
        randomise(model.paths.expand(spec))
    model.eval()
    assert torch.equal(soft(model, "sound"), before)
