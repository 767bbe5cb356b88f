import sys
from subprocess import run

import numpy as np
import pytest

from pathweave.encoders import EfficientNetLite0, build_encoder
from pathweave.encoders.efficientnet import EfficientNet
from pathweave.encoders.media import Array
from pathweave.errors import MediaError, RecipeError


def test_a_directory_replaces_the_fetched_weights(random_weights):
    directory = random_weights(EfficientNet())
    encoder = build_encoder("efficientnet-lite0", directory=str(directory), size=64)
    assert isinstance(encoder, EfficientNetLite0)
    assert encoder.size == 64


def test_precomputed_tokens_are_handed_on():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    [features] = build_encoder("precomputed", width=3)([Array(values)])
    assert features.tolist() == [values.tolist()]


def test_precomputed_tokens_must_have_the_declared_width():
    with pytest.raises(MediaError, match="width 4, got 3; set the encoder's width"):
        build_encoder("precomputed", width=4)([Array(np.zeros((2, 3), dtype=np.float32))])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("efficientnet", {}, "got 'efficientnet'; did you mean 'efficientnet-lite0'"),
        ("whisper", {"pol": 2}, "got 'pol'; did you mean 'pool'"),
        ("whisper", {"pool": "2"}, "encoder 'whisper': pool: must be a valid integer, got '2'"),
        ("whisper", {"with_weights": False}, "field with_weights must be one of"),
        ("whisper", {"pool": True}, "'whisper': pool: must be a valid integer, got True"),
        ("whisper", {"directory": 3}, "'whisper': directory: must be a valid string, got 3"),
        ("eva-clip-g", {"precision": "hlf"}, "precision: must be 'half' or 'full', got 'hlf'"),
        ("eva-clip-g", {"size": 2.5}, "size: must be a valid integer, got 2.5"),
        ("transformers", {"model": 3}, "'transformers': model: must be a valid string, got 3"),
        ("transformers", {}, "'transformers': model: Field required; correct it in the recipe"),
        ("beats", {}, r"option 'directory', got none; download BEATs_iter3_plus_AS2M\.pt from"),
        ("ulip2", {}, r"option 'directory', got none; download pointbert_ULIP-2\.pt from"),
        ("eva-clip-g", {"directory": None}, "directory: must be a valid string, got None"),
        ("precomputed", {}, "width: Field required"),
        ("precomputed", {"width": 0}, "width must be positive, got 0"),
    ],
)
def test_wrong_recipes_are_refused(kind, options, message):
    with pytest.raises(RecipeError, match=message):
        build_encoder(kind, **options)


def test_importing_the_package_does_not_import_transformers():
    code = (
        "import sys, pathweave.encoders, pathweave.bases; sys.exit('transformers' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
