from dataclasses import replace

import pytest
import torch

from pathweave.errors import PathError
from pathweave.model.paths import DEFAULT_SITES, PathSpec, matches
from pathweave.nn.patches import PatchSpec
from pathweave.storage.tensors import tensors_hash
from tests.tiny import chain, tiny_model

SPEC = chain("sight", "sound", "range")[2]
CROSS = "*/cross_attention/*"


@pytest.fixture
def paths():
    return tiny_model(*chain("sight", "sound")).paths


@pytest.mark.parametrize("gate", ["softmax", "noisy_softmax", None])
@pytest.mark.parametrize("encoder_width", [12, 7])
def test_the_count_by_kind_adds_up(gate, encoder_width):
    path = tiny_model(*chain("sight", "sound", "range")[:2]).paths.expand(
        replace(SPEC, gate=gate, encoder_width=encoder_width)
    )
    count = path.count()
    assert sum(count.values()) == sum(p.numel() for p in path.parameters())
    assert count["queries"] == 3 * 16
    assert count["input"] == 2 * encoder_width + (0 if encoder_width == 12 else 7 * 12 + 12)
    sites = len(path.experts)
    assert count["in_adapters"] == sites * (4 * 4 + 4)
    columns = {"softmax": 2, "noisy_softmax": 4, None: 0}[gate]
    # Gates read the host's input: 12 wide for the keys and values of cross-attention, else 16.
    assert count["gates"] == columns * ((sites - 4) * 16 + 4 * 12)


def test_without_rank_there_are_no_experts(paths):
    assert paths["sight"].count()["adapters"] == 0
    assert paths["sight"].experts_at("projector") is None
    assert paths["sight"].adapter("projector") is None
    assert paths.mixtures("sight") == {}


def test_features_of_another_width_are_projected(paths):
    path = paths.expand(replace(SPEC, encoder_width=7))
    projected = path.project([torch.randn(5, 7), torch.randn(3, 7)])
    assert [unit.shape for unit in projected] == [(5, 12), (3, 12)]
    same = paths["sound"]
    x = torch.randn(5, 12)
    assert torch.equal(same.project([x])[0], same.input_norm(x))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_each_unit_of_a_sequence_is_told_its_order(paths, kind):
    """The order of tokens matters then, whatever their number; a set has none."""
    path = paths.expand(replace(SPEC, name="ordered", positions=kind))
    x = torch.randn(5, 12)
    alone, twice = path.project([x]), path.project([torch.randn(9, 12), x])
    torch.testing.assert_close(twice[1], alone[0])
    torch.testing.assert_close(alone[0], path.positions(path.input_norm(x)))
    assert not torch.allclose(path.project([x.flip(0)])[0].flip(0), alone[0], atol=1e-3)
    same = paths["sound"]
    torch.testing.assert_close(same.project([x.flip(0)])[0].flip(0), same.project([x])[0])
    added = {"sinusoidal": 1, "learned": 32 * 12}[kind]
    assert path.count()["input"] == same.count()["input"] + added


def test_the_hash_changes_with_every_tensor(paths):
    path = paths["sound"]
    before = path.content_hash()
    for parameter in path.parameters():
        value = parameter.data.view(-1)[-1].clone()
        parameter.data.view(-1)[-1] = value + 1e-6 * value.abs()
        assert path.content_hash() != before
        parameter.data.view(-1)[-1] = value
    assert path.content_hash() == before


def test_the_hash_changes_with_every_field(paths):
    path = paths["sound"]
    before = path.content_hash()
    others = {"gate": None, "in_adapter": None, "name": "other", "norm_eps": 1e-6, "plain_rank": 3}
    others |= {"positions": "learned", "columns": 4, "patches": PatchSpec(16, 8), "scope": "medium"}
    for field, value in vars(path.spec).items():
        path.spec = replace(
            paths["sound"].spec,
            **{field: others.get(field, (value + 1) if isinstance(value, int) else ("x",))},
        )
        assert path.content_hash() != before, field
        path.spec = replace(path.spec, **{field: value})
    assert path.content_hash() == before


