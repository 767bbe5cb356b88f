import gc
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from pathweave.errors import PathError
from pathweave.released import import_files
from pathweave.released.checkpoint import TensorFile, parse_checkpoint
from pathweave.released.importer import assemble
from pathweave.released.layout import Role
from pathweave.released.write import report_import
from tests.released.files import (
    ORDER,
    SMALL_HEADS,
    WIDTHS,
    expanded,
    instructblip_state,
    key_list,
    small_keys,
    stage_state,
    write_run,
)

LAYER = "encoder.layer.1.attention.self"
SITE = "layer_1/self_attention"


def natural(state, position):
    """Make the first adapter at the projector zero, so that leaving it out makes no difference."""
    for key, tensor in state.items():
        if "llmProj_adapter_list.0.up_proj" in key:
            state[key] = torch.zeros_like(tensor)


def checkpoint(state, name="file", quirks=True, heads=SMALL_HEADS):
    return parse_checkpoint(TensorFile(Path(f"{name}.pth"), state), quirks, heads)


def small_run(num_stages=4, change=natural, **how):
    states = [stage_state(position, **how) for position in range(num_stages)]
    for position, state in enumerate(states):
        change(state, position)
    return states


def read(states, order=None, quirks=True):
    names = ["image", *ORDER] if len(states) > 4 else ORDER
    named = zip(names, states, strict=False)
    return assemble([checkpoint(state, name, quirks) for name, state in named], order)


@pytest.fixture(scope="module")
def full_size():
    """The four released stages at full size, of one number each: nothing is allocated."""

    @cache
    def value(name, shape):
        zero = "llmProj_adapter_list 0 up_proj" in name
        return torch.zeros(1).expand(shape) if zero else expanded(name, shape)

    states = [stage_state(position, key_list, value) for position in range(4)]
    return assemble([checkpoint(s, n, heads=None) for s, n in zip(states, ORDER, strict=True)])


def test_every_key_of_the_released_stages_is_accounted_for(full_size):
    assert full_size.paths.names == ["video", "audio", "depth", "point_cloud"]
    report = report_import(full_size)
    for file, modality in zip(report["files"], ORDER, strict=True):
        keys = [key for keys in file["keys"].values() for key in keys]
        assert sorted(keys) == sorted(key_list(modality))
    counts = [{role: len(keys) for role, keys in file["keys"].items()} for file in report["files"]]
    connector = {"connector": 330, "buffer": 1}
    assert counts == [
        {**connector, "path": 368, "future": 1527},
        {**connector, "path": 658, "predecessor": 365, "alias": 144, "future": 1018},
        {**connector, "path": 800, "predecessor": 725, "alias": 288, "future": 509, "no effect": 5},
        {**connector, "path": 796, "predecessor": 1095, "alias": 432, "no effect": 150},
    ]
    # Of 2226, 2372, 2370 and 2372 keys before a forward pass, and the aliases after one.
    assert [sum(count.values()) for count in counts] == [2226, 2516, 2658, 2804]


def test_sizes_and_parameters_are_the_published_ones(full_size):
    shape = full_size.shape
    assert (shape.dim, shape.num_layers, shape.num_heads, shape.hidden_dim) == (768, 12, 12, 3072)
    assert (shape.encoder_width, shape.cross_attention_every) == (1408, 2)
    assert (shape.vocab_size, shape.max_positions, full_size.llm_dim) == (30523, 512, 4096)
    totals = [sum(path.count().values()) for path in full_size.paths]
    assert totals[:3] == [1_072_529, 2_411_089, 1_460_753]
    assert [path.spec.encoder_width for path in full_size.paths] == [1408, 768, 1408, 512]
    # Without the defect the last stage has the value experts of cross-attention, too.
    dead = 6 * (18_185 + 3 * 72 + 2 * 1408 * 4)
    assert totals[3] + dead == 2_312_401


