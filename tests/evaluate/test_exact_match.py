import pytest

from pathweave.errors import ManifestError
from pathweave.evaluate.exact_match import exact_match


def test_percent():
    predictions = ["A shirt.", "two", "red", "dog"]
    references = [["shirt"], ["2", "three"], ["blue", "green"], ["the dog"]]
    assert exact_match(predictions, references) == 75.0


def test_empty_predictions_are_wrong():
    assert exact_match(["", "the", "?"], [["yes"], ["a"], [""]]) == 0.0


def test_lengths_differ():
    with pytest.raises(ManifestError, match=r"must be as many, and at least 1, got 1 and 2;"):
        exact_match(["a"], [["a"], ["b"]])


def test_no_samples():
    with pytest.raises(ManifestError, match="got 0 and 0; evaluate a test set with samples"):
        exact_match([], [])


def test_no_references():
    with pytest.raises(ManifestError, match=r"sample 1 must have a list of references .* got \[\]"):
        exact_match(["a", "b"], [["a"], []])


def test_references_as_a_string():
    with pytest.raises(ManifestError, match=r"sample 0 must have a list .* got 'yes'; add"):
        exact_match(["y"], ["yes"])
