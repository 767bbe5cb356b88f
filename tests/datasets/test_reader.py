import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.datasets.declaration import datasets, find_dataset
from pathweave.datasets.reader import SplitReader
from pathweave.errors import ManifestError
from tests.datasets.files import CASES, SCENES, table, write, write_case


def rows(root, name, split, **options):
    return list(SplitReader(find_dataset(name), split, root, **options).read())


def test_every_declared_split_has_a_case():
    declared = {(name, split) for name, dataset in datasets().items() for split in dataset.splits}
    assert {(case.name, case.split) for case in CASES} == declared
    assert len(datasets()) == 27


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.split}")
def test_published_files_become_samples(case, tmp_path):
    read = rows(write_case(tmp_path, case), case.name, case.split)
    assert [row.reason for row in read if row.kind in ("missing", "broken")] == []
    samples = [row.sample for row in read if row.kind == "usable"]
    assert len(samples) == len(case.expected)
    assert len(read) - len(samples) == case.left_out
    dataset = find_dataset(case.name)
    for sample, (sample_id, question, answer, num_references) in zip(
        samples, case.expected, strict=True
    ):
        *media, text = sample.prompt
        assert sample.id == sample_id
        assert (
            sample.answer.endswith(answer) if case.name == "audioset" else sample.answer == answer
        )
        assert len(sample.references) == num_references
        assert text.text if question is None else text.text == question
        assert [part.type for part in media] == [
            m.modality for m in dataset.splits[case.split].media
        ]
        assert len(sample.choices) == (len(dataset.labels) if question else 0)
        assert not sample.choices or sample.answer in sample.choices
        assert sample.object
        assert sample.source == dataset.title
        assert sample.licence


def broken(root, name, split):
    return [(row.kind, row.reason) for row in rows(root, name, split) if row.kind != "usable"]


def test_paths_are_relative_to_the_manifest(tmp_path):
    case = next(case for case in CASES if case.name == "vizwiz")
    root = write_case(tmp_path / "data", case)
    (row, _) = rows(root, "vizwiz", "val", base=tmp_path / "runs" / "manifests")
    assert row.sample.prompt[0].path == "../../data/vizwiz/val/VizWiz_val_00000000.jpg"
    (row, _) = rows(root, "vizwiz", "val")
    assert row.sample.prompt[0].path == "vizwiz/val/VizWiz_val_00000000.jpg"


def test_missing_media_are_counted_and_named(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("audiocaps_caption", "val"))
    root = write_case(tmp_path, case)
    (root / "audiocaps/audio/val/bbb.flac").unlink()
    found = rows(root, "audiocaps_caption", "val")
    assert [row.kind for row in found] == ["usable", "missing"]
    assert found[1].reason.startswith("no file audiocaps/audio/val/bbb.wav or audiocaps/audio/val/")
    assert found[1].place == f"{root}/audiocaps/annotations/val.csv, row 2"
    assert found[1].sample is None


def test_a_missing_companion_is_missing(tmp_path):
    case = next(case for case in CASES if case.name == "nyu_v2")
    root = write_case(tmp_path, case)
    (root / "SUNRGBD" / SCENES[0]).unlink()
    assert broken(root, "nyu_v2", "val") == [("missing", f"no file SUNRGBD/{SCENES[0]}")]


def test_a_companion_is_found_and_named_where_parts_have_one(tmp_path):
    case = next(case for case in CASES if case.name == "nyu_v2")
    row = rows(write_case(tmp_path, case), "nyu_v2", "val")[0]
    assert [medium.name for medium in row.media] == [
        "SUNRGBD/kv1/a/image/1.png",
        "SUNRGBD/kv1/a/image/1.jpg",
    ]
    part = row.sample.prompt[0]
    assert part.path == "SUNRGBD/kv1/a/image/1.png"
    assert getattr(part, "companion", "SUNRGBD/kv1/a/image/1.jpg") == "SUNRGBD/kv1/a/image/1.jpg"