def test_the_connector_is_not_copied(full_size):
    gc.collect()
    words = full_size.connector["qformer.words.weight"]
    assert words.shape == (30523, 768)
    assert words.untyped_storage().nbytes() == 4


def test_each_part_goes_where_it_belongs():
    states = small_run(3)
    imported = read(states)
    video, audio, depth = imported.paths
    assert [path.spec.predecessors for path in imported.paths] == [
        (), ("video",), ("video", "audio"),
    ]  # fmt: skip
    place = f"depth_Qformer.bert.{LAYER}"
    own = states[2]
    assert torch.equal(depth.queries, own["depth_query_tokens"][0])
    assert torch.equal(depth.input_norm.weight, own["depth_ln.weight"])
    assert torch.equal(audio.input_projection.weight, states[1]["audio_encoder_projection.weight"])
    for index, path in enumerate((video, audio, depth)):
        adapter = path.adapter(f"{SITE}/query")
        theirs = f"{place}.query_adapter_list.{index}"
        assert torch.equal(adapter.scale, own[f"{theirs}.scale"])
        assert torch.equal(adapter.down.weight, own[f"{theirs}.down_proj.weight"])
        assert torch.equal(adapter.up.bias, own[f"{theirs}.up_proj.bias"])
    experts = depth.experts_at(f"{SITE}/key")
    assert torch.equal(experts.in_adapters[1].weight, own[f"{place}.key_in_adapter_list.1.weight"])
    assert torch.equal(experts.gate.weight, own[f"{place}.depth_gate_adapter_key"])
    assert torch.equal(experts.gate.noise_weight, own[f"{place}.depth_noise_gate_adapter_key"])
    output = depth.experts_at(f"{SITE}/output").gate.weight
    assert torch.equal(
        output, own["depth_Qformer.bert.encoder.layer.1.attention.output.depth_gate_adapter_dense"]
    )
    assert depth.experts_at("projector").gate is None
    assert not depth.experts_at("projector").in_adapters
    assert torch.equal(
        depth.adapter("projector").up.weight, own["depth_llmProj_adapter_list.2.up_proj.weight"]
    )
    words = imported.connector["qformer.words.weight"]
    assert torch.equal(words, own["depth_Qformer.bert.embeddings.word_embeddings.weight"])
    bias = imported.connector["projector.linear.host.bias"]
    assert torch.equal(bias, own["video_llm_proj.bias".replace("video", "depth")])
    assert not any(p.requires_grad for p in imported.paths.parameters())


def test_the_quirks_of_the_point_cloud_stage():
    states = small_run()
    path = read(states).paths["point_cloud"]
    assert path.experts_at("layer_0/cross_attention/value") is None
    assert path.experts_at("layer_0/cross_attention/key") is not None
    for index in range(3):
        ours = path.experts_at(f"{SITE}/value").in_adapters[index].weight
        key = f"pc_Qformer.bert.{LAYER}.key_in_adapter_list.{index}.weight"
        assert torch.equal(ours, states[3][key])
    planned = [{k: v for k, v in s.items() if "middle_proj" not in k} for s in small_run()]
    path = read(planned, quirks=False).paths["point_cloud"]
    assert path.experts_at("layer_0/cross_attention/value") is not None
    ours = path.experts_at(f"{SITE}/value").in_adapters[0].weight
    key = f"pc_Qformer.bert.{LAYER}.value_in_adapter_list.0.weight"
    assert torch.equal(ours, states[3][key])


def test_halves_are_widened():
    states = [{k: v.half() if v.is_floating_point() else v for k, v in s.items()}
              for s in small_run(2)]  # fmt: skip
    states[0] = {k: v.float() if v.is_floating_point() else v for k, v in states[0].items()}
    imported = read(states)
    queries = imported.paths["audio"].queries
    assert queries.dtype == torch.float32
    assert torch.equal(queries, states[1]["audio_query_tokens"][0].float())


