import io

import av
import numpy as np
import pytest
import soundfile

from pathweave.decoders.sound import Sound
from pathweave.errors import MediaError
from tests.decoders.files import case, encoded, npy, wav


def sine(rate: int, seconds: float = 3.0, hertz: float = 440.0, num_channels: int = 1):
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    return np.repeat(wave[:, None], num_channels, axis=1)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 44_100, 48_000, 192_000])
def test_any_rate(rate):
    waveform = Sound()(wav(sine(rate), rate), "a")
    assert waveform.rate == 16_000
    assert waveform.samples.shape == (32_000,)
    expected = sine(16_000)[:32_000, 0]
    np.testing.assert_allclose(waveform.samples[100:-100], expected[100:-100], atol=0.01)


@pytest.mark.parametrize("num_channels", [1, 2, 6, 32])
def test_channels_are_averaged(num_channels):
    samples = Sound()(wav(sine(16_000, num_channels=num_channels)), "a").samples
    np.testing.assert_allclose(samples, sine(16_000)[:32_000, 0], atol=1e-4)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_formats(kind):
    assert 0.3 < np.abs(Sound()(wav(sine(16_000), kind=kind), "a").samples).max() < 0.8


@pytest.mark.parametrize("rate", [1, 8_000, 16_000, 44_100, 192_000])
def test_one_sample(rate):
    samples = Sound()(wav(np.array([0.5]), rate), "a").samples
    assert samples.shape == (32_000,)
    assert np.abs(samples).max() > 0.01


def test_short_sounds_are_followed_by_silence():
    samples = Sound(seconds=1.0)(wav(sine(16_000, seconds=0.25)), "a").samples
    assert np.abs(samples[:4_000]).max() > 0.4
    assert (samples[4_000:] == 0).all()


def test_loud_floats_are_scaled_not_clipped():
    samples = Sound()(wav(8 * sine(16_000), subtype="FLOAT"), "a").samples
    np.testing.assert_allclose(samples, 2 * sine(16_000)[:32_000, 0], atol=0.01)


def test_length_of_odd_settings():
    assert Sound(rate=7, seconds=0.33)(wav(sine(16_000)), "a").samples.shape == (2,)


@pytest.mark.parametrize(
    ("seconds", "windows"),
    [(0.1, 1), (1.0, 1), (1.04, 1), (1.06, 2), (1.5, 2), (2.0, 2), (2.9, 3), (7.0, 3)],
)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_long_sound_gives_as_many_windows_as_it_fills(seconds, windows, rate):
    samples = Sound(seconds=1.0, windows=3)(wav(sine(rate, seconds), rate), "a").samples
    assert samples.shape == (windows * 16_000,)
    kept = min(len(samples), round(16_000 * seconds)) - 100
    np.testing.assert_allclose(samples[100:kept], sine(16_000, 7.0)[100:kept, 0], atol=0.01)


def test_one_window_is_as_before():
    data = wav(sine(44_100), 44_100)
    one, plain = Sound(seconds=1.25, windows=1), Sound(seconds=1.25)
    np.testing.assert_array_equal(one(data, "a").samples, plain(data, "a").samples)
    assert one.fingerprint == "sound-2 rate=16000 seconds=1.25"
    assert Sound(windows=2).fingerprint == "sound-2 rate=16000 seconds=2.0 windows=2"


@pytest.mark.parametrize(("seconds", "kept"), [(0.31, 0.31), (1.0, 1.0), (2.03, 2.0), (7.0, 2.0)])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_without_padding_a_sound_keeps_its_length(seconds, kept, rate):
    samples = Sound(seconds=1.0, windows=2, pad=False)(wav(sine(rate, seconds), rate), "a").samples
    assert samples.shape == (round(16_000 * kept),)
    expected = sine(16_000, kept)[100:-100, 0]
    np.testing.assert_allclose(samples[100:-100][: len(expected)], expected, atol=0.01)
    assert Sound(pad=False).fingerprint == "sound-2 rate=16000 seconds=2.0 unpadded"


def test_without_padding_a_single_sample_is_kept():
    assert Sound(pad=False)(wav(np.array([0.5]), 192_000), "a").samples.shape == (1,)


