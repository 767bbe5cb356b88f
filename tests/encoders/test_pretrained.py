"""Tiny random models of many families: the adapter gives what transformers gives directly."""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file

from pathweave.bases import hub
from pathweave.data.cache import FeatureCache
from pathweave.decoders import build_decoder
from pathweave.encoders import build_encoder
from pathweave.encoders.encoder import Encoder
from pathweave.encoders.media import Frames, Waveform
from pathweave.encoders.pretrained import Pretrained
from pathweave.errors import FetchError, MediaError, RecipeError
from tests.encoders.families import CROPPED, FAMILIES, IDS, PICTURE, SQUARE, TEXT

SIGHT = ["clip", "clip-vision", "siglip", "dinov2", "dinov3", "vit", "convnext"]
SOUND = ["ast", "clap", "clap-fused", "whisper", "wav2vec2"]


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Return a function that saves a family once and returns its directory."""
    root = tmp_path_factory.mktemp("families")

    def directory(name):
        place = root / name
        if not place.exists():
            torch.manual_seed(0)
            FAMILIES[name].model().save_pretrained(place)
            FAMILIES[name].processor().save_pretrained(place)
        return place

    return directory


@pytest.fixture(scope="session")
def made(saved):
    """Return a function that makes an encoder of a family once for the same options."""
    kept = {}

    def encoder_of(name, **options):
        key = name, *sorted(options.items())
        if key not in kept:
            kept[key] = encoder(saved(name), **options)
        return kept[key]

    return encoder_of


@pytest.fixture
def copied(saved, tmp_path):
    """Return a function that copies a saved family, to be damaged."""
    return lambda name: shutil.copytree(saved(name), tmp_path / name)


def encoder(directory, **options):
    return Pretrained(str(directory), **{"precision": "full", **options})


def direct(directory, name, inputs):
    model = hf.AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        return FAMILIES[name].features(model, inputs)


def pictures(count=3, seed=0, size=(40, 48)):
    random = np.random.default_rng(seed)
    return Frames(random.integers(0, 256, (count, *size, 3), dtype=np.uint8))


def sound(samples, rate, seed=0):
    noise = np.random.default_rng(seed).normal(size=samples) / 10
    return Waveform(noise.astype(np.float32), rate)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SIGHT)
def test_each_frame_is_a_unit(made, saved, name):
    encode = made(name)
    media = [pictures(3), pictures(1, seed=1, size=(64, 32))]
    processor = hf.AutoImageProcessor.from_pretrained(saved(name), backend="pil")
    found = encode(media)
    for medium, features in zip(media, found, strict=True):
        inputs = processor(images=list(medium.pixels), return_tensors="pt")
        same(features, direct(saved(name), name, inputs))
        assert features.dtype == torch.float32
        assert features.shape[2] == encode.width
    assert [len(features) for features in found] == [3, 1]
    assert encode.accepts is Frames
    assert isinstance(encode, Encoder)


def test_a_clip_is_one_unit_where_the_processor_stacks_frames(made, saved):
    encode = made("videomae")
    processor = hf.AutoImageProcessor.from_pretrained(saved("videomae"), backend="pil")
    found = encode([pictures(4, seed) for seed in range(2)])
    for seed, features in enumerate(found):
        inputs = processor(images=list(pictures(4, seed).pixels), return_tensors="pt")
        same(features, direct(saved("videomae"), "videomae", inputs))
        assert features.shape == (1, 8, 16)


class PlainClips:
    """Stands in for a processor of clips, which needs torchvision: grey values over 255."""

    do_sample_frames = True

    def __call__(self, videos, do_sample_frames, **options):
        assert not do_sample_frames
        stacked = torch.stack([torch.tensor(v).permute(0, 3, 1, 2) / 255 for v in videos])
        return {"pixel_values_videos": stacked}

    def to_dict(self):
        return {"plain": True}


def small_vjepa(directory):
    torch.manual_seed(0)
    config = hf.VJEPA2Config(
        crop_size=32,
        frames_per_clip=4,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        mlp_ratio=2.0,
        pred_hidden_size=12,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        pred_num_mask_tokens=2,
    )
    hf.VJEPA2Model(config).save_pretrained(directory)
    settings = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": 32}
    (directory / "video_preprocessor_config.json").write_text(
        json.dumps(settings), encoding="utf-8"
    )
    return directory


def test_clips_of_a_model_whose_input_is_clips(tmp_path, monkeypatch):
    directory = small_vjepa(tmp_path)
    plain = type("Loader", (), {"from_pretrained": lambda *_, **__: PlainClips()})
    monkeypatch.setattr(hf, "AutoVideoProcessor", plain, raising=False)
    clip = pictures(4, size=(32, 32))
    [features] = encoder(directory)([clip])
    stacked = PlainClips()([clip.pixels], do_sample_frames=False)
    with torch.no_grad():
        expected = hf.AutoModel.from_pretrained(directory).eval()(**stacked).last_hidden_state
    same(features, expected)
    assert features.shape == (1, 8, 16)


def test_clips_through_the_published_processor(tmp_path):
    pytest.importorskip("torchvision")
    directory = small_vjepa(tmp_path)
    [features] = encoder(directory)([pictures(4)])
    processor = hf.AutoVideoProcessor.from_pretrained(directory)
    clip = torch.tensor(pictures(4).pixels).permute(0, 3, 1, 2)
    inputs = processor(videos=[clip], return_tensors="pt", do_sample_frames=False)
    with torch.no_grad():
        expected = hf.AutoModel.from_pretrained(directory).eval()(**inputs).last_hidden_state
    same(features, expected)


@pytest.mark.parametrize("name", SOUND)
def test_each_window_of_a_sound_is_a_unit(made, saved, name):
    encode = made(name)
    extractor = hf.AutoFeatureExtractor.from_pretrained(saved(name))
    rate, window = extractor.sampling_rate, encode.window
    medium = sound(2 * (window or rate) + 999, rate)
    [features] = encode([medium])
    starts = range(0, len(medium.samples), window or len(medium.samples))
    assert len(features) == len(starts) == (1 if window is None else 3)
    for unit, start in zip(features, starts, strict=True):
        part = medium.samples[start : start + (window or len(medium.samples))]
        inputs = extractor(part, sampling_rate=rate, return_tensors="pt")
        same(unit[None], direct(saved(name), name, inputs))
    assert encode.accepts is Waveform
    assert encode.width == features.shape[2]


@pytest.mark.parametrize(("name", "samples"), [("whisper", 16_000), ("clap", 8_000)])
def test_the_window_is_the_extractors_own(made, name, samples):
    assert made(name).window == samples


def test_a_spectrogram_of_64_frames_is_a_window_of_640_ms(made):
    assert made("ast").window == 10_240


def test_a_window_may_be_given_in_seconds(made):
    encode = made("wav2vec2", seconds=0.5)
    medium = sound(20_000, 16_000)
    [features] = encode([Waveform(medium.samples[:16_000], 16_000)])
    assert features.shape[0] == 2
    same(features[:1], encode([Waveform(medium.samples[:8_000], 16_000)])[0])
    whole = made("wav2vec2")([medium])[0]
    assert whole.shape[0] == 1
    with pytest.raises(RecipeError, match=r"at most the extractor's 1, got 2; leave it out"):
        made("whisper", seconds=2.0)
    with pytest.raises(RecipeError, match="seconds must be left out for clip, which reads Frames"):
        made("clip", seconds=2.0)


def test_a_last_window_is_filled_with_silence(made):
    encode = made("wav2vec2", seconds=0.5)
    medium = sound(10_000, 16_000)
    [features] = encode([medium])
    longer = Waveform(np.pad(medium.samples, (0, 6_000)), 16_000)
    assert features.shape[0] == 2
    same(features, encode([longer])[0])


def test_results_do_not_depend_on_the_rest_of_the_batch(made):
    for name, media in (
        ("clip", [pictures(2, seed) for seed in range(3)]),
        ("wav2vec2", [sound(n, 16_000, n) for n in (8000, 8000, 12_000, 8000)]),
    ):
        encode = made(name)
        for medium, features in zip(media, encode(media), strict=True):
            same(features, encode([medium])[0])
            assert not features.requires_grad
        assert encode([]) == []


@pytest.mark.parametrize("name", ["clip", "whisper", "clap", "convnext"])
def test_other_layers_are_hidden_states(made, saved, name):
    model = hf.AutoModel.from_pretrained(saved(name)).eval()
    encode = made(name, layer=1)
    medium = sound(4000, 16_000 if name == "whisper" else 8000)
    medium = pictures(2) if encode.accepts is Frames else medium
    part = {"whisper": "encoder", "clap": "audio_model", "convnext": None}.get(name, "vision_model")
    network = getattr(model, part) if part else model
    with torch.no_grad():
        states = [
            network(**{k: v[None] for k, v in unit.items()}, output_hidden_states=True)[
                "hidden_states"
            ][1]
            for unit in encode.units(medium)
        ]
    expected = torch.cat(states)
    expected = expected.flatten(2).mT if expected.ndim == 4 else expected
    [features] = encode([medium])
    same(features, expected)
    assert encode.width == expected.shape[2]
    with pytest.raises(RecipeError, match=r"layer of .* must be in \[-\d, \d\], got 9; -1 is the"):
        made(name, layer=9)


def test_pooling_averages_neighbouring_tokens(made):
    [every], [pooled] = (made("whisper", pool=pool)([sound(16_000, 16_000)]) for pool in (None, 20))
    assert pooled.shape == (1, 3, 16)
    same(pooled[0, 1], every[0, 20:40].mean(0))
    same(pooled[0, 2], every[0, 40:].mean(0))
    assert made("whisper", pool=1000)([sound(100, 16_000)])[0].shape == (1, 1, 16)


@pytest.mark.parametrize("name", ["clip", "clap", "wav2vec2"])
def test_half_precision_is_close(made, name):
    half, full = made(name, precision="half"), made(name)
    medium = sound(4000, 8000 if name == "clap" else 16_000)
    medium = pictures(4) if full.accepts is Frames else medium
    [rough], [exact] = half([medium]), full([medium])
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.05 * exact.norm()


def test_the_fingerprint_names_content_and_options(made, copied, tmp_path):
    first = made("clip")
    moved = copied("clip").rename(tmp_path / "moved")
    assert encoder(moved).fingerprint == first.fingerprint
    prints = {
        first.fingerprint,
        encoder(moved, layer=-2).fingerprint,
        encoder(moved, pool=2).fingerprint,
        made("siglip").fingerprint,
    }
    tensors = load_file(moved / "model.safetensors")
    tensors["vision_model.post_layernorm.bias"] += 1
    save_file(tensors, moved / "model.safetensors", {"format": "pt"})
    prints.add(encoder(moved).fingerprint)
    hf.CLIPImageProcessorPil(do_normalize=False, **CROPPED).save_pretrained(moved)
    prints.add(encoder(moved).fingerprint)
    config = json.loads((moved / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["hidden_act"] = "relu"
    (moved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    prints.add(encoder(moved).fingerprint)
    assert len(prints) == 7
    assert first.fingerprint.startswith("transformers layer=-1 pool=None ")
    assert "dtype=float32" in first.fingerprint


def test_a_model_in_the_hubs_cache(made, saved, tmp_path, monkeypatch):
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(saved("dinov2"), repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    encode = encoder("someone/tiny")
    same(encode([pictures(1)])[0], made("dinov2")([pictures(1)])[0])
    assert encode.fingerprint == made("dinov2").fingerprint


def test_without_a_hub_the_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    for name in ("someone/tiny", str(tmp_path / "none")):
        with pytest.raises(FetchError, match=r"config\.json, model\.safetensors and prepro") as e:
            encoder(name)
        assert f"got {name!r} (" in str(e.value)
        assert "put these files into a directory and name it, or connect" in str(e.value)
        assert str(e.value).count("\n") == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / "config.json").unlink(), r"got '.*clip' \(.*config\.json"),
        (lambda d: (d / "model.safetensors").unlink(), r"got '.*clip' \(.*model\.safetensors"),
        (
            lambda d: (d / "preprocessor_config.json").unlink(),
            r"must have a processor for pixel_values .* Download the model's small files too",
        ),
        (
            lambda d: (d / "model.safetensors").write_bytes(b"\x08"),
            r"must be a directory with config\.json, .*got '.*clip' \(",
        ),
        (
            lambda d: (d / "config.json").write_text(
                '{"model_type": "telepathy"}', encoding="utf-8"
            ),
            r"got '.*clip' \(.*telepathy",
        ),
    ],
)
def test_missing_and_damaged_files(copied, change, message):
    directory = copied("clip")
    change(directory)
    with pytest.raises(FetchError, match=message):
        encoder(directory)


def test_truncated_weights(copied):
    directory = copied("clip")
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(FetchError, match=r"got '.*clip' \("):
        encoder(directory)


def test_weights_that_the_features_need_may_not_be_missing(copied):
    directory = copied("clip")
    tensors = load_file(directory / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if "fc1.weight" not in k}
    save_file(kept, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        FetchError, match=r"must hold every tensor .*fc1\.weight .*\(2 missing\)"
    ) as e:
        encoder(directory)
    assert "text_model" not in str(e.value)


def test_weights_of_another_size(copied):
    directory = copied("clip")
    tensors = load_file(directory / "model.safetensors")
    tensors["vision_model.post_layernorm.bias"] = torch.zeros(5)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(FetchError, match=r"got '.*clip' \("):
        encoder(directory)


def test_a_language_model_is_refused_before_its_weights_are_read(tmp_path):
    shape = {k: v for k, v in TEXT.items() if k != "max_position_embeddings"}
    hf.LlamaConfig(**shape, **IDS).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"one encoder of .*, got a llama model; name a model"):
        encoder(tmp_path)


def test_one_encoder_must_be_meant(tmp_path):
    hf.SpeechT5Config(hidden_size=24, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    with pytest.raises(
        RecipeError, match=r"one encoder .*, got several \(encoder, decoder\); name"
    ):
        encoder(tmp_path)


def test_a_model_without_hidden_states_is_refused(tmp_path):
    config = hf.EncodecConfig(num_filters=2, hidden_size=4, codebook_size=8, codebook_dim=4)
    hf.EncodecModel(config).save_pretrained(tmp_path)
    hf.EncodecFeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"must give last_hidden_state, got audio_codes.*; choo"):
        encoder(tmp_path)


def test_a_model_that_masks_at_random_is_refused(tmp_path):
    decoder = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1}
    picture = {**PICTURE, "patch_size": 8}
    config = hf.ViTMAEConfig(**picture, **decoder, decoder_num_attention_heads=1)
    hf.ViTMAEModel(config).save_pretrained(tmp_path)
    hf.ViTImageProcessorPil(**SQUARE).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"must give the same features .* masks its input at"):
        encoder(tmp_path)


def test_the_wrong_medium_is_refused(made):
    with pytest.raises(MediaError, match="clip must be given Frames, got Waveform; pair it with"):
        made("clip")([sound(100, 16_000)])
    with pytest.raises(MediaError, match="whisper must be given Waveform, got Frames; pair it"):
        made("whisper")([pictures(1)])


def test_the_wrong_rate_is_refused(made):
    with pytest.raises(MediaError, match=r"at 8000 Hz, got 44100 Hz; set the decoder's rate to"):
        made("clap")([sound(100, 44_100)])


def test_the_wrong_number_of_frames_is_refused(made):
    with pytest.raises(MediaError, match=r"got the shape .*; set the decoder's frames to 4"):
        made("videomae")([pictures(6)])


def test_too_short_a_sound_is_refused(made):
    with pytest.raises(
        MediaError, match=r"got the shape \[\(1, 10\)\] .*; take larger or longer media"
    ):
        made("wav2vec2")([sound(10, 16_000)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 0}, "pool must be positive, got 0; leave it out"),
        ({"seconds": -1.0}, r"seconds must be positive, got -1\.0; leave it out"),
    ],
)
def test_options_must_be_in_range(options, message):
    with pytest.raises(RecipeError, match=message):
        Pretrained("any", **options)


def test_from_bytes_to_cached_features_as_a_recipe_says(saved, tmp_path):
    encode = build_encoder("transformers", model=str(saved("siglip")), precision="full", pool=2)
    stream = io.BytesIO()
    Image.fromarray(pictures(1).pixels[0]).save(stream, "PNG")
    cache, decode = FeatureCache(tmp_path), build_decoder("picture")
    [features] = cache.features(encode, decode, [(stream.getvalue(), "a.png")])
    torch.testing.assert_close(features, encode([pictures(1)])[0], atol=1e-3, rtol=1e-3)
    assert features.shape == (1, 2, 16)
    with pytest.raises(RecipeError, match=r"encoder 'transformers': pool: must be a valid int"):
        build_encoder("transformers", model=str(saved("siglip")), pool="2")
    with pytest.raises(RecipeError, match="'transformers': model: Field required"):
        build_encoder("transformers")
    with pytest.raises(RecipeError, match=r"must be given <class .*Frames'>, got Waveform from"):
        cache.features(encode, build_decoder("sound"), [(wave(), "a.wav")])


def wave():
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(100), 16_000, format="WAV")
    return stream.getvalue()