@pytest.mark.parametrize("position", range(4))
def test_files_in_any_order_with_the_picture_file(tmp_path, position):
    files = write_run(tmp_path, change=natural)
    torch.save(instructblip_state(), tmp_path / "image.pth")
    files.insert(position, tmp_path / "image.pth")
    imported = import_files(files[position:] + files[:position], num_heads=SMALL_HEADS)
    assert imported.paths.names == ["image", "video", "audio", "depth", "point_cloud"]
    assert imported.paths["image"].spec.rank == 0
    assert imported.paths["video"].spec.predecessors == ()
    assert imported.checkpoints[1].beside == ("optimizer", "iters")
    assert {p.spec.name: p.spec.encoder_width for p in imported.paths} == WIDTHS


@pytest.mark.parametrize("modality", ["image", "audio", ""])
def test_a_file_without_adapters_is_a_connector_of_its_own(modality):
    width = 24 if modality != "audio" else 20
    state = instructblip_state(modality, width, name="another")
    if not modality:
        state = {k.replace("llm_proj", "opt_proj"): v for k, v in state.items()}
        state |= {"visual_encoder.patch.weight": torch.ones(2), "Qformer.cls.bias": torch.ones(1)}
    imported = assemble([checkpoint(state)])
    assert imported.shape.encoder_width == width
    (path,) = imported.paths
    assert path.spec.name == (modality or "image")
    assert path.spec.rank == 0
    assert list(path.state_dict()) == ["queries", "input_norm.weight", "input_norm.bias"]
    assert len(imported.checkpoints[0].keys(Role.OTHER)) == (0 if modality else 2)


def test_a_qformer_without_text():
    state = {
        key: tensor
        for key, tensor in instructblip_state("").items()
        if not re.search(r"word_emb|position_emb|intermediate\.|layer\.\d+\.output\.", key)
    }
    imported = assemble([checkpoint(state)])
    assert imported.shape.vocab_size is None
    assert "qformer.norm.weight" in imported.connector


def test_several_files_of_instructblip_are_several_connectors():
    states = [instructblip_state("image"), instructblip_state("video", name="another")]
    rule = "b: video_Qformer.* must equal image_Qformer.* of a, got other values; "
    with pytest.raises(PathError, match=f"{rule}each file of X-InstructBLIP has a connector of"):
        assemble([parse_checkpoint(TensorFile(Path(n), s), num_heads=4)
                  for n, s in zip("ab", states, strict=True)])  # fmt: skip
    states[1] = instructblip_state("audio", 20)
    with pytest.raises(PathError, match=r"must have a Q-Former of .* the files are of several"):
        read(states)


MISSING = [
    f"audio_Qformer.bert.{LAYER}.query.weight",
    f"audio_Qformer.bert.{LAYER}.query_adapter_list.1.scale",
    f"audio_Qformer.bert.{LAYER}.value_adapter_list.0.down_proj.bias",
    f"audio_Qformer.bert.{LAYER}.key_in_adapter_list.0.weight",
    f"audio_Qformer.bert.{LAYER}.audio_gate_adapter_value",
    f"audio_Qformer.bert.{LAYER}.audio_noise_gate_adapter_value",
    "audio_Qformer.bert.encoder.layer.0.attention.self.query.weight",
    "audio_Qformer.bert.encoder.layer.0.crossattention.self.key.weight",
    "audio_query_tokens",
    "audio_ln.weight",
    "audio_ln.bias",
    "audio_encoder_projection.bias",
    "audio_llmProj_adapter_list.1.up_proj.weight",
]


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_key_is_named(key):
    state = stage_state(1)
    del state[key]
    with pytest.raises(PathError, match=rf"file.pth must hold {key}, got none; the checkpoint is"):
        checkpoint(state)


