import io
import threading

import numpy as np
import pytest
from PIL import Image

from pathweave.data.cache import FeatureCache
from pathweave.decoders import Picture, Points
from pathweave.errors import MediaError, PathWeaveError
from pathweave.serve.sandbox import Guarded, Sandbox
from tests.serve.own_decoders import Crash, Hog, Large, Sleeper, Wrong
from tests.serve.served import DECODERS, FILES, Cut


@pytest.mark.parametrize("name", FILES)
def test_a_medium_comes_back_as_it_is_decoded_here(sandbox, name):
    decoder, kind = DECODERS[name]
    guarded = sandbox.guard(decoder)(FILES[name], name)
    here = decoder(FILES[name], name)
    assert type(guarded) is kind
    for field, value in vars(here).items():
        np.testing.assert_array_equal(getattr(guarded, field), value)
        assert type(getattr(guarded, field)) is type(value)


@pytest.mark.parametrize("name", FILES)
def test_an_error_is_the_one_that_the_decoder_gives(sandbox, name):
    decoder, _ = DECODERS[name]
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"):
        with pytest.raises(MediaError) as here:
            decoder(data, "it")
        with pytest.raises(MediaError) as told:
            sandbox.guard(decoder)(data, "it")
        assert str(told.value).partition("0x")[0] == str(here.value).partition("0x")[0]


def test_features_are_kept_as_those_of_the_decoder_inside(sandbox, tmp_path):
    decoder, kind = DECODERS["array"]
    cache, encoder = FeatureCache(tmp_path), Cut(kind)
    guarded = sandbox.guard(decoder)
    assert cache.key(encoder, guarded, b"x") == cache.key(encoder, decoder, b"x")
    own = Sleeper()
    assert sandbox.guard(own).key == own.key != own.fingerprint
    assert isinstance(guarded, Guarded)


def bomb():
    """A picture of 400 MB in memory, in a few kilobytes."""
    stream = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(stream, "PNG")
    return stream.getvalue()


def zipped():
    """A cloud of 900 MB in memory, as numbers of eight bytes."""
    stream = io.BytesIO()
    np.savez_compressed(stream, np.zeros((40_000_000, 3), dtype=np.int8))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("decoder", "data", "said"),
    [
        (Picture(max_pixels=178_000_000), bomb, "with at most 300 MB, got one that takes more"),
        (Points(), zipped, "with at most 300 MB, got one that takes more"),
        (Hog(), lambda: b"900", "with at most 300 MB, got one that takes more"),
        (Large(), lambda: b"310", "with at most 300 MB, got one that takes more"),
        (Crash(), lambda: b"", r"got one that ends the process \(SIGABRT\)"),
        (Wrong(), lambda: b"", r"must be decoded to one of \['Array', .*got str"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_takes_too_much_is_refused_and_others_are_decoded(sandbox, decoder, data, said):
    errors = []

    def decode():
        with pytest.raises(MediaError, match=said) as told:
            sandbox.decode(decoder, data(), "it")
        errors.append(str(told.value))

    thread = threading.Thread(target=decode)
    failures = sandbox.failures
    thread.start()
    array, _ = DECODERS["array"]
    for _ in range(3):
        assert sandbox.guard(array)(FILES["array"], "other").values.shape == (4, 12)
    thread.join()
    assert len(errors) == 1
    assert sandbox.failures == failures + 1


def test_what_takes_too_long_is_ended_and_the_next_is_decoded():
    hurried = Sandbox(1, seconds=1.0)
    hurried.start().join()
    with pytest.raises(MediaError, match="it must be decoded within 1 s, got no end"):
        hurried.decode(Sleeper(), b"60", "it")
    assert hurried.killed == 1
    assert hurried.decode(Sleeper(), b"0", "it").values.shape == (1, 4)
    hurried.close()
    with pytest.raises(PathWeaveError, match="shutting down"):
        hurried.decode(Sleeper(), b"0", "it")


def test_what_is_within_the_limits_is_decoded(sandbox):
    assert sandbox.guard(Hog())(b"100", "it").values.tolist() == [[1, 1, 1, 1]]
    assert sandbox.guard(Sleeper())(b"0.01", "it").values.shape == (1, 4)
