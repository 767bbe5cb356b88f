import pytest

from pathweave.decoders.whole import stated_length
from tests.decoders.files import case, film, noise, wav

FRAGMENTED = {"movflags": "frag_every_frame+empty_moov+default_base_moof"}
FILMS = [
    *(("mp4", "mpeg4", {}), ("mp4", "mpeg4", FRAGMENTED), ("avi", "mpeg4", {})),
    *(("matroska", "mpeg4", {}), ("webm", "libvpx", {"live": "1"}), ("flv", "flv", {})),
    *(("mpegts", "mpeg2video", {}), ("asf", "wmv2", {})),
]
SOUNDS = ["WAV", "AIFF", "AU", "CAF", "OGG", "RF64", "W64"]


@pytest.mark.parametrize(
    "data",
    [
        *(film(5, kind=kind, codec=codec, rate=25, **options) for kind, codec, options in FILMS),
        *(wav(noise((500, 1)), kind=kind) for kind in SOUNDS),
        *(case("base.mp4"), case("noeos_OGG_OPUS.ogg"), b"no medium"),
    ],
)
def test_neither_a_whole_file_nor_its_beginning_states_more_than_there_is(data):
    for end in (*range(600), len(data)):
        assert stated_length(data[:end]) <= len(data)


@pytest.mark.parametrize("kind", SOUNDS)
def test_the_first_bytes_of_a_sound_tell_that_its_end_is_missing(kind):
    data = wav(noise((500, 1)), kind=kind)
    # The chunks of one follow each other, the pages of the other.
    least = {"CAF": 4_000, "OGG": 64}.get(kind, len(data) - 20)
    assert stated_length(data[:64]) > least