def test_no_samples():
    with pytest.raises(MediaError, match=r"x\.wav must hold at least one sample, got none;"):
        Sound()(wav(np.zeros(0)), "x.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    with pytest.raises(MediaError, match=r"must hold finite amplitudes, got NaN or infinity;"):
        Sound()(wav(np.array([0.0, value]), subtype="FLOAT"), "x.wav")


@pytest.mark.parametrize("data", [b"", b"hello, I am a sound", npy(np.zeros(3)), b"RIFF", b"fLaC"])
def test_mislabelled(data):
    with pytest.raises(MediaError, match=r"^x\.wav must be a whole sound .*; replace the file"):
        Sound()(data, "x.wav")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
def test_truncated(kind):
    data = wav(sine(16_000, seconds=1.0), kind=kind)
    with pytest.raises(MediaError, match=r"x must be a whole sound"):
        Sound()(data[: len(data) // 2], "x")


def test_streamed_header_is_not_truncated():
    data = bytearray(wav(sine(16_000)))
    data[4:8] = b"\xff\xff\xff\xff"
    assert np.abs(Sound()(bytes(data), "x").samples).max() > 0.4


def test_picture_is_refused():
    from PIL import Image

    with pytest.raises(MediaError, match="got PNG data"):
        Sound()(encoded(Image.new("L", (4, 4))), "x.wav")


def whole(data: bytes, rate: int = 16_000):
    return Sound(rate=rate, seconds=60.0, pad=False)(data, "x").samples


def streamed(kind: str, codec: str, rate: int = 16_000, **options) -> bytes:
    """One second as a program writes it that cannot go back to its header."""

    class Pipe:
        data = b""

        def write(self, more):
            self.data += bytes(more)
            return len(more)

    pipe = Pipe()
    with av.open(pipe, "w", format=kind, options=options) as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        samples = (32_767 * sine(rate, 1.0).T).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        size = track.codec_context.frame_size or None
        resampler = av.AudioResampler(track.format, "mono", rate, frame_size=size)
        for part in resampler.resample(frame) + resampler.resample(None):
            container.mux(track.encode(part))
        container.mux(track.encode())
    return pipe.data


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [
        ("wav", "pcm_s16le", {}),
        ("wav", "pcm_s16le", {"rf64": "always"}),
        ("w64", "pcm_s16le", {}),
        ("aiff", "pcm_s16be", {}),
        ("au", "pcm_s16be", {}),
        ("caf", "pcm_s16be", {}),
        ("flac", "flac", {}),
    ],
)
def test_sounds_written_to_a_pipe_are_read_whole(kind, codec, options):
    samples = whole(streamed(kind, codec, **options))
    np.testing.assert_allclose(samples, sine(16_000, 1.0)[:, 0], atol=1e-3)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("places", [(4, 40), (40,)])
def test_the_sizes_that_programs_leave_in_streams_are_no_lengths(size, places):
    data = bytearray(wav(sine(16_000, 1.0)))
    data[4:8] = (36).to_bytes(4, "little")
    for place in places:
        data[place : place + 4] = size.to_bytes(4, "little")
    np.testing.assert_allclose(whole(bytes(data)), sine(16_000, 1.0)[:, 0], atol=1e-4)


def test_mp3_without_a_tag_is_read_to_its_end():
    data = case("noxing.mp3")
    assert whole(data, 44_100).shape == (442_368,)
    for ending in (b"TAG" + bytes(125), bytes(5_000), b"hello " * 900):
        np.testing.assert_array_equal(whole(data + ending, 44_100), whole(data, 44_100))


@pytest.mark.parametrize("kinds", [("MP3", "MP3"), ("VORBIS", "VORBIS"), ("OPUS", "VORBIS")])
def test_joined_sounds_are_read_one_after_the_other(kinds):
    halves = [
        wav(0.3 * sine(16_000, 1.0, hertz), kind="MP3" if kind == "MP3" else "OGG", subtype=subtype)
        for kind, subtype, hertz in (
            (kind, None if kind == "MP3" else kind, hertz)
            for kind, hertz in zip(kinds, (440.0, 660.0), strict=True)
        )
    ]
    both = np.concatenate([whole(half) for half in halves])
    assert both.shape == (32_000,)
    np.testing.assert_array_equal(whole(b"".join(halves)), both)


def test_a_joined_sound_of_another_rate_keeps_its_time():
    halves = [wav(sine(rate, 1.0), rate, kind="OGG") for rate in (16_000, 48_000)]
    samples = whole(b"".join(halves))
    assert samples.shape == (32_000,)
    np.testing.assert_allclose(samples[17_000:31_000], sine(16_000, 1.0)[1_000:15_000, 0], atol=0.1)


def test_mp3_with_and_without_a_tag_may_be_joined():
    tagged, bare = wav(sine(44_100), 44_100, kind="MP3"), case("noxing.mp3")
    length = 3 * 44_100 + 442_368
    assert whole(tagged + bare, 44_100).shape == whole(bare + tagged, 44_100).shape == (length,)


def test_a_tagged_mp3_is_what_libsndfile_reads():
    data = wav(sine(44_100), 44_100, kind="MP3")
    expected, _ = soundfile.read(io.BytesIO(b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + data), dtype="f4")
    np.testing.assert_array_equal(whole(data, 44_100), expected)


def test_ogg_of_a_recorder_that_was_stopped_is_read():
    assert whole(case("noeos_OGG_OPUS.ogg"), 48_000).shape == (48_000,)


@pytest.mark.parametrize(
    "kind", ["WAV", "WAVEX", "AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "SVX", "W64"]
)
def test_a_sound_that_breaks_off_is_refused(kind):
    data = wav(sine(16_000, 4.0), kind=kind, subtype="PCM_16" if kind == "SVX" else None)
    assert abs(len(whole(data)) - 64_000) < 2
    for share in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(MediaError, match=r"^x must be a whole sound"):
            Sound(seconds=0.2)(data[: int(share * len(data))], "x")
