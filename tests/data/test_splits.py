"""Splits without leaks."""

from hypothesis import given
from hypothesis import strategies as st

from pathweave.data.splits import SHARES, split_without_leaks

SAMPLES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.tuples(st.sampled_from("xyz"), st.integers(0, 12), st.integers(0, 20)),
    min_size=1,
    max_size=60,
)


@given(SAMPLES, st.integers(0, 5))
def test_nothing_is_shared_between_splits(samples, seed):
    labels = {name: label for name, (label, _, _) in samples.items()}
    keys = {name: [f"content {c}", f"group {g}"] for name, (_, g, c) in samples.items()}
    splits, rare = split_without_leaks(labels, keys, seed)
    assert splits.keys() == samples.keys()
    places = {}
    for name, split in splits.items():
        for key in keys[name]:
            assert places.setdefault(key, split) == split
    for label in rare:
        assert {splits[name] for name in splits if labels[name] == label} == {"train"}
    backwards = {name: keys[name] for name in reversed(keys)}
    assert split_without_leaks(labels, backwards, seed) == (splits, rare)


@given(
    st.dictionaries(st.sampled_from("uvwxyz"), st.integers(1, 80), min_size=1), st.integers(0, 5)
)
def test_samples_that_share_nothing_are_split_by_class(counts, seed):
    labels = {f"{label}{i}": label for label, count in counts.items() for i in range(count)}
    splits, rare = split_without_leaks(labels, {name: [name] for name in labels}, seed)
    assert rare == sorted(label for label, count in counts.items() if count < 3)
    for label, count in counts.items():
        for split, share in SHARES.items():
            found = sum(splits[name] == split for name in labels if labels[name] == label)
            if label not in rare:
                assert found >= 1
                assert abs(found - share * count) < 2
