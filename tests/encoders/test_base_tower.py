"""The tower of every family of vision LLMs as an encoder."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pathweave.bases.vision_llm import load_vision_llm, open_vision_llm, picture_kind
from pathweave.encoders import BaseTower, build_encoder
from pathweave.encoders.base_tower import VisionLlmReader
from pathweave.encoders.media import Frames, Waveform
from pathweave.errors import MediaError, RecipeError
from tests.vision_llms import WITH_PROCESSOR, picture, write_vision_llm


def frames(*seeds, width=32, height=32):
    return Frames(np.stack([np.asarray(picture(width, height, seed)) for seed in seeds]))


@pytest.fixture(scope="module", params=WITH_PROCESSOR)
def world(request, tmp_path_factory):
    name = request.param
    opened = open_vision_llm(write_vision_llm(tmp_path_factory.mktemp(name), name))
    kind = picture_kind(opened.native)
    reader = VisionLlmReader(opened.model, opened.processor, kind)
    return SimpleNamespace(name=name, model=opened.model, reader=reader, kind=kind)


@pytest.fixture
def encoder(world):
    if world.name == "phi4_multimodal":
        pytest.skip("its tower has no name")
    return BaseTower(reader=world.reader)


def test_features_are_what_the_model_itself_gets_of_its_tower(world, encoder):
    """A pass of the whole model, whose tower is listened to."""
    medium = frames(1, width=48)
    [ours] = encoder([medium])
    inputs = encoder.units(medium)[0]
    seen = []
    hook = encoder.network.register_forward_hook(lambda _, __, out: seen.append(out))
    encoder._read(**inputs)
    hook.remove()
    theirs = seen[0].last_hidden_state.flatten(0, -2)
    assert ours.shape[0] == 1
    assert ours.shape[2] == encoder.width
    assert all((theirs == token).all(1).any() for token in ours[0])  # but for padding
    assert ours.shape[1] > len(theirs) / 4


def test_a_picture_is_a_unit_whatever_it_comes_with(encoder):
    several = frames(1, 2)
    [both] = encoder([several])
    alone = encoder([frames(1), frames(2)])
    assert torch.equal(both, torch.cat(alone))
    assert not torch.equal(both[0], both[1])


def test_the_model_answers_as_before(world, encoder):
    words = torch.arange(3, 9)[None]
    plain = world.model(input_ids=words).logits
    with ThreadPoolExecutor(2) as pool:
        features = pool.submit(encoder, [frames(1)])
        assert torch.equal(world.model(input_ids=words).logits, plain)
        assert torch.equal(features.result()[0], encoder([frames(1)])[0])


def test_it_is_known_by_its_weights_and_settings(world, encoder):
    same = BaseTower(reader=world.reader).fingerprint
    assert same == encoder.fingerprint
    assert BaseTower(2, reader=world.reader).fingerprint != same
    weight = next(p for p in encoder.network.parameters() if p.numel() > 1)
    weight.flatten()[0].add_(1)
    changed = BaseTower(reader=world.reader).fingerprint
    weight.flatten()[0].sub_(1)
    assert changed != same


def test_neighbouring_tokens_may_be_averaged(world, encoder):
    [whole] = encoder([frames(1)])
    [pooled] = BaseTower(whole.shape[1], reader=world.reader)([frames(1)])
    torch.testing.assert_close(pooled[0, 0], whole[0].mean(0))


def test_other_media_are_refused(encoder):
    with pytest.raises(MediaError, match="must be given Frames, got Waveform"):
        encoder([Waveform(np.zeros(8, np.float32), 16000)])


def test_a_base_without_a_tower_has_no_such_encoder():
    rule = (
        "encoder 'base' must go with a vision LLM as base, whose tower reads pictures, got a base"
    )
    with pytest.raises(RecipeError, match=rule):
        build_encoder("base")
    with pytest.raises(RecipeError, match="pool must be positive, got 0"):
        BaseTower(0)
    with pytest.raises(RecipeError, match="pool"):
        build_encoder("base", pool="4")


def test_a_tower_without_a_name_is_refused(tmp_path):
    model = load_vision_llm(write_vision_llm(tmp_path, "phi4_multimodal")).model
    message = "tower for pictures transformers can name, got a Phi4MultimodalForCausalLM, which"
    with pytest.raises(RecipeError, match=message):
        BaseTower(reader=VisionLlmReader(model, None, "image"))
