import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data import examples as examples_module
from pathweave.data.cache import FeatureCache
from pathweave.data.coverage import Coverage, save_coverage
from pathweave.data.examples import Examples
from pathweave.data.manifest import Manifest
from pathweave.data.readers import FeatureReader, JointReader
from pathweave.decoders import build_decoder
from pathweave.encoders.media import Array
from pathweave.errors import ManifestError, RunError
from pathweave.model.prompt import Medium, Template
from tests.tiny import WIDTH, chain, tiny_model, write_sensor_data

COUNT = 6


class Counting:
    """Hands arrays on, and counts how many it has seen."""

    accepts = Array
    width = WIDTH

    def __init__(self, fingerprint="counting"):
        self.fingerprint = fingerprint
        self.num_seen = 0

    def __call__(self, media):
        self.num_seen += len(media)
        return [torch.from_numpy(medium.values)[None] for medium in media]


@pytest.fixture
def directory(tmp_path):
    write_sensor_data(tmp_path, "sound", count=COUNT)
    return tmp_path


def readers(directory, **encoders):
    cache = FeatureCache(directory / "features")
    named = encoders or {"sound": Counting()}
    return {name: FeatureReader(build_decoder("array"), e, cache) for name, e in named.items()}


def examples(directory, *, path=None, prompts=(), seed=0, **encoders):
    file, reading = directory / "sound-train.jsonl", readers(directory, **encoders)
    return Examples(file, reading, path, prompts=prompts, seed=seed)


def ignore(_):
    """Advance no bar."""


def test_prompt_answer_and_references(directory):
    found = examples(directory)
    assert len(found) == found.total == COUNT
    medium, text = found.prompt(0)
    assert isinstance(medium, Medium)
    assert medium.path == "sound"
    assert medium.features.shape == (1, 4, WIDTH)
    assert text == "How is it?"
    assert [found.answer(i) for i in range(2)] == ["low", "high"]
    assert found.references(1) == ["high"]
    assert found.length(0) == len("How is it?low")
    assert found.sample(3).id == "sound-train-3"


def test_features_are_computed_once(directory):
    encoder, done = Counting(), []
    found = examples(directory, sound=encoder)
    found.encode(done.append)
    found.drop_bad_samples(0.0)
    assert sum(done) == encoder.num_seen == COUNT
    again = examples(directory, sound=encoder)
    again.encode(ignore)
    again.drop_bad_samples(0.0)
    assert torch.equal(again.prompt(0)[0].features, found.prompt(0)[0].features)
    assert encoder.num_seen == COUNT


def test_without_encoding_first_the_check_does_it(directory):
    encoder = Counting()
    examples(directory, sound=encoder).drop_bad_samples(0.0)
    assert encoder.num_seen == COUNT


def test_processes_encode_shares(directory):
    encoders, done = [Counting() for _ in range(4)], []
    for process, encoder in enumerate(encoders):
        tell = ignore if process else done.append
        examples(directory, sound=encoder).encode(tell, process, 4)
    assert done == [4, 2]  # the first one counts for all
    assert [encoder.num_seen for encoder in encoders] == [2, 2, 1, 1]
    whole = Counting()
    examples(directory, sound=whole).encode(ignore)
    assert whole.num_seen == 0


def test_bad_media_are_left_out_and_listed(directory):
    (directory / "sound-train-2.npy").write_bytes(b"no array")
    (directory / "sound-train-4.npy").unlink()
    encoder = Counting()
    found = examples(directory, sound=encoder)
    found.encode(ignore)
    found.drop_bad_samples(0.5)
    assert encoder.num_seen == COUNT - 2
    assert [found.sample(i).id[-1] for i in range(len(found))] == ["0", "1", "3", "5"]
    assert found.total == COUNT
    assert [line.split(":")[0] for line in found.bad] == ["sound-train-2", "sound-train-4"]