@pytest.mark.parametrize("key", [*MISSING, "audio_Qformer.bert.embeddings.position_ids"])
def test_a_tensor_of_another_shape_is_named(key):
    state = stage_state(1)
    state[key] = state[key].new_zeros(9, 9, 9, 9)
    with pytest.raises(PathError, match=rf"{key} must have (shape|\d axes).* got .*\(9, 9, 9, 9\)"):
        checkpoint(state)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, float("nan")) for key in [*MISSING, "audio_llmProj_adapter_list.3.scale"]),
        *((MISSING[0], value) for value in (float("inf"), -float("inf"), 1e300)),
    ],
)
def test_a_tensor_that_is_not_finite_is_named(key, value):
    state = stage_state(1)
    state[key] = state[key].double()
    state[key].view(-1)[0] = value
    number, count = re.escape(str(value)), state[key].numel()
    rule = rf"file.pth: {key} must be finite, got {number} in 1 of {count} values; the training"
    with pytest.raises(PathError, match=rf"{rule} .* give an earlier checkpoint"):
        checkpoint(state)


def test_an_unexpected_key_is_named():
    state = stage_state(1)
    state |= {"audio_Qformer.bert.pooler.weight": torch.ones(1), "extra": torch.ones(1)}
    with pytest.raises(PathError, match=r"must hold no other key .* got audio_Q.*pooler.* \(2 suc"):
        checkpoint(state)


def test_a_future_adapter_that_is_incomplete_is_named():
    state = stage_state(0)
    key = f"video_Qformer.bert.{LAYER}.query_adapter_list.3.scale"
    del state[key]
    with pytest.raises(PathError, match=f"must hold {key}, got none"):
        checkpoint(state)


def test_an_alias_that_is_none_is_named():
    state = stage_state(1)
    key = f"audio_Qformer.bert.{LAYER}.query_adapter_list.0.middle_proj.weight"
    state[key] = state[key] + 1
    with pytest.raises(PathError, match=rf"{key} must repeat .*query_in_adapter_list.0.weight,"):
        checkpoint(state)


def test_aliases_say_whether_the_last_stage_has_the_defect():
    with pytest.raises(PathError, match=r"must repeat .*value_in_adapter.* read with --quirks"):
        checkpoint(stage_state(3), quirks=False)
    state = stage_state(3)
    for key in state:
        if ".attention.self.value_adapter_list" in key and "middle_proj" in key:
            plain = key.replace("_adapter_list", "_in_adapter_list").replace(".middle_proj", "")
            state[key] = state[plain]
    with pytest.raises(PathError, match=r"must repeat .*key_in_adapter.* read with --no-quirks"):
        checkpoint(state)
    assert checkpoint(state, quirks=False).stage.position == 3


def test_files_that_are_no_stage():
    with pytest.raises(PathError, match=r"must hold one Q-Former .* got keys such as a; give the"):
        checkpoint({"a": torch.ones(1)})
    with pytest.raises(PathError, match=r"must hold one Q-Former .* got keys such as none; give"):
        checkpoint({})
    both = instructblip_state("image") | instructblip_state("video")
    with pytest.raises(PathError, match=r"must hold one Q-Former .* got image, video; give the"):
        checkpoint(both)
    state = {k: v for k, v in instructblip_state("").items() if "llm_proj" not in k}
    with pytest.raises(PathError, match=r"must hold a projector \(llm_proj.weight or opt_proj.w"):
        checkpoint(state)


@pytest.mark.parametrize("heads", [None, 3])
def test_heads_that_do_not_fit(heads):
    with pytest.raises(PathError, match=r"heads divide its width 16, got .*; give the right"):
        checkpoint(stage_state(0), heads=heads)


