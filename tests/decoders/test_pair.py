import contextlib
import io
import zipfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pathweave.decoders.pair import is_pair, pack_pair, unpack_pair
from pathweave.decoders.points import Points
from pathweave.decoders.range_map import RangeMap
from pathweave.errors import MediaError
from tests.decoders.files import noise, npy, npz


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_what_is_packed_is_unpacked(companion, medium):
    data = pack_pair(companion, medium)
    assert is_pair(data)
    assert unpack_pair(data) == (companion, medium)
    # A key of cached features is a hash of these bytes.
    assert pack_pair(companion, medium) == data


def test_damage_inside_a_compressed_archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", bytes(range(256)) * 4)
        archive.writestr("b", b"b")
    data = bytearray(stream.getvalue())
    data[41:45] = b"\xff" * 4  # the first bytes of the compressed stream
    for decoder in (RangeMap(), Points()):
        with pytest.raises(MediaError, match=r"x must be a whole (map|cloud) .*, got .*invalid"):
            decoder(bytes(data), "x")


@pytest.mark.parametrize("decoder", [Points(), RangeMap()])
def test_an_archive_that_claims_too_much(decoder):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", b"\0")
        if decoder == RangeMap():
            archive.writestr("more", b"")
    data = stream.getvalue()
    # The size that the central directory claims.
    at = data.index(b"PK\x01\x02") + 24
    lie = data[:at] + (2**31).to_bytes(4, "little") + data[at + 4 :]
    with pytest.raises(MediaError, match=r"x must unpack to at most 1024 MiB, got 2048;"):
        decoder(lie, "x")


@settings(deadline=None)
@given(st.integers(0, 600), st.integers(0, 9), st.binary(max_size=4))
@example(30, 3, b"")  # a negative offset inside the archive
def test_an_archive_with_a_damaged_piece_is_read_or_refused(start, length, inserted):
    pair = pack_pair(b"colours", npy(noise((4, 3))))
    for data, decoder in ((npz(points=noise((4, 3))), Points(size=8)), (pair, RangeMap())):
        damaged = data[:start] + inserted + data[start + length :]
        with contextlib.suppress(MediaError):
            decoder(damaged, "x")
