from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import Field

from pathweave.data.readers import JointReader
from pathweave.decoders.array import Values
from pathweave.decoders.pair import unpack_pair
from pathweave.errors import MediaError, PathError, RequestError
from pathweave.model.pathweave import PathWeave
from pathweave.runs import loading
from pathweave.runs.assistant import Assistant, load
from tests.far_device import far_device
from tests.whole_runs import command, write_sense

pytestmark = pytest.mark.usefixtures("home")

TEXT = {"type": "text", "text": "How is it?"}


@pytest.fixture(scope="module")
def assistant(finished_run, recipe_file, shared_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        loaded = load(finished_run)
    return Assistant(loaded.model, loaded.readers, root=recipe_file.parent)


def part(name: str, index: int = 0) -> dict[str, str]:
    return {"type": name, "path": f"{name}-test-{index}.npy"}


def test_a_mixed_batch_is_answered_as_one_by_one(assistant):
    contents = [
        [part("sight"), TEXT],
        [part("tilt", 1), part("sound", 2), {"type": "text", "text": "Which one is higher?"}],
        [TEXT],
        [part("sound", 3), TEXT],
    ]
    together = assistant.ask(contents, max_tokens=4)
    assert together == [assistant.ask([content], max_tokens=4)[0] for content in contents]
    assert assistant.ask([]) == []


def test_what_is_loaded_is_what_was_asked_for(finished_run):
    assert load(str(finished_run), paths=["sound"]).model.paths.names == ["sound"]


def test_a_modality_that_was_not_learnt_is_refused(assistant):
    with pytest.raises(PathError, match=r"must be one of .* got 'tild'; did you mean 'tilt'"):
        assistant.ask([[{"type": "tild", "path": "x.npy"}, TEXT]])


def test_a_malformed_question_is_refused_by_its_number(assistant):
    with pytest.raises(RequestError, match="question 2: content: Tuple should have at"):
        assistant.ask([[TEXT], []])


def test_a_string_is_a_question(assistant):
    assert assistant.ask(["How is it?"]) == assistant.ask([[TEXT]])


class PairDecoder(Values):
    """Decodes the medium of a pair, and keeps what it is given."""

    seen: list = Field(default_factory=list)

    @property
    def fingerprint(self):
        return "pair"

    def __call__(self, data, name):
        self.seen.append((*unpack_pair(data), name))
        return super().__call__(self.seen[-1][1], name)


def test_a_medium_is_read_with_its_companion(assistant):
    reader = assistant.readers["tilt"]
    decoder = PairDecoder(width=reader.decoder.width)
    readers = {"tilt": replace(reader, decoder=decoder)}
    pairs = Assistant(assistant.model, readers, assistant.root)
    asked = {**part("tilt"), "companion": "sound-test-0.npy"}
    assert pairs.ask([[asked, TEXT]], 3) == assistant.ask([[part("tilt"), TEXT]], 3)
    files = ("sound-test-0.npy", "tilt-test-0.npy")
    read = [(assistant.root / file).read_bytes() for file in files]
    assert decoder.seen == [(*read, "tilt-test-0.npy")]
    with pytest.raises(MediaError, match=r"none\.jpg must be a file, got No such file"):
        pairs.ask([[{**asked, "companion": "none.jpg"}, TEXT]])


def test_a_companion_is_read_with_a_path_that_reads_several_modalities(assistant):
    def joint(reader):
        readers = {"sound": JointReader("sound", ("tilt",), {"tilt": reader})}
        return Assistant(assistant.model, readers, assistant.root)

    reader = assistant.readers["tilt"]
    decoder = PairDecoder(width=reader.decoder.width)
    asked = {**part("tilt", 1), "companion": "sound-test-1.npy"}
    answers = joint(replace(reader, decoder=decoder)).ask([[asked, TEXT]], 3, path="sound")
    assert answers == joint(reader).ask([[part("tilt", 1), TEXT]], 3, path="sound")
    assert [name for *_, name in decoder.seen] == ["tilt-test-1.npy"]


def test_a_missing_or_broken_medium_is_refused(assistant, tmp_path):
    with pytest.raises(MediaError, match=r"none.npy must be a file, got No such file"):
        assistant.ask([[{"type": "tilt", "path": "none.npy"}, TEXT]])
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(MediaError, match=r"cut.npy must be a whole .npy"):
        assistant.ask([[{"type": "tilt", "path": str(tmp_path / "cut.npy")}, TEXT]])


def test_media_in_memory_are_answered_as_files_are(assistant, recipe_file):
    file = recipe_file.parent / "sound-test-0.npy"
    values = np.load(file)
    [expected] = assistant.ask([[part("sound"), TEXT]], max_tokens=4)
    for data in (file.read_bytes(), values, torch.from_numpy(values)):
        assert assistant.ask([[{"type": "sound", "data": data}, TEXT]], max_tokens=4) == [expected]


def test_a_medium_in_memory_that_is_none_is_told_with_its_place(assistant):
    with pytest.raises(MediaError, match="question 1, part 1 must be bytes, an array or a tensor"):
        assistant.ask([[{"type": "sound", "data": "a.npy"}, TEXT]])
    with pytest.raises(RequestError, match="question 1: a part with a rate must have data"):
        assistant.ask([[{"type": "sound", "rate": 8000}, TEXT]])
    with pytest.raises(RequestError, match="question 1"):
        assistant.ask([[{"type": "sound", "data": b"x", "path": "a.npy"}, TEXT]])


def test_a_graphics_processor_is_used_if_there_is_one(assistant, finished_run, monkeypatch):
    contents = [[part("sound"), TEXT], [part("tilt", 1), TEXT]]
    with far_device() as far:
        monkeypatch.setattr(loading, "device", lambda: far)
        there = load(finished_run)
        assert {tensor.device for tensor in there.model.parameters()} == {far}
        there.root = assistant.root
        assert there.ask(contents, max_tokens=4) == assistant.ask(contents, max_tokens=4)


@pytest.mark.parametrize(
    "words",
    [
        "ask RUN Hello.",
        "ask --base BASE Hello.",
        "evaluate RUN",
        "verify RUN",
        "extend RUN SENSE --out OUT",
        "evolve RECIPE --out OUT",
    ],
)
def test_a_model_that_does_not_fit_there_is_told(
    finished_run, recipe_file, tmp_path, monkeypatch, capsys, words
):
    def full(model, place):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")

    monkeypatch.setattr(PathWeave, "to", full)
    named = {"RUN": finished_run, "BASE": recipe_file.parent / "base", "RECIPE": recipe_file}
    named |= {"OUT": tmp_path / "out", "SENSE": write_sense(tmp_path, recipe_file)}
    assert command(*[named.get(word, word) for word in words.split()]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "fit into the memory of the graphics processor, got CUDA out of memory" in error
    assert "CUDA_VISIBLE_DEVICES=" in error