def test_samples_that_were_not_there_to_convert_belong_to_the_published_set(directory):
    file = directory / "sound-train.jsonl"
    save_coverage(Coverage(dataset="d", split="train", usable=COUNT, missing=3, broken=1), file)
    found = examples(directory)
    assert (found.total, found.published) == (COUNT, COUNT + 4)
    some = Examples(file, readers(directory), limit=2)
    assert (some.total, some.published) == (2, 2)


def test_broken_rows_count_as_bad(directory):
    with (directory / "sound-train.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    found = examples(directory)
    found.drop_bad_samples(0.2)
    assert (len(found), found.total, len(found.bad)) == (COUNT, COUNT + 1, 1)
    with pytest.raises(RunError, match=r"at most 10\.0% bad samples, got 1 of 7; mend or remove"):
        examples(directory).drop_bad_samples(0.1)


def test_too_many_bad_media_are_refused(directory):
    (directory / "sound-train-2.npy").write_bytes(b"no array")
    with pytest.raises(RunError, match=r"at most 1\.0% bad .*1 of 6(.|\n)*first:\n  sound-train-2"):
        examples(directory).drop_bad_samples(0.01)


def test_none_usable_is_refused_whatever_the_share(directory):
    for file in directory.glob("*.npy"):
        file.unlink()
    with pytest.raises(RunError, match=r"at most 100\.0% bad samples, got 6 of 6"):
        examples(directory).drop_bad_samples(1.0)


def test_an_undeclared_part_type_is_named_with_the_nearest(directory):
    with pytest.raises(ManifestError, match=r"train\.jsonl: a part type .*; did you mean 'sounds'"):
        examples(directory, sounds=Counting())


def test_a_path_may_read_what_was_declared_for_another(directory):
    encoder = Counting("another")
    found = examples(directory, path="range", range=encoder)
    found.encode(ignore)
    found.drop_bad_samples(0.0)
    assert found.prompt(0)[0].path == "range"
    assert encoder.num_seen == COUNT
    with pytest.raises(ManifestError, match=r"a part type or path .*'rang'; did you mean 'range'"):
        examples(directory, path="rang", range=encoder)


@pytest.fixture
def joint(directory):
    """Readers of two sensors, and a manifest whose samples show both."""
    write_sensor_data(directory, "tilt", count=COUNT)
    rows = []
    for i in range(COUNT):
        media = [{"type": name, "path": f"{name}-train-{i}.npy"} for name in ("sound", "tilt")]
        asked = {"role": "user", "content": [*media, {"type": "text", "text": "Alike?"}]}
        rows.append({"id": str(i), "messages": [asked, {"role": "assistant", "content": "yes"}]})
    file = directory / "both.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file, readers(directory, sound=Counting("sound"), tilt=Counting("tilt"))


def test_a_joint_path_reads_each_medium_as_its_own_modality(joint):
    file, own = joint
    both = {**own, "both": JointReader("both", ("sound", "tilt"), own)}
    assert both["both"].width == WIDTH
    found = Examples(file, both, path="both")
    found.encode(ignore)
    found.drop_bad_samples(0.0)
    assert [own[name].encoder.num_seen for name in ("sound", "tilt")] == [COUNT, COUNT]
    sound, tilt, text = found.prompt(0)
    assert [(m.path, m.modality) for m in (sound, tilt)] == [("both", "sound"), ("both", "tilt")]
    assert text == "Alike?"
    alone = Examples(file, both).prompt(0)
    assert [(m.path, m.modality) for m in alone[:2]] == [("sound", None), ("tilt", None)]
    assert torch.equal(alone[1].features, tilt.features)
    assert own["sound"].encoder.num_seen == COUNT


def test_a_joint_path_reads_nothing_else(joint):
    file, own = joint
    both = {**own, "both": JointReader("both", ("sound", "range"), own)}
    said = r"both\.jsonl: a medium for path 'both' must be one of \['range', 'sound'\], got 'tilt'"
    with pytest.raises(ManifestError, match=said):
        Examples(file, both, path="both")


def test_text_alone_needs_no_reader(directory):
    rows = [
        {
            "id": "a",
            "messages": [
                {"role": "user", "content": "Say hello."},
                {"role": "assistant", "content": "hello"},
            ],
        }
    ]
    (directory / "sound-train.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    found = Examples(directory / "sound-train.jsonl", {})
    found.encode(ignore)
    found.drop_bad_samples(0.0)
    assert found.prompt(0) == ["Say hello."]


def test_a_template_takes_the_place_of_the_text(directory):
    found = examples(directory, prompts=["Question: {} Answer:"])
    medium, text = found.prompt(0)
    assert medium.path == "sound"
    assert text == "Question: How is it? Answer:"
    assert found.length(0) == len("Question: How is it? Answer:low")
    assert found.sample(0).prompt[1].text == "How is it?"
    fixed = examples(directory, prompts=["describe the sound. {x}"])
    assert fixed.prompt(1)[1] == "describe the sound. {x}"
    assert fixed.answer(1) == "high"


def test_media_stay_before_the_templates_text(directory):
    rows = []
    for i in range(2):
        part = {"type": "sound", "path": f"sound-train-{i}.npy"}
        said = [{"type": "text", "text": " Which "}, part, {"type": "text", "text": "is it? "}]
        answer = {"role": "assistant", "content": "low"}
        rows.append({"id": str(i), "messages": [{"role": "user", "content": said}, answer]})
    lines = [json.dumps(row) for row in rows]
    (directory / "sound-train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    medium, text = examples(directory, prompts=["{}"]).prompt(0)
    assert isinstance(medium, Medium)
    assert text == "Which is it?"


def test_each_sample_draws_a_template_by_its_id_and_the_seed(directory):
    templates = [f"{i} {{}}" for i in range(3)]
    drawn = {
        seed: [examples(directory, prompts=templates, seed=seed).prompt(i)[1] for i in range(COUNT)]
        for seed in range(4)
    }
    assert len({tuple(texts) for texts in drawn.values()}) > 1
    assert len(set(drawn[0])) > 1
    assert drawn[0] == [examples(directory, prompts=templates).prompt(i)[1] for i in range(COUNT)]
    rows = (directory / "sound-train.jsonl").read_text(encoding="utf-8").splitlines()
    (directory / "sound-train.jsonl").write_text("\n".join(rows[::-1]) + "\n", encoding="utf-8")
    again = examples(directory, prompts=templates)
    assert [again.prompt(i)[1] for i in range(COUNT)] == drawn[0][::-1]


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [0]), (2, [0, 5]), (4, [0, 1, 3, 5]), (5, [0, 1, 2, 3, 5])]
)
def test_a_limit_takes_evenly_spaced_samples(directory, limit, expected):
    found = Examples(directory / "sound-train.jsonl", readers(directory), limit=limit)
    assert [int(found.sample(i).id[-1]) for i in range(len(found))] == expected