def test_ids_that_occur_twice_are_told(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("msvd_qa", "test"))
    row = case.files["msvd/annotations/qa_test.json"][0]
    case = replace(case, files={"msvd/annotations/qa_test.json": [row, row]})
    assert broken(write_case(tmp_path, case), "msvd_qa", "test") == [
        ("broken", "ids must be unique, got 'qa1' twice; correct the row or remove it")
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("vizwiz/annotations/val.json", [{"image": "a.jpg", "question": "What?"}],
         "a record must have the field 'answers.answer', got image, question;"),
        ("vizwiz/annotations/val.json", [{"image": "a.jpg", "question": "What?", "answers": []}],
         "the field 'answers.answer' must hold at least one text, got an empty list"),
        ("vizwiz/annotations/val.json", [{"image": "a.jpg", "question": " ",
                                          "answers": [{"answer": "x"}]}],
         "the field 'question' must hold text, got ' '"),
        ("vizwiz/annotations/val.json", [{"image": "a.jpg", "question": "What?",
                                          "answers": [{"answer": None}]}],
         "the field 'answers.answer' must hold text, got None"),
        ("vizwiz/annotations/val.json", [{"image": "../../a.jpg", "question": "What?",
                                          "answers": [{"answer": "x"}]}],
         "the path of a medium must stay below the directory of media, got 'vizwiz/val/../.."),
        ("esc50/meta/esc50.csv", table(["filename", "category", "src_file"], ["a.wav", "ufo", 1]),
         "a label must be one of dog, rooster"),
        ("esc50/meta/esc50.csv", table(["filename", "categroy"], ["a.wav", "dog"]),
         "a record must have the field 'category', got filename, categroy;"),
    ],
)  # fmt: skip
def test_broken_annotations_are_told(name, content, reason, tmp_path):
    write(tmp_path, name, content)
    dataset, split = ("esc50", "all") if "esc50" in name else ("vizwiz", "val")
    ((kind, told),) = broken(tmp_path, dataset, split)
    assert kind == "broken"
    assert told.startswith(reason)
    assert told.endswith("; correct the row or remove it")


def test_a_record_without_the_name_of_what_it_shows(tmp_path):
    case = next(case for case in CASES if case.name == "esc50")
    rows_ = table(["filename", "category"], ["1-100032-A-0.wav", "dog"])
    case = replace(case, files={"esc50/meta/esc50.csv": rows_})
    ((kind, reason),) = broken(write_case(tmp_path, case), "esc50", "all")
    assert kind == "broken"
    assert reason.startswith("a record must have the field 'src_file', got the fields filename, ")


def test_a_name_that_no_file_can_have_is_missing(tmp_path):
    rows_ = table(["filename", "category", "src_file"], ["a" * 5000, "dog", 1])
    write(tmp_path, "esc50/meta/esc50.csv", rows_)
    ((kind, _),) = broken(tmp_path, "esc50", "all")
    assert kind == "missing"


def test_a_caption_of_marks_alone_cannot_be_learnt(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("coco_caption", "train"))
    rows_ = [{"caption": "...", "image": "val2014/a.jpg", "image_id": "coco_1"}]
    case = replace(case, files={"coco/annotations/coco_karpathy_train.json": rows_})
    ((_, reason),) = broken(write_case(tmp_path, case), "coco_caption", "train")
    assert reason.startswith("a target must hold words, got '...'")


def test_a_partner_that_is_not_there(tmp_path):
    case = next(case for case in CASES if case.name == "okvqa")
    questions = {"questions": [{"image_id": 1, "question": "What sport is it?", "question_id": 15}]}
    name = "okvqa/annotations/OpenEnded_mscoco_val2014_questions.json"
    root = write_case(tmp_path, replace(case, files={**case.files, name: questions}))
    ((_, reason),) = broken(root, "okvqa", "val")
    assert reason.startswith("question_id must name one record of 'questions', got '25'")


def test_a_code_without_a_word(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("audioset", "train"))
    name = "audioset/annotations/class_labels_indices.csv"
    classes = table(["index", "mid", "display_name"], [0, "/m/068hy", "Engine"])
    root = write_case(tmp_path, replace(case, files={**case.files, name: classes}))
    ((_, reason),) = broken(root, "audioset", "train")
    assert reason.startswith(f"a code must be in {name}, got '/m/07rgt08'")


def test_a_group_without_its_key(tmp_path):
    rows_ = [{"caption": "a man"}, {"caption": "a car", "video": "video1.mp4"}]
    case = next(case for case in CASES if (case.name, case.split) == ("msrvtt_caption", "val"))
    case = replace(case, files={"msrvtt/annotations/cap_val.json": rows_})
    ((_, reason),) = broken(write_case(tmp_path, case), "msrvtt_caption", "val")
    assert reason.startswith("a record must have the field 'video', got the fields caption")


def case_with(name, split, change):
    """A case whose first annotation file is changed, as a list or object of its own."""
    case = next(case for case in CASES if (case.name, case.split) == (name, split))
    path = next(iter(case.files))
    return replace(case, files={**case.files, path: change(copy.deepcopy(case.files[path]))})


def test_a_record_that_does_not_say_to_which_data_set_it_belongs(tmp_path):
    case = case_with("cc3m_depth", "train", lambda rows: [rows[0], {**rows[1], "source": None},
                                                          {"caption": "x"}])  # fmt: skip
    root = write_case(tmp_path, case)
    found = broken(root, "cc3m_depth", "train")
    assert [kind for kind, _ in found] == ["broken", "broken"]
    assert found[0][1].startswith("the field 'source' must hold text, got None;")
    assert found[1][1].startswith("a record must have the field 'source', got caption;")


