from collections import Counter
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data.batches import STEPS_PER_BUCKET, balanced, index_batches, share

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=3)


def batches(sizes, batch_size=4, seed=0, weights=None, length=lambda index: index[1]):
    rounds = [range(size) for size in sizes]
    return index_batches(rounds, weights or [1.0] * len(sizes), batch_size, seed, length)


@settings(deadline=None, max_examples=40)
@given(
    sizes=SIZES, batch_size=st.integers(1, 7), seed=st.integers(0, 99), buckets=st.integers(1, 4)
)
def test_every_sample_comes_once_before_any_comes_again(sizes, batch_size, seed, buckets):
    drawn = list(islice(batches(sizes, batch_size, seed), buckets * STEPS_PER_BUCKET))
    assert {len(batch) for batch in drawn} == {batch_size}
    counts = Counter(index for batch in drawn for index in batch)
    for which, size in enumerate(sizes):
        times = [counts[which, i] for i in range(size)]
        assert max(times) - min(times) <= 1
    assert sum(counts.values()) == len(drawn) * batch_size


@settings(deadline=None, max_examples=20)
@given(sizes=SIZES, seed=st.integers(0, 99), start=st.integers(0, 40))
def test_the_order_is_a_function_of_the_seed_and_can_be_taken_up_anywhere(sizes, seed, start):
    whole = list(islice(batches(sizes, seed=seed), start + 5))
    assert list(islice(batches(sizes, seed=seed), start, start + 5)) == whole[start:]


LABELS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=60)


@given(labels=LABELS)
def test_no_balance_takes_a_set_as_it_is(labels):
    assert balanced(labels, power=0.0) == list(range(len(labels)))


@given(labels=LABELS, power=st.floats(0, 1))
def test_balance_leaves_no_sample_out_and_favours_rare_labels(labels, power):
    times = Counter(balanced(labels, power))
    counts = Counter(labels)
    assert set(times) == set(range(len(labels)))
    for i, label in enumerate(labels):
        assert times[i] == round((max(counts.values()) / counts[label]) ** power)


@given(labels=LABELS)
def test_full_balance_draws_every_label_nearly_as_often(labels):
    drawn = Counter(labels[i] for i in balanced(labels, power=1.0))
    most = max(Counter(labels).values())
    assert all(most / 2 <= count <= 1.5 * most for count in drawn.values())


def test_a_sample_that_comes_twice_in_a_round_is_drawn_twice_as_often():
    endless = index_batches([[0, 1, 1]], [1.0], 3, seed=0, length=lambda _: 0)
    drawn = Counter(i for batch in islice(endless, 64) for _, i in batch)
    assert drawn == {0: 64, 1: 128}


def test_seeds_and_rounds_differ():
    def rounds(seed):
        drawn = (i for batch in batches([64], 8, seed, length=lambda _: 0) for i in batch)
        return list(islice(drawn, 64)), list(islice(drawn, 64))

    first, second = rounds(0)
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != rounds(1)[0]


@settings(deadline=None, max_examples=40)
@given(
    batch=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99)), max_size=20),
    num_processes=st.integers(1, 6),
)
def test_shares_are_a_partition_of_nearly_equal_parts(batch, num_processes):
    shares = [share(batch, process, num_processes) for process in range(num_processes)]
    assert sorted(i for part in shares for i in part) == sorted(batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_processes_see_the_batches_of_one_process():
    alone = islice(batches([30, 7], 6), 20)
    workers = [islice(batches([30, 7], 6), 20) for _ in range(3)]
    for batch, *parts in zip(alone, *workers, strict=True):
        joined = [i for n, part in enumerate(parts) for i in share(part, n, 3)]
        assert sorted(joined) == sorted(batch)


def test_sets_are_drawn_by_weight():
    drawn = [i for b in islice(batches([50, 5], 8, weights=[3.0, 1.0]), 400) for i in b]
    assert 0.72 < sum(which == 0 for which, _ in drawn) / len(drawn) < 0.78


def test_lengths_are_compared_coarsely():
    """Samples whose lengths differ by less than 16 characters share batches at random."""
    mixed = {}
    for name, lengths in (("near", (32, 47)), ("far", (32, 48))):
        endless = batches([400], 10, length=lambda index, of=lengths: of[index[1] % 2])
        drawn = list(islice(endless, 5 * STEPS_PER_BUCKET))
        mixed[name] = sum(len({i % 2 for _, i in batch}) == 2 for batch in drawn)
    assert mixed["near"] > 30
    assert mixed["far"] <= 5  # one batch of each bucket may hold the last of one and the first


def test_samples_of_a_batch_are_of_similar_length():
    drawn = list(islice(batches([800], 10), STEPS_PER_BUCKET))
    spans = [max(batch)[1] - min(batch)[1] for batch in drawn]
    assert sum(spans) / len(spans) < 200
    starts = [batch[0] for batch in drawn]
    assert starts != sorted(starts)