def test_equal_paths_have_equal_hashes():
    one, two = (tiny_model(*chain("sight", "sound")).paths for _ in range(2))
    assert one["sound"].content_hash() == two["sound"].content_hash()
    assert one["sound"].content_hash() != one["sight"].content_hash()


@pytest.mark.parametrize("name", ["", "Range", "3d", "a-b", "a.b", "a b", "../x", "a\n"])
def test_a_bad_name_is_refused(paths, name):
    with pytest.raises(PathError, match="name must be lower-case letters, digits and underscores"):
        paths.expand(replace(SPEC, name=name))
    assert paths.names == ["sight", "sound"]


def test_a_name_that_is_taken_is_refused(paths):
    with pytest.raises(PathError, match=r"must be new, got 'sound' of \['sight', 'sound'\]"):
        paths.expand(replace(SPEC, name="sound"))


def test_an_unknown_path_is_named_with_the_nearest(paths):
    with pytest.raises(PathError, match=r"one of \[.*\], got 'sonud'; did you mean 'sound'\?"):
        paths["sonud"]
    with pytest.raises(PathError, match=r"got 'zzz'$"):
        paths["zzz"]
    with pytest.raises(PathError, match=r"got 'soun'; did you mean 'sound'\?"):
        paths.expand(replace(SPEC, predecessors=("soun",)))
    with pytest.raises(PathError, match=r"got 'sigth'; did you mean 'sight'\?"):
        paths.expand(SPEC, queries_from="sigth")
    assert paths.names == ["sight", "sound"]


def test_a_pattern_that_matches_no_host_is_refused(paths):
    with pytest.raises(
        PathError, match=r"must match a host, got 'layer_9/\*'; hosts are layer_\*/"
    ):
        paths.expand(replace(SPEC, sites=("projector", "layer_9/*")))
    paths.expand(replace(SPEC, rank=0, sites=("layer_9/*",)))  # nothing is adapted anyway


def test_patterns_choose_hosts(paths):
    path = paths.expand(replace(SPEC, sites=(CROSS, "projector"), plain_sites=("projector",)))
    assert len(path.experts) == 2 * 4 + 1
    assert all(matches(site, (CROSS, "projector")) for site in path.experts)
    assert path.experts_at("projector").gate is None
    assert len(path.experts_at("projector").in_adapters) == 0
    assert path.experts_at("layer_0/cross_attention/key").gate is not None


def test_a_lone_star_is_attention_and_projector(paths):
    assert paths.expand(replace(SPEC, sites=("*",))).experts.keys() == (
        paths.expand(replace(SPEC, name="named", sites=DEFAULT_SITES)).experts.keys()
    )
    blocks = {site.rpartition("/")[0].rpartition("/")[2] for site in paths["named"].experts}
    assert blocks == {"self_attention", "cross_attention", ""}
    everything = paths.expand(replace(SPEC, name="everything", sites=("layer_*", "projector")))
    connector = {site for site in paths.hosts if not site.startswith("llm/")}
    assert everything.experts.keys() == connector
    some = paths.expand(replace(SPEC, name="some", sites=("layer_*",)), without=["projector"])
    assert some.experts.keys() == connector - {"projector"}
    inside = paths.expand(replace(SPEC, name="inside", sites=("llm/*",)))
    assert inside.experts.keys() == paths.hosts.keys() - connector


def test_the_hash_of_a_default_path_is_as_it_was_when_it_was_first_written(paths):
    path = paths.expand(PathSpec("range", encoder_width=12, num_queries=3, rank=4))
    for parameter in path.parameters():
        parameter.data.fill_(0.5)
    assert path.content_hash() == (
        "abfb6c9608cad4c407c4e7548223d85cfdbc5a67d7ab9399c464150f56a55381"
    )


def test_adapters_at_plain_sites_may_have_a_rank_of_their_own(paths):
    spec = replace(SPEC, plain_sites=("projector",), plain_rank=3)
    path = paths.expand(spec)
    assert path.adapter("projector").rank == 3
    assert path.adapter("layer_0/cross_attention/key").rank == spec.rank != 3
    heir = paths.expand(replace(spec, name="last", predecessors=("range",), plain_rank=None))
    assert heir.adapter("projector").rank == spec.rank
    assert ranks_of(paths.mixtures("last")["projector"]) == [3, spec.rank]