def test_captions_of_a_picture_that_two_records_claim(tmp_path):
    def twice(tree):
        other = {**tree["images"][0], "file_name": "2c.jpg"}
        return {**tree, "images": [*tree["images"], other]}

    root = write_case(tmp_path, case_with("nocaps", "val", twice))
    found = rows(root, "nocaps", "val")
    assert [row.sample.id for row in found if row.kind == "usable"] == ["2"]
    assert [row.kind for row in found] == ["flawed", "broken", "flawed", "usable"]
    assert found[0].reason.startswith("'id' must be unique, got '0' before with other values;")
    assert found[1].reason.startswith("image_id must name one record of 'images', got '0';")


def test_a_broken_record_of_a_table_costs_those_that_need_it(tmp_path):
    case = next(case for case in CASES if case.name == "okvqa")
    name = "okvqa/annotations/OpenEnded_mscoco_val2014_questions.json"
    questions = [{"question": "x"}, *case.files[name]["questions"][:1]]
    root = write_case(tmp_path, replace(case, files={**case.files, name: {"questions": questions}}))
    assert [row.kind for row in rows(root, "okvqa", "val")] == ["flawed", "usable", "broken"]


def test_a_table_without_words(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("audioset", "train"))
    name = "audioset/annotations/class_labels_indices.csv"
    classes = case.files[name].replace("display_name", "name")
    root = write_case(tmp_path, replace(case, files={**case.files, name: classes}))
    ((_, reason), _) = broken(root, "audioset", "train")
    assert reason.startswith("a record must have the field 'display_name', got index, mid, name;")


@pytest.mark.parametrize("label", [2, -1, 0.0, "2", True, None, float("nan")])
def test_a_label_of_a_pair_is_one_of_two(label, tmp_path):
    case = case_with("discrn_image_3d", "val", lambda rows: [{**rows[0], "label": label}, rows[1]])
    ((kind, reason),) = broken(write_case(tmp_path, case), "discrn_image_3d", "val")
    assert kind == "broken"
    assert reason.startswith(("a target must be one of 0, 1, got", "the field 'label' must hold t"))


@pytest.mark.parametrize("answer", [True, False, float("nan"), float("inf"), [[]], {}])
def test_what_json_has_and_is_no_answer(answer, tmp_path):
    case = case_with("msvd_qa", "test", lambda rows: [{**rows[0], "answer": answer}])
    ((kind, reason),) = broken(write_case(tmp_path, case), "msvd_qa", "test")
    assert kind == "broken"
    assert reason.startswith(f"the field 'answer' must hold text, got {answer!r}"[:40])


@pytest.mark.parametrize("blank", ["", " \n", None])
def test_a_blank_annotator_of_ten_is_left_out_and_told(blank, tmp_path):
    case = case_with("vizwiz", "val", lambda rows: [
        {**rows[0], "answers": [{"answer": blank}, *rows[0]["answers"][:9]]}, rows[1]])  # fmt: skip
    first, flaw, second = rows(write_case(tmp_path, case), "vizwiz", "val")
    assert first.sample.references == ("beans",) * 9
    assert (second.kind, len(second.sample.references)) == ("usable", 10)
    assert flaw.kind == "flawed"
    reason = f"the field 'answers.answer' must hold text, got {blank!r}; correct the row or remove"
    assert flaw.reason.startswith(reason)


def test_a_sample_whose_annotators_are_all_blank_is_broken(tmp_path):
    case = case_with("vizwiz", "val", lambda rows: [
        {**rows[0], "answers": [{"answer": ""}] * 10}, rows[1]])  # fmt: skip
    ((kind, reason),) = broken(write_case(tmp_path, case), "vizwiz", "val")
    assert (kind, reason[:50]) == ("broken", "the field 'answers.answer' must hold text, got '';")


def test_half_a_character_breaks_its_row_alone(tmp_path):
    case = case_with("vizwiz", "val", lambda rows: [{**rows[0], "question": "\ud83d?"}, rows[1]])
    ((kind, reason),) = broken(write_case(tmp_path, case), "vizwiz", "val")
    assert (kind, reason[:40]) == ("broken", "text must be UTF-8, got '\\ud83d?'; convert"[:40])


@pytest.mark.parametrize("depth", [400, 900])
def test_a_value_of_many_brackets_is_told(depth, tmp_path):
    case = case_with("vizwiz", "val", lambda rows: rows)
    root = write_case(tmp_path, case)
    file = root / "vizwiz/annotations/val.json"
    deep = "[" * depth + "]" * depth
    text = file.read_text(encoding="utf-8").replace('"Colour?"', deep)
    file.write_text(text, encoding="utf-8")
    ((kind, reason),) = broken(root, "vizwiz", "val")
    assert (kind, reason[:40]) == ("broken", "the field 'question' must hold text, got [[["[:40])


