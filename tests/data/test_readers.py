import pytest

from pathweave.data.cache import FeatureCache
from pathweave.data.readers import FeatureReader, JointReader, Readers
from pathweave.decoders import build_decoder
from pathweave.encoders import build_encoder
from pathweave.errors import PathError, RecipeError
from pathweave.recipe.reading import parse_recipe
from tests.tiny import WIDTH


def test_readers_are_built_when_used_and_share_equal_encoders(tmp_path):
    part = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": WIDTH}}
    wider = {**part, "encoder": {"kind": "precomputed", "width": 2 * WIDTH}}
    modalities = {"sight": part, "sound": part, "range": wider}
    recipe = parse_recipe({"name": "t", "modalities": modalities, "curriculum": ["sight"]})
    found = Readers(recipe.modalities, FeatureCache(tmp_path))
    assert list(found) == ["sight", "sound", "range"]
    assert len(found) == 3
    assert found["sight"].encoder is found["sound"].encoder
    assert found["sight"] is found["sight"]
    assert found["range"].encoder.width == 2 * WIDTH
    with pytest.raises(KeyError, match="shape"):
        found["shape"]


def test_a_joint_reader_is_built_from_its_declaration(tmp_path):
    part = {"decoder": {"kind": "array"}, "encoder": {"kind": "precomputed", "width": WIDTH}}
    modalities = {"both": {"reads": ["sight", "sound"]}, "sight": part, "sound": part}
    recipe = parse_recipe({"name": "t", "modalities": modalities, "curriculum": ["sight"]})
    found = Readers(recipe.modalities, FeatureCache(tmp_path))
    assert found["both"].of("sound") is found["sound"]
    assert found["both"].width == WIDTH


def test_modalities_of_one_path_must_have_one_width(tmp_path):
    cache, array = FeatureCache(tmp_path), build_decoder("array")
    own = {
        name: FeatureReader(array, build_encoder("precomputed", width=width), cache)
        for name, width in {"sound": 12, "tilt": 3}.items()
    }
    reader = JointReader("both", ("sound", "tilt"), own)
    with pytest.raises(RecipeError, match=r"both\.reads must .* got sound 12, tilt 3; leave"):
        _ = reader.width
    with pytest.raises(PathError, match=r"a medium for path 'both' must .*got 'range'"):
        reader.of("range")