def ranks_of(mixture):
    return mixture.spread.sum(1).int().tolist()


def test_a_predecessor_may_lack_a_host(paths):
    paths.expand(replace(SPEC, name="narrow", predecessors=("sound",), sites=(CROSS,)))
    path = paths.expand(replace(SPEC, name="last", predecessors=("sound", "narrow"), rank=2))
    assert path.experts_at("projector").num_earlier == 1
    assert path.experts_at("layer_0/cross_attention/key").num_earlier == 2
    mixtures = paths.mixtures("last")
    assert ranks_of(mixtures["projector"]) == [4, 2]
    assert len(ranks_of(mixtures["layer_0/cross_attention/key"])) == 3


def test_dropping(paths):
    paths.expand(SPEC)
    with pytest.raises(PathError, match=r"'sound' cannot be dropped: \['range'\] build on it"):
        paths.drop("sound")
    with pytest.raises(PathError, match=r"got 'rang'; did you mean 'range'\?"):
        paths.drop("rang")
    paths.drop("range")
    paths.drop("sound")
    assert paths.names == ["sight"]
    assert len(paths) == 1
    assert "sound" not in paths


def test_queries_start_from_an_earlier_path_if_they_are_as_many(paths):
    source = paths["sound"].queries
    same = paths.expand(replace(SPEC, name="same"), queries_from="sound").queries
    assert torch.equal(same, source)
    assert same.data_ptr() != source.data_ptr()
    fewer = paths.expand(replace(SPEC, name="fewer", num_queries=2), queries_from="sound")
    assert fewer.queries.shape == (2, 16)


def test_a_route_has_a_run_per_change_of_path(paths):
    route = paths.route(["sound", "sound", "sight", "sound"])
    assert [count for _, count in route.runs] == [2, 1, 1]
    assert route.runs[0][0] is route.runs[2][0]
    assert route.runs[1][0] == {}
    with pytest.raises(PathError, match="got 'range'"):
        paths.route(["sound", "range"])


def test_defaults_of_a_spec():
    spec = PathSpec("sound", encoder_width=12, num_queries=4)
    assert (spec.rank, spec.gate, spec.in_adapter, spec.sites) == (8, "softmax", "zero", ("*",))


def test_the_norm_of_the_input_has_the_epsilon_of_the_spec(paths):
    small = torch.randn(6, 12) * 1e-3
    for eps in (1e-6, 1e-2):
        path = paths.expand(replace(SPEC, name=f"eps_{eps:.0e}".replace("-", "_"), norm_eps=eps))
        centred = small - small.mean(-1, keepdim=True)
        expected = centred / (small.var(-1, correction=0, keepdim=True) + eps).sqrt()
        torch.testing.assert_close(path.project([small])[0], expected, atol=1e-6, rtol=1e-4)
        path.standardise_input([small])
        spread = path.project([small])[0].std(0)
        assert (spread > 0.5).all()


@pytest.mark.parametrize("features", [torch.ones(1, 12), torch.ones(4, 12).cumsum(1)])
def test_features_that_never_vary_leave_the_norm_of_the_input_as_it_is(paths, features):
    path = paths.expand(replace(SPEC, name="constant"))
    before = path.project([features])[0].clone()
    path.standardise_input([features])
    assert torch.equal(path.project([features])[0], before)
    assert before.isfinite().all()


def test_a_later_field_at_its_default_leaves_hashes_as_they_were(paths):
    later = ("norm_eps", "plain_rank", "own", "positions", "columns", "patches", "scope")
    before = sorted((n, v) for n, v in vars(paths["sound"].spec).items() if n not in later)
    assert paths["sound"].content_hash() == tensors_hash(
        paths["sound"].state_dict(), seed=repr(before)
    )


def test_features_of_another_width_are_refused(paths):
    with pytest.raises(PathError, match=r"'sound' must be given features of width 12, got 5; name"):
        paths["sound"].project([torch.zeros(2, 5)])
