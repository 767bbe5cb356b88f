"""The tower of every family of vision LLMs as an encoder."""

from types import SimpleNamespace

import numpy as np
import pytest

from pathweave.bases.vision_llm import open_vision_llm, picture_kind
from pathweave.encoders import BaseTower
from pathweave.encoders.base_tower import VisionLlmReader
from pathweave.encoders.media import Frames
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
