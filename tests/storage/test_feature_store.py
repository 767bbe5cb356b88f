import multiprocessing
import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.errors import DiskError
from pathweave.storage import feature_store
from pathweave.storage.feature_store import FeatureStore
from tests.full_disk import full_disk

NUMBERS = st.integers(0, 16)


def key(number: int) -> bytes:
    # Every fourth begins alike: the store must tell them apart by the rest.
    return (number // 4).to_bytes(8, "little") + number.to_bytes(24, "little")


def features(number: int) -> torch.Tensor:
    shape = (number % 3, 1 + number % 5, 4)
    generator = torch.Generator().manual_seed(number)
    dtype = torch.float16 if number % 2 else torch.float32
    return torch.randn(shape, generator=generator).to(dtype)


def holds(store: FeatureStore, number: int) -> bool:
    """Whether a record is there; if it is, it is as it was added."""
    found = store.find(key(number))
    assert found is None or (found.dtype == features(number).dtype)
    assert found is None or torch.equal(found, features(number))
    assert (found is not None) <= (key(number) in store)
    return found is not None


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.features"))


@given(
    added=st.lists(st.tuples(st.integers(0, 2), NUMBERS), max_size=40),
    recent=st.sampled_from([0, 3, 4096]),
    segment_bytes=st.sampled_from([1, 500, 1 << 30]),
)
@settings(max_examples=25)
def test_what_any_of_several_writers_has_added_every_reader_finds(added, recent, segment_bytes):
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_store, "_RECENT", recent)
        stores = [FeatureStore(Path(directory), segment_bytes) for _ in range(3)]
        known = set()
        for which, number in added:
            assert holds(stores[which], number) == (number in known)
            stores[which].add(key(number), features(number))
            known.add(number)
        for store in (*stores, FeatureStore(Path(directory))):
            assert {n for n in range(17) if holds(store, n)} == known
            assert store.size()[0] == len({key(n)[:8] for n in known})


@given(st.data())
@settings(max_examples=40)
def test_a_file_cut_off_at_any_byte_gives_the_records_before_it(data):
    count = 8
    with TemporaryDirectory() as directory:
        store = FeatureStore(Path(directory))
        ends = []
        for number in range(count):
            store.add(key(number), features(number))
            [segment] = segments(Path(directory))
            ends.append((segment.stat().st_size, 16 * (number + 1)))
        del store
        which = data.draw(st.sampled_from([0, 1]))
        file = [segment, segment.with_suffix(".index")][which]
        cut = data.draw(st.integers(0, ends[-1][which]))
        os.truncate(file, cut)
        whole = [end[which] <= cut for end in ends]
        reader = FeatureStore(Path(directory))
        assert [holds(reader, number) for number in range(count)] == whole
        # What was lost is added again, by whoever takes the segment over.
        writer = FeatureStore(Path(directory))
        for number in range(count):
            if not whole[number]:
                writer.add(key(number), features(number))
        assert segments(Path(directory)) == [segment]
        for each in (reader, writer, FeatureStore(Path(directory))):
            assert all(holds(each, number) for number in range(count))


@given(damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=6))
@settings(max_examples=40)
def test_damage_anywhere_never_gives_other_values(damage):
    with TemporaryDirectory() as directory:
        store = FeatureStore(Path(directory))
        for number in range(8):
            store.add(key(number), features(number))
        del store
        [segment] = segments(Path(directory))
        for file in (segment, segment.with_suffix(".index")):
            content = bytearray(file.read_bytes())
            for at, bits in damage:
                content[at % len(content)] ^= bits
            file.write_bytes(content)
        reader = FeatureStore(Path(directory))
        lost = [number for number in range(8) if not holds(reader, number)]
        for number in lost:
            reader.add(key(number), features(number))
        assert all(holds(reader, number) for number in range(8))


def _write(directory: Path, first: int, count: int) -> None:
    store = FeatureStore(directory)
    for number in range(first, first + count):
        store.add(key(number), features(number))


_forks = multiprocessing.get_context("fork")


def test_writers_that_are_killed_lose_nothing_that_was_added_before(tmp_path):
    for turn in range(2):
        first = 100_000 * turn
        writers = [
            _forks.Process(target=_write, args=(tmp_path, first + 50_000 * i, 40_000))
            for i in range(2)
        ]
        for writer in writers:
            writer.start()
        reader, deadline = FeatureStore(tmp_path), time.monotonic() + 60
        while not (holds(reader, first + 30) and holds(reader, first + 50_030)):
            assert time.monotonic() < deadline
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        for start in (first, first + 50_000):
            found = [holds(reader, start + i) for i in range(400)]
            count = found.index(False) if False in found else len(found)
            assert count > 30
            assert not any(found[count:])
    assert len(segments(tmp_path)) == 2  # taken over by those that came after


def test_a_process_that_is_forked_appends_to_a_segment_of_its_own(tmp_path):
    store = FeatureStore(tmp_path)
    store.add(key(0), features(0))
    children = [_forks.Process(target=_fork_adds, args=(store, i)) for i in (1, 2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    store.add(key(3), features(3))
    assert all(holds(store, number) for number in range(4))
    assert len(segments(tmp_path)) > 1


def _fork_adds(store: FeatureStore, number: int) -> None:
    store.add(key(number), features(number))
    assert holds(store, 0)


def test_few_files_for_many_records(tmp_path):
    for start in range(0, 100, 10):  # as ten commands one after another
        _write(tmp_path, start, 10)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".features", ".index", ".lock"]
    assert FeatureStore(tmp_path).size()[2] == 3


def test_a_full_segment_is_left_and_a_new_one_begun(tmp_path):
    store = FeatureStore(tmp_path, segment_bytes=1000)
    for number in range(40):
        store.add(key(number), features(number))
    sizes = sorted(file.stat().st_size for file in segments(tmp_path))
    assert len(sizes) > 3
    assert sizes[-1] < 1400


def test_more_segments_than_are_mapped_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "_MAPPED", 2)
    store = FeatureStore(tmp_path, segment_bytes=1)
    for number in range(12):
        store.add(key(number), features(number))
    assert len(segments(tmp_path)) == 12
    for _ in range(2):
        assert all(holds(store, number) for number in range(12))


def test_a_store_that_is_cleared_is_empty_for_all_and_goes_on(tmp_path):
    store, other = FeatureStore(tmp_path), FeatureStore(tmp_path)
    for each in (store, other):
        each.add(key(1), features(1))
    store.clear()
    assert not list(tmp_path.iterdir())
    assert not holds(store, 1)
    other.add(key(2), features(2))  # not into a file that has no name any more
    assert holds(store, 2)


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path):
    store = FeatureStore(tmp_path)
    store.add(key(1), features(1))
    large = torch.ones(1, 100, 8)
    with full_disk(), pytest.raises(DiskError, match="cannot be written: File too large; free"):
        store.add(key(2), large)
    assert key(2) not in store
    store.add(key(2), large)
    assert torch.equal(store.find(key(2)), large)
    assert holds(store, 1)
