import pickle

import numpy as np
import pytest

from pathweave.datasets.points import read_points
from pathweave.errors import ManifestError
from tests.datasets.files import clouds, write

CLOUD = np.ones((4, 3))


class TestPoints:
    def read(self, root, data, names="airplane\nbathtub\nbed\n", ids="a_1\nb_2\nc_3\n"):
        files = (write(root, "a.dat", data), write(root, "n", names), write(root, "i", ids))
        return list(read_points(*files))

    def test_clouds_get_their_ids_and_names(self, tmp_path):
        found = self.read(tmp_path, clouds())
        assert [record.values["sample_id"] for record in found] == ["a_1", "b_2", "c_3"]
        assert [record.values["label"] for record in found] == ["airplane", "bathtub", "bed"]
        assert found[2].values["points"].shape == (16, 6)

    def test_a_label_without_a_name(self, tmp_path):
        found = self.read(tmp_path, clouds(), names="airplane\nbathtub\n")
        assert found[2].problem.startswith("a label must be a whole number below 2, got array([2]")

    @pytest.mark.parametrize("label", [float("inf"), float("nan"), 1.7, -1, "1", None, 10**30])
    def test_a_label_that_is_no_number_of_a_class(self, label, tmp_path):
        found = self.read(tmp_path, pickle.dumps([[CLOUD] * 3, [0, label, 2]]))
        assert found[1].problem.startswith("a label must be a whole number below 3, got ")
        assert (found[0].problem, found[2].problem) == ("", "")

    @pytest.mark.parametrize(
        ("cloud", "message"),
        [
            (np.zeros((4, 2)), "b_2 must have the shape [points, 3 or more], got [4, 2]"),
            (np.zeros(4), "b_2 must have the shape [points, 3 or more], got [4]"),
            (np.zeros((0, 3)), "b_2 must have at least one point, got none"),
            (None, "b_2 must be an array [points, 3 or more], got NoneType"),
            ("text", "b_2 must be an array [points, 3 or more], got str"),
            ([[1.0, 2.0, 3.0], [1.0]], "b_2 must be an array [points, 3 or more], got list"),
            (np.full((4, 3), np.nan), "b_2 must have finite coordinates in at least 99 % of its "
             "points, got 4 bad of 4"),
        ],
    )  # fmt: skip
    def test_a_broken_cloud_breaks_its_row_alone(self, cloud, message, tmp_path):
        found = self.read(tmp_path, pickle.dumps([[CLOUD, cloud, CLOUD], [0, 1, 2]]))
        assert [record.problem for record in found] == ["", message, ""]

    def test_one_bad_point_in_a_hundred_is_no_damage_as_for_files(self, tmp_path):
        cloud = np.ones((200, 3))
        cloud[7] = np.nan
        found = self.read(tmp_path, pickle.dumps([[CLOUD, cloud, CLOUD], [0, 1, 2]]))
        assert found[1].problem == ""

    @pytest.mark.parametrize("ids", ["a_1\n", "a\nb\nc\nd\n"])
    def test_ids_of_another_split(self, ids, tmp_path):
        with pytest.raises(
            ManifestError, match=r"for the \d ids of i, got lists of \[3, 3\]; down"
        ):
            self.read(tmp_path, clouds(), ids=ids)

    def test_another_pickle(self, tmp_path):
        with pytest.raises(ManifestError, match=r"must hold a list of points and a list of labels"):
            self.read(tmp_path, b"\x80\x04K\x01.")

    def test_a_malicious_pickle(self, tmp_path):
        with pytest.raises(ManifestError, match=r"got the name posix\.system; nothing of it was"):
            self.read(tmp_path, b"cposix\nsystem\n(S'true'\ntR.")

    def test_a_missing_list_of_names(self, tmp_path):
        write(tmp_path, "a.dat", clouds())
        with pytest.raises(ManifestError, match=r"names must exist, got no such file"):
            list(read_points(tmp_path / "a.dat", tmp_path / "names", tmp_path / "ids"))
