"""How joint questions are put together, and what they give away."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.data.manifest import Manifest
from scripts.mcl_mini import check, joint, joint_baselines
from scripts.mcl_mini.balance import media_of, most_common, most_told
from scripts.mcl_mini.items import SPLITS, Credit
from scripts.mcl_mini.splits import digest

DATA = Path(__file__).parents[2] / "data" / "mcl-mini"
SETS = [(task, split) for task in check.JOINT_TASKS for split in SPLITS]

shipped = pytest.mark.skipif(not DATA.exists(), reason="data/mcl-mini is not checked out")
numbers = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=2)


def table(task, split):
    return check.rows(DATA / "joint" / f"{task}-{split}.parquet")


@shipped
@pytest.mark.parametrize(("task", "split"), SETS)
def test_neither_the_question_nor_one_medium_tells_the_answer(task, split):
    samples = table(task, split)
    assert most_common(samples) == 50.0
    assert most_told(samples, ()) == 50.0
    one = [most_told(samples, (0,)), most_told(samples, (1,))]
    assert one == ([100.0, 100.0] if task == "pick" else [50.0, 50.0])
    assert most_told(samples, (0, 1)) == 100.0


@shipped
@pytest.mark.parametrize(("task", "split"), SETS)
def test_the_shipped_rows_are_what_the_builder_makes(task, split):
    made = [
        row
        for pairing in joint.PAIRINGS
        if pairing.task == task
        for row in joint.samples(DATA, pairing, split)
    ]
    shown = [row["id"] for row in table(task, split)]
    assert shown == sorted((row["id"] for row in made), key=digest)
    assert len(shown) == len(set(shown))


@shipped
@pytest.mark.parametrize("task", check.JOINT_TASKS)
def test_media_are_read_beside_the_manifest(task):
    manifest = Manifest(DATA / "joint" / f"{task}-test.parquet")
    assert len(manifest.part_types) == (2 if task == "heard" else 4)
    for part in manifest[0].prompt[:2]:
        assert len(manifest.read_media(part)) > 100
    assert manifest[0].prompt[2].is_text


@shipped
@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("task", check.JOINT_TASKS)
def test_couples_share_no_thing(task, split):
    """So that a bootstrap over the column ``object`` draws what is independent."""
    things = {
        (name, row["key"]): row["object"]
        for name in check.MODALITIES
        for row in pq_rows(DATA / name / "media.parquet")
    }
    seen = defaultdict(set)
    for row in table(task, split):
        for part in media_of(row):
            key = part["path"].partition("#")[2]
            seen[part["type"], things[part["type"], key]].add(row["object"])
    assert all(len(couples) == 1 for couples in seen.values())


def pq_rows(path):
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["key", "object"]).to_pylist()


@shipped
def test_licences_of_both_media_hold():
    for row in table("qa", "test"):
        named = set(row["licence"].split(" AND "))
        sources = row["source"].split("; ")
        assert len(sources) == 2
        if any(source.startswith("tuxpaint") for source in sources):
            assert named == {"GPL-2.0-only", "GPL-2.0-or-later"}


@settings(max_examples=40)
@given(numbers)
def test_twins_can_always_be_coupled_with_others(things):
    made = joint.num_twins(things)
    assert sum(made.values()) % 2 == 0
    assert 2 * max(made.values()) <= sum(made.values())
    assert all(made[kind] <= number for kind, number in things.items())


@settings(max_examples=40)
@given(numbers, st.sampled_from("xyz"))
def test_couples_are_of_different_kinds_and_leave_none_out(things, seed):
    made = joint.num_twins(things)
    twins = [joint.Twins(k, f"{k}{i}", ((), ())) for k, n in made.items() for i in range(n)]
    found = joint.couples(twins, seed)
    assert all(first.kind != second.kind for first, second in found)
    assert Counter(t.name for couple in found for t in couple) == Counter(t.name for t in twins)


@pytest.mark.parametrize(
    ("first", "second", "asked", "answer"),
    [
        ("a chair", "a chair", None, "yes"),
        ("a chair", "a bed", None, "no"),
        ("a chair", "a bed", "a chair", "the first"),
        ("a bed", "a chair", "a chair", "the second"),
        ("a chair", "a chair", "a chair", "no"),
        ("a bed", "a sofa", "a chair", "no"),
    ],
)
def test_answers(first, second, asked, answer):
    assert joint.answer_about(first, second, asked) == answer


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a person walking", "a person"),
        ("a voice", "a person"),
        ("a photo of an insect: a beetle", "an animal"),
        ("a drawing of a building: two city houses", "a building"),
        ("a chair", "a chair"),
    ],
)
def test_kinds(text, kind):
    assert joint.kind_of(text) == kind


def test_twins_show_all_their_media_in_turn():
    credit = Credit("s", "CC0-1.0", "me")
    shown = [joint.Shown("sight", str(i), "a chair", "x", credit) for i in range(3)]
    twins = joint.Twins("a chair", "x", (shown, shown[:1]))
    assert [[medium.key for medium in twins.views(turn)] for turn in range(4)] == [
        *(["0", "0"], ["1", "0"], ["2", "0"], ["0", "0"])
    ]


def row(answer="yes", question="Are these two the same kind of thing?", media=("a/1", "b/2")):
    parts = [
        {"type": m[0], "path": f"../{m[0]}/media.parquet#{m[2:]}", "text": None} for m in media
    ]
    return {
        "id": "x",
        "messages": [
            {"content": [*parts, {"type": "text", "path": None, "text": question}]},
            {"content": [{"type": "text", "text": answer}]},
        ],
        "references": [answer],
        "choices": list(joint.CHOICES),
        **dict.fromkeys(check.CREDIT_COLUMNS, "said"),
    }


def test_the_check_finds_what_is_wrong_with_a_joint_row():
    known = {"../a/media.parquet#1", "../b/media.parquet#2"}
    assert check._joint_row_problems("joint/qa-test", row(), known) == []
    bad = row(media=("a/1", "a/3")) | {"licence": ""}
    bad["messages"][0]["content"][0]["path"] = "../b/media.parquet#2"
    found = check._joint_row_problems("joint/qa-test", bad, known)
    assert [problem.partition(": ")[2] for problem in found] == [
        "no licence",
        "not of two modalities: ['a', 'a']",
        "../b/media.parquet#2 is no a",
        "../a/media.parquet#3 is not in the split",
    ]


def test_what_is_told_is_counted():
    samples = [row("yes"), row("no"), row("yes", media=("a/9", "b/2"))]
    assert most_common(samples) == pytest.approx(200 / 3)
    assert most_told(samples, ()) == pytest.approx(200 / 3)
    assert most_told(samples[:2], (0,)) == 50.0
    assert most_told(samples[1:], (0,)) == 100.0
    assert most_told(samples[1:], (1,)) == 50.0


def test_answers_by_rule_from_what_single_media_were_called(tmp_path, monkeypatch):
    monkeypatch.setattr(joint_baselines, "MODALITIES", ("a", "b"))
    which = joint.PICK[0].format("a chair")
    samples = [
        row("yes"),
        row("the first", which),
        row("no", media=("a/3", "b/2")),
        row("yes", media=("a/1", "b/unanswered")),
    ]
    answers = {
        "a-qa": {"1": "a chair", "3": "a bed"},
        "b-caption": {"2": "a drawing of a chair: x"},
    }
    for name, said in answers.items():
        lines = (json.dumps({"id": f"{name}-{key}", "answer": a}) for key, a in said.items())
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    kinds = joint_baselines.seen_kinds(tmp_path)
    assert kinds["../b/media.parquet#2"] == "a chair"
    # The second sample pairs two chairs, so one of them is picked, and it happens to be right.
    samples[1]["choices"] = ["the first", "the second"]
    assert joint_baselines.by_rule(samples, kinds) == (100.0, 3)
    assert joint_baselines.by_rule(samples, {}) == (0.0, 0)
    assert joint_baselines.bounds(samples[:2])[0] == 50.0