def test_a_number_is_an_answer(tmp_path):
    case = case_with("msvd_qa", "test", lambda rows: [{**rows[0], "answer": 10**400}])
    (row,) = rows(write_case(tmp_path, case), "msvd_qa", "test")
    assert row.sample.answer == f"{10**400}"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["-aaa", "bbb"]), st.sampled_from(["", "Rain"])),
                min_size=1, max_size=6))  # fmt: skip
def test_of_grouped_records_the_samples_are_counted(whole_root, captions):
    with TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "audiocaps").mkdir()
        (root / "audiocaps/audio").symlink_to(whole_root / "audiocaps/audio")
        lines = [[i, clip, 30, caption] for i, (clip, caption) in enumerate(captions)]
        names = ["audiocap_id", "youtube_id", "start_time", "caption"]
        write(root, "audiocaps/annotations/test.csv", table(names, *lines))
        kinds = Counter(row.kind for row in rows(root, "audiocaps_caption", "test"))
    clips = {clip for clip, _ in captions}
    usable = {clip for clip, caption in captions if caption}
    empty = sum(not caption for _, caption in captions)
    assert kinds["usable"] == len(usable)
    assert kinds["broken"] == len(clips - usable)
    assert kinds["flawed"] == empty - kinds["broken"]


class TestConversations:
    def learnt(self, root, turns, seeds=(0,)):
        case = next(case for case in CASES if (case.name, case.split) == ("llava_depth", "train"))
        record = {"source": "llava", "image": "000000033471.jpg", "conversations": turns}
        files = {"depth/fusion_train_55w_clear.json": [record]}
        write_case(root, replace(case, files=files))
        return [row for seed in seeds for row in rows(root, "llava_depth", "train", seed=seed)]

    def turns(self, count):
        return [
            {"from": ("human", "gpt")[i % 2], "value": f"{('ask', 'say')[i % 2]} {i // 2}"}
            for i in range(count)
        ]

    @pytest.mark.parametrize("count", [2, 3])
    def test_of_a_short_one_the_first_round_is_taken(self, count, tmp_path):
        found = self.learnt(tmp_path, self.turns(count), seeds=range(5))
        assert {row.sample.answer for row in found} == {"say 0"}

    def test_of_a_long_one_a_round_is_drawn(self, tmp_path):
        found = self.learnt(tmp_path, self.turns(8), seeds=range(20))
        assert {row.sample.answer for row in found} == {f"say {i}" for i in range(4)}
        for row in found:
            assert row.sample.answer.replace("say", "ask") in row.sample.prompt[-1].text
        assert found == self.learnt(tmp_path, self.turns(8), seeds=range(20))

    @pytest.mark.parametrize(
        ("turns", "reason"),
        [
            ("text", "'conversations' must be a list of turns, got 'text'"),
            (
                [{"from": "human", "value": "x"}],
                "turns must hold a question and an answer",
            ),
            (["x"], "'conversations' must be a list of turns, got ['x']"),
        ],
    )
    def test_what_is_none_is_told(self, turns, reason, tmp_path):
        (row,) = self.learnt(tmp_path, turns)
        assert (row.kind, row.reason[: len(reason)]) == ("broken", reason)


def test_what_is_drawn_depends_on_the_seed_alone(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("clotho_v1", "development"))
    root = write_case(tmp_path, case)
    first = [rows(root, "clotho_v1", "development", seed=seed) for seed in (0, 0, 1)]
    assert first[0] == first[1]
    asked = [[row.sample.prompt[-1].text for row in found] for found in first]
    assert asked[0] != asked[2]
    assert len(set(asked[0])) > 3


def test_one_label_of_several_is_drawn(tmp_path):
    case = next(case for case in CASES if (case.name, case.split) == ("audioset", "train"))
    name = "audioset/annotations/balanced_train_segments.csv"
    text = case.files[name].replace('"/m/068hy"', '"/m/068hy,/m/07rgt08"')
    root = write_case(tmp_path, replace(case, files={**case.files, name: text}))
    found = [rows(root, "audioset", "train", seed=seed)[0].sample for seed in range(20)]
    assert {sample.answer.split()[-1] for sample in found} == {"engine", "chortle"}


def test_a_damaged_file_raises_after_its_sound_part(tmp_path):
    case = next(case for case in CASES if case.name == "flickr30k")
    root = write_case(tmp_path, case)
    file = root / "flickr30k/annotations/test.json"
    file.write_text(file.read_text(encoding="utf-8")[:-8], encoding="utf-8")
    reading = SplitReader(find_dataset("flickr30k"), "test", root).read()
    assert next(reading).kind == "usable"
    with pytest.raises(
        ManifestError, match=r"test\.json must be whole JSON, got .* after 1 records"
    ):
        next(reading)