def drawn_of(file, answers, count, seed=0):
    """The ids that are drawn of samples with these answers."""
    said = [
        {"role": "user", "content": [{"type": "text", "text": "How is it?"}]},
        {"role": "assistant", "content": ""},
    ]
    rows = [
        {"id": name, "messages": [said[0], said[1] | {"content": answer}]}
        for name, answer in answers.items()
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    found = Examples(file, {}, seed=seed)
    found.draw(count)
    return [found.sample(i).id for i in range(len(found))]


@given(
    num_answers=st.integers(1, 5),
    each=st.integers(1, 8),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_a_draw_is_nested_and_holds_answers_alike(
    tmp_path_factory, num_answers, each, shares, seed
):
    file = tmp_path_factory.getbasetemp() / "drawn.jsonl"
    answers = {f"{a}-{k}": f"answer {a}" for k in range(each) for a in range(num_answers)}
    few, many = sorted(round(share * len(answers)) for share in shares)
    fewer, more = (drawn_of(file, answers, count, seed) for count in (few, many))
    assert (len(fewer), len(more)) == (few, many)
    assert {*fewer} <= {*more} <= {*answers}
    counts = [sum(answers[name] == f"answer {a}" for name in more) for a in range(num_answers)]
    assert max(counts) - min(counts) <= 1
    # In the order of the manifest, whatever that is.
    assert drawn_of(file, dict(reversed(answers.items())), many, seed) == more[::-1]


def test_another_seed_draws_other_samples_and_other_answers(tmp_path):
    answers = {f"{a}-{k}": f"answer {a}" for k in range(4) for a in range(8)}
    drawn = [drawn_of(tmp_path / "drawn.jsonl", answers, 3, seed) for seed in range(12)]
    assert len({tuple(each) for each in drawn}) > 9
    assert {answers[name] for each in drawn for name in each} == {*answers.values()}
    assert drawn_of(tmp_path / "drawn.jsonl", answers, 99) == [*answers]


def test_half_a_character_and_an_id_used_twice_are_bad_samples(directory):
    file = directory / "sound-train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[1]["messages"][0]["content"][1]["text"] = "How \ud83d?"
    rows[2]["messages"][1]["content"] = "lo\ud83d"
    rows[4]["id"] = rows[0]["id"]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = examples(directory)
    found.drop_bad_samples(0.5)
    assert [found.sample(i).id[-1] for i in range(len(found))] == ["0", "3", "5"]
    assert ["UTF-8" in line for line in found.bad] == [True, True, False]
    assert "ids must be unique" in found.bad[2]
    with pytest.raises(RunError, match=r"at most 1\.0% bad samples, got 3 of 6; mend or remove"):
        examples(directory).drop_bad_samples(0.01)


@pytest.mark.parametrize("where", ["question", "answer"])
def test_samples_longer_than_the_language_model_reads_are_bad(directory, where):
    model = tiny_model(*chain("sight", "sound"))
    file = directory / "sound-train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    turn = rows[2]["messages"][0 if where == "question" else 1]
    turn["content"] = (turn["content"] if where == "question" else []) + [
        {"type": "text", "text": "long " * 405}  # of at most 2048 tokens, a letter each
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = examples(directory)
    found.encode(ignore)
    found.drop_bad_samples(0.5)
    assert len(found) == COUNT
    found.drop_bad_samples(0.5, model.misfit)
    assert len(found) == COUNT - 1
    [said] = found.bad
    assert said.startswith("sound-train-2: a prompt and its answer must have at most 2,048 tokens")
    with pytest.raises(RunError, match=r"must have at most 5\.0% bad samples, got 1 of"):
        examples(directory).drop_bad_samples(0.05, model.misfit)


def test_a_sample_that_asks_nothing_is_bad_unless_the_template_has_words(directory):
    model = tiny_model(*chain("sight", "sound"))
    file = directory / "sound-train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[2]["messages"][0]["content"] = [{"type": "text", "text": " "}]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = examples(directory)
    found.encode(ignore)
    found.drop_bad_samples(0.5, model.misfit)
    assert len(found) == COUNT
    model.base.template = Template()
    found.drop_bad_samples(0.5, model.misfit)
    assert len(found) == COUNT - 1
    assert found.bad[0].startswith("sound-train-2: a prompt must put at least one token")


def test_samples_beyond_those_that_are_kept_in_memory_are_the_same(directory, monkeypatch):
    (directory / "sound-train-2.npy").write_bytes(b"no array")

    def drawn():
        found = examples(directory, sound=Counting())
        found.drop_bad_samples(0.5)
        found.draw(3)
        return [(found.sample(i), found.answer(i), found.length(i)) for i in range(len(found))]

    whole = drawn()
    parsed = []
    read = Manifest.__getitem__
    monkeypatch.setattr(Manifest, "__getitem__", lambda *a: parsed.append(a[1]) or read(*a))
    for kept in (16_384, 1):
        parsed.clear()
        monkeypatch.setattr(examples_module, "KEPT", kept)
        assert drawn() == whole
        assert (len(parsed) > 4 * COUNT) == (kept == 1)
