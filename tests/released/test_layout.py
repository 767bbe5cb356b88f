from dataclasses import replace

import pytest

from pathweave.bases.qformer_names import lavis_name, our_name
from pathweave.nn import QFormerConfig
from pathweave.released.layout import (
    OTHER_PARTS,
    CheckpointStage,
    Role,
    file_prefix,
    key_specs,
    path_name,
    prefixes,
    qformer_shapes,
)
from tests.released.files import ORDER, key_list

BERT = QFormerConfig(768, 12, 12, 3072, 1408, vocab_size=30523)
RELEASED = CheckpointStage("", BERT, 4096, 32, 1408, num_adapters=4, num_in_adapters=3, rank=8)


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("quirks", [True, False])
def test_the_keys_and_shapes_are_those_of_the_released_stages(position, quirks):
    modality = ORDER[position]
    width = {"audio": 768, "pc": 512}.get(modality, 1408)
    stage = replace(RELEASED, prefix=modality, own_width=width, position=position, quirks=quirks)
    made = key_specs(stage)
    assert {key: spec.shape for key, spec in made.items()} == key_list(modality)
    required = {key for key, spec in made.items() if not spec.optional}
    assert required == {k for k in key_list(modality, False) if "position_ids" not in k}


def test_every_name_of_the_connector_has_an_inverse():
    for shape in (BERT, replace(BERT, vocab_size=None)):
        for ours in qformer_shapes(shape):
            assert our_name(lavis_name(ours)) == ours


def test_every_tensor_of_a_path_has_one_key():
    for position, modality in enumerate(ORDER):
        stage = replace(RELEASED, prefix=modality, own_width=512, position=position)
        found = [n for s in key_specs(stage).values() if s.role is Role.PATH for n in s.names]
        assert len(found) == len(set(found))


def test_names_of_modalities_map_both_ways():
    assert [path_name(name) for name in ("", *ORDER)] == [
        "image", "video", "audio", "depth", "point_cloud",
    ]  # fmt: skip
    for name in ("image", *ORDER, "tilt"):
        assert file_prefix(path_name(name)) == name
    assert prefixes(["Qformer.bert.a", "pc_Qformer.bert.b", "pc_Qformer.bert.c", "x"]) == ["", "pc"]


def test_parts_of_other_models_are_known():
    for key in ("visual_encoder.blocks.0", "audio_encoder.layers.0", "llm_model.model.inv_freq",
                "Qformer.cls.predictions.bias", "image_Qformer.cls.x", "vision_proj.weight",
                "temp", "itm_head.bias"):  # fmt: skip
        assert OTHER_PARTS.match(key), key
    for key in ("audio_encoder_projection.weight", "llm_proj.weight", "temperature", "image_ln.x"):
        assert not OTHER_PARTS.match(key), key
