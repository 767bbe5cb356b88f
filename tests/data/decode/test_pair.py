import contextlib
import io
import zipfile
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pathweave.data.decode.geometry import read_points
from pathweave.data.decode.pair import is_pair, pack_pair, unpack_pair
from pathweave.errors import MediaError
from tests.data.decode.files import noise, npz


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_what_is_packed_is_unpacked(companion, medium):
    data = pack_pair(companion, medium)
    assert is_pair(data)
    assert unpack_pair(data, "x") == (companion, medium)
    # A key of cached features is a hash of these bytes.
    assert pack_pair(companion, medium) == data


def test_damage_inside_a_compressed_archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", bytes(range(256)) * 4)
        archive.writestr("b", b"b")
    data = bytearray(stream.getvalue())
    data[41:45] = b"\xff" * 4  # the first bytes of the compressed stream
    with pytest.raises(MediaError, match=r"x must be a whole archive of two files, got .*invalid"):
        unpack_pair(bytes(data), "x")
    with pytest.raises(MediaError, match=r"x must be a whole \.npz archive, got .*invalid"):
        read_points(bytes(data), "x", 10)


@pytest.mark.parametrize("unpack", [partial(read_points, num_samples=10), unpack_pair])
def test_an_archive_that_claims_too_much(unpack):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", b"\0")
        if unpack is unpack_pair:
            archive.writestr("more", b"")
    data = stream.getvalue()
    # The size that the central directory claims.
    at = data.index(b"PK\x01\x02") + 24
    lie = data[:at] + (2**31).to_bytes(4, "little") + data[at + 4 :]
    with pytest.raises(MediaError, match=r"x must unpack to at most 1024 MiB, got 2048 MiB"):
        unpack(lie, name="x")


@settings(deadline=None)
@given(st.integers(0, 600), st.integers(0, 9), st.binary(max_size=4))
@example(30, 3, b"")  # a negative offset inside the archive
def test_an_archive_with_a_damaged_piece_is_read_or_refused(start, length, inserted):
    for data, unpack in ((npz(points=noise((4, 3))), partial(read_points, num_samples=10)),
                         (pack_pair(b"colours", b"distances"), unpack_pair)):  # fmt: skip
        damaged = data[:start] + inserted + data[start + length :]
        with contextlib.suppress(MediaError):
            unpack(damaged, name="x")
