import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from pathweave.data.cache import FeatureCache
from pathweave.decoders import Decoder, build_decoder
from pathweave.encoders.efficientnet import EfficientNet, EfficientNetLite0
from pathweave.encoders.media import Array, Frames, Waveform
from pathweave.encoders.whisper import WhisperEncoder, whisper_network
from pathweave.errors import DiskError, ManifestError, MediaError, RecipeError
from tests.decoders.files import npy
from tests.full_disk import full_disk


class Encoder:
    """Scales arrays, and counts how many media it has seen."""

    accepts = Array
    width = 8

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.num_seen = 0
        self.fingerprint = f"scale={scale}"

    def __call__(self, media):
        self.num_seen += len(media)
        return [self.scale * torch.from_numpy(medium.values)[None] for medium in media]


def medium(seed: int, shape=(3, 8)):
    return npy(np.random.default_rng(seed).normal(size=shape)), f"medium {seed}"


DECODER = build_decoder("array")


def test_computed_once(tmp_path):
    encoder, items = Encoder(), [medium(i) for i in range(70)]
    fresh = FeatureCache(tmp_path).features(encoder, DECODER, items)
    again = FeatureCache(tmp_path).features(encoder, DECODER, items)
    assert encoder.num_seen == 70
    for one, other, item in zip(fresh, again, items, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
        expected = torch.from_numpy(DECODER(*item).values)[None]
        assert torch.equal(one, expected.half().float())


def test_only_missing_media_are_encoded(tmp_path):
    encoder, cache = Encoder(), FeatureCache(tmp_path)
    cache.features(encoder, DECODER, [medium(0), medium(2)])
    mixed = cache.features(encoder, DECODER, [medium(i) for i in (0, 1, 2, 1)])
    assert encoder.num_seen == 3
    assert torch.equal(mixed[1], mixed[3])
    assert torch.equal(mixed[1], cache.features(encoder, DECODER, [medium(1)])[0])
    assert cache.features(encoder, DECODER, []) == []


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Real encoders with random weights, each with a function that makes it a medium."""
    torch.manual_seed(0)
    config = {"width": 16, "num_layers": 2, "num_heads": 2, "num_mels": 80, "rate": 16000}
    config |= {"window": 400, "hop": 160, "max_positions": 100}
    whisper = whisper_network(80, width=16, num_layers=2, num_heads=2, max_positions=100)
    built = []
    for module in (EfficientNet(), whisper):
        directory = tmp_path_factory.mktemp("weights")
        save_file(module.state_dict(), directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
        built.append(directory)

    def frames(noise, seed):
        return Frames((noise.random((1 + seed % 3, 32, 32, 3)) * 255).astype(np.uint8))

    def sound(noise, seed):
        return Waveform(noise.normal(size=4000 + 800 * (seed % 3)).astype(np.float32), 16_000)

    return [(EfficientNetLite0(built[0], size=32), frames), (WhisperEncoder(built[1]), sound)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A cache that is asked for one medium at a time."""
    return FeatureCache(tmp_path_factory.mktemp("alone"))


class Noise(Decoder):
    """A decoder whose media are noise from a seed, which their bytes are."""

    noun = "noise"
    make: Callable

    @property
    def fingerprint(self):
        return self.make.__name__

    def decode(self, data):
        return self.make(np.random.default_rng(int(data)), int(data))


SEEDS = st.integers(0, 5)


@given(order=st.lists(SEEDS, min_size=1, max_size=12), known=st.sets(SEEDS, max_size=2))
@settings(max_examples=6, deadline=None)
def test_features_do_not_depend_on_what_is_encoded_beside_them(encoders, alone, order, known):
    for encoder, make in encoders:
        decoder = Noise(make=make)
        with TemporaryDirectory() as directory:
            together = FeatureCache(Path(directory))
            together.features(encoder, decoder, [(b"%d" % i, "known") for i in sorted(known)])
            items = [(b"%d" % i, "noise") for i in order]
            found = together.features(encoder, decoder, items)
        for item, features in zip(items, found, strict=True):
            assert torch.equal(features, alone.features(encoder, decoder, [item])[0])


def test_shapes_may_differ(tmp_path):
    cache, items = FeatureCache(tmp_path), [medium(0, (1, 4)), medium(1, (7, 4))]
    for _ in range(2):
        found = cache.features(Encoder(), DECODER, items)
        assert [tuple(f.shape) for f in found] == [(1, 1, 4), (1, 7, 4)]


def test_key_depends_on_everything(tmp_path):
    cache, data = FeatureCache(tmp_path), medium(0)[0]
    keys = {
        cache.key(Encoder(), DECODER, data),
        cache.key(Encoder(2.0), DECODER, data),
        cache.key(Encoder(), build_decoder("clip"), data),
        cache.key(Encoder(), build_decoder("clip", frames=3), data),
        cache.key(Encoder(), DECODER, medium(1)[0]),
    }
    assert len(keys) == 5
    assert all(len(key) == 32 for key in keys)


def old_file(cache, item):
    """Where the older form, a file a medium, keeps the features of a medium."""
    name = cache.key(Encoder(), DECODER, item[0]).hex()
    return cache.directory / name[:2] / f"{name[2:]}.safetensors"


@pytest.mark.parametrize("damage", [b"", b"rubbish", None], ids=str)
def test_the_older_form_is_read_and_moves_in_unless_it_is_damaged(tmp_path, damage):
    encoder, cache, item = Encoder(), FeatureCache(tmp_path), medium(0)
    file, values = old_file(cache, item), torch.full((1, 3, 8), 0.5)
    file.parent.mkdir()
    data = save({"features": values.half()})
    file.write_bytes(data[:-1] if damage is None else damage or data)
    is_whole = damage == b""
    assert cache.holds(encoder, DECODER, item[0])
    found = cache.features(encoder, DECODER, [item])[0]
    assert torch.equal(found, values) == is_whole
    assert encoder.num_seen == (0 if is_whole else 1)
    assert cache.size()["old"] == {"media": 1, "bytes": file.stat().st_size, "files": 1}
    cache.clear_old()
    assert not file.parent.exists()
    assert torch.equal(FeatureCache(tmp_path).features(encoder, DECODER, [item])[0], found)
    assert encoder.num_seen == (0 if is_whole else 1)
    size = cache.size()
    assert (size["old"]["files"], size["store"]["media"]) == (0, 1)


def test_damaged_features_are_computed_again(tmp_path):
    encoder, cache, item = Encoder(), FeatureCache(tmp_path), medium(0)
    first = cache.features(encoder, DECODER, [item])[0]
    [segment] = tmp_path.glob("*.features")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    assert torch.equal(cache.features(encoder, DECODER, [item])[0], first)
    assert encoder.num_seen == 2
    cache.features(encoder, DECODER, [item])
    assert encoder.num_seen == 2


def test_a_cache_that_is_deleted_meanwhile_is_filled_again(tmp_path):
    encoder, cache, item = Encoder(), FeatureCache(tmp_path / "features"), medium(0)
    first = cache.features(encoder, DECODER, [item])[0]
    shutil.rmtree(tmp_path / "features")
    for _ in range(2):
        assert torch.equal(cache.features(encoder, DECODER, [item])[0], first)
    assert FeatureCache(tmp_path / "features").holds(encoder, DECODER, item[0])


def test_features_of_another_directory_are_read_too(tmp_path):
    encoder, item = Encoder(), medium(0)
    FeatureCache(tmp_path / "corpus").features(encoder, DECODER, [item])
    cache = FeatureCache(tmp_path / "own")
    for _ in range(2):
        cache.read_too(tmp_path / "corpus")
    cache.features(encoder, DECODER, [item])
    assert encoder.num_seen == 1
    assert cache.size()["elsewhere"] == [str(tmp_path / "corpus")]
    with pytest.raises(ManifestError, match="must hold features that pathweave encode wrote, got"):
        cache.read_too(tmp_path / "nothing")


def test_values_beyond_float16(tmp_path):
    cache, item = FeatureCache(tmp_path), (npy(np.array([1e6, 1.0001])), "loud")
    for _ in range(2):
        found = cache.features(Encoder(), DECODER, [item])[0]
        assert found[0, 0, 0] == 1e6


def test_bad_media(tmp_path):
    encoder, cache = Encoder(), FeatureCache(tmp_path)
    with pytest.raises(MediaError, match=r"^broken must be a whole"):
        cache.features(encoder, DECODER, [medium(0), (b"?", "broken")])
    good = [medium(i) for i in range(32)]
    with pytest.raises(MediaError, match=r"^broken must be a whole"):
        cache.features(encoder, DECODER, [*good, (b"?", "broken")])
    cache.features(encoder, DECODER, good)
    assert encoder.num_seen == 32


def test_features_that_are_not_finite(tmp_path):
    encoder = Encoder(scale=float("inf"))
    with pytest.raises(MediaError, match="features of medium 0 must be finite, got NaN or"):
        FeatureCache(tmp_path).features(encoder, DECODER, [medium(0)])
    assert FeatureCache(tmp_path).size()["store"]["media"] == 0


def test_wrong_decoder(tmp_path):
    encoder = Encoder()
    encoder.accepts = Frames
    with pytest.raises(RecipeError, match=r"must be given .*Frames.*, got Array from decoder"):
        FeatureCache(tmp_path).features(encoder, DECODER, [medium(0)])


def test_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot be written: File exists; free some space"):
        FeatureCache(tmp_path / "file").features(Encoder(), DECODER, [medium(0)])


_SCRIPT = """
import sys
from pathlib import Path
from pathweave.data.cache import FeatureCache
from tests.data.test_cache import DECODER, Encoder, ITEMS
print("ready", flush=True)
sys.stdin.readline()
found = FeatureCache(Path(sys.argv[1])).features(Encoder(), DECODER, ITEMS)
print(sum(features.double().sum().item() for features in found))
"""

ITEMS = [medium(i) for i in range(200)]


def test_two_processes_write_at_once(tmp_path):
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        own = FeatureCache(tmp_path).features(Encoder(), DECODER, ITEMS)
        other = process.communicate()[0]
    assert process.returncode == 0
    encoder = Encoder()
    found = FeatureCache(tmp_path).features(encoder, DECODER, ITEMS)
    assert encoder.num_seen == 0
    total = sum(features.double().sum().item() for features in found)
    assert [float(other), sum(f.double().sum().item() for f in own)] == [total, total]
    assert encoder.num_seen == 0
    # Two segments at most, whatever the number of media.
    size = FeatureCache(tmp_path).size()["store"]
    assert (size["media"], len([path for path in tmp_path.iterdir()]) <= 6) == (len(ITEMS), True)


def test_full_disk(tmp_path):
    cache, item = FeatureCache(tmp_path), medium(0, (100, 8))
    with (
        full_disk(),
        pytest.raises(DiskError, match="cannot be written: File too large; free some"),
    ):
        cache.features(Encoder(), DECODER, [item])
    assert not cache.holds(Encoder(), DECODER, item[0])
    assert cache.size()["store"]["media"] == 0
    assert len(cache.features(Encoder(), DECODER, [item])) == 1


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_features_in_memory_are_the_latest_and_nothing_is_written(asked, room):
    num_bytes = 3 * 8 * 2  # of the features of one medium
    with TemporaryDirectory() as directory:
        encoder, cache = Encoder(), FeatureCache(Path(directory) / "here", room * num_bytes)
        latest, expected = [], 0
        for seed in asked:
            item = medium(seed)
            assert cache.holds(encoder, DECODER, item[0]) == (seed in latest)
            expected += seed not in latest
            latest = [*(each for each in latest if each != seed), seed][-room:] if room else []
            [found] = cache.features(encoder, DECODER, [item])
            assert torch.equal(found, torch.from_numpy(DECODER(*item).values)[None].half().float())
        assert encoder.num_seen == expected
        assert not cache.directory.exists()


def test_features_on_disk_are_read_by_a_cache_in_memory(tmp_path):
    encoder, item = Encoder(), medium(0)
    [stored] = FeatureCache(tmp_path).features(encoder, DECODER, [item])
    files = {file: file.stat().st_size for file in tmp_path.iterdir()}
    cache = FeatureCache(tmp_path, 1 << 20)
    assert cache.holds(encoder, DECODER, item[0])
    assert torch.equal(cache.features(encoder, DECODER, [item])[0], stored)
    assert encoder.num_seen == 1
    cache.features(encoder, DECODER, [medium(1)])
    assert {file: file.stat().st_size for file in tmp_path.iterdir()} == files