def test_stages_that_are_missing_or_there_twice():
    states = small_run()
    with pytest.raises(PathError, match=r"stages 0, 1, \.\.\. .* got 0 \(video.* 2 \(depth"):
        assemble([checkpoint(states[0], "video"), checkpoint(states[2], "depth")])
    with pytest.raises(PathError, match=r"one file each, got 1 \(audio, file.pth\); give one file"):
        assemble([checkpoint(states[1])])
    with pytest.raises(PathError, match=r"one file, got a.pth and b.pth of 'video'; give one of"):
        assemble([checkpoint(states[0], "a"), checkpoint(states[0], "b")])
    renamed = {k.replace("audio_", "tilt_"): v for k, v in states[1].items()}
    with pytest.raises(PathError, match=r"got 0 \(video.*1 \(audio.*1 \(tilt"):
        assemble([checkpoint(s, n) for s, n in zip([*states[:2], renamed], "abc", strict=True)])
    renamed = {k.replace("audio_", "1Z_"): v for k, v in states[1].items()}
    with pytest.raises(PathError, match=r"must name its modality in lower-case .* got '1Z'"):
        assemble([checkpoint(states[0]), checkpoint(renamed)])


def test_an_order_that_is_given_is_checked():
    states = small_run(3)
    assert read(states, ["video", "audio", "depth"]).paths.names == ["video", "audio", "depth"]
    with pytest.raises(PathError, match=r"--order must be video,audio,depth, .* got audio,vid"):
        read(states, ["audio", "video", "depth"])
    assert read(small_run(), list(ORDER)).paths.names[3] == "point_cloud"


def test_other_names_in_another_order():
    """Nothing depends on the names: the stages of the run under invented ones."""
    names = {"video": "zz_9", "audio": "keys", "depth": "forward", "pc": "a"}
    states = [
        {k.replace(f"{old}_", f"{names[old]}_"): v for k, v in state.items()
         if "middle_proj" not in k}
        for old, state in zip(ORDER, small_run(), strict=True)
    ]  # fmt: skip
    imported = assemble([checkpoint(s) for s in reversed(states)])
    assert imported.paths.names == list(names.values())
    assert imported.paths["a"].experts_at("layer_0/cross_attention/value") is not None


RUN_OF_ITS_OWN = [
    ("depth_Qformer.bert.embeddings.LayerNorm.weight", "X-InstructBLIP"),
    (f"depth_Qformer.bert.{LAYER}.query.weight", "X-InstructBLIP"),
    ("depth_llm_proj.bias", "X-InstructBLIP"),
    (f"depth_Qformer.bert.{LAYER}.query_adapter_list.0.up_proj.weight", "give files of one run"),
    (f"depth_Qformer.bert.{LAYER}.query_adapter_list.1.scale", "give files of one run"),
]


@pytest.mark.parametrize(("key", "remedy"), RUN_OF_ITS_OWN)
def test_files_of_mixed_runs_are_refused(key, remedy):
    states = small_run(3)
    states[2][key] = states[2][key] + 1
    with pytest.raises(PathError, match=rf"depth.pth: {key} must equal .*got other .*{remedy}"):
        read(states)


def test_the_file_of_another_run_with_the_same_connector_is_refused():
    """Its own adapters are right; those of the stage before are not."""
    states = small_run(2)
    for key, tensor in states[0].items():
        if "adapter_list.0" in key:
            states[0][key] = tensor + 1
    with pytest.raises(PathError, match=r"audio.pth: audio_.*adapter_list.0.scale must equal vid"):
        read(states)


def test_a_stage_after_the_one_with_dead_value_experts_is_refused():
    names = {"video": "video", "audio": "pc", "depth": "tilt"}
    states = [
        {k.replace(f"{old}_", f"{names[old]}_"): v for k, v in state.items()
         if "middle_proj" not in k}
        for old, state in zip(ORDER, small_run(3), strict=False)
    ]  # fmt: skip
    with pytest.raises(PathError, match=r"must be of the last stage, got .* value experts of 'pc'"):
        assemble([checkpoint(s) for s in states])


def test_other_widths_of_the_language_model_are_refused():
    keys = {
        k: tuple(40 if size == 32 else size for size in s) for k, s in small_keys("audio").items()
    }
    states = [stage_state(0), stage_state(1, keys=lambda _: keys)]
    with pytest.raises(PathError, match=r"language model's width of 32 as video.pth, got 40"):
        read(states)
