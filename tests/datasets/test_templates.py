import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathweave.datasets.templates import (
    MAX_WORDS,
    class_answer,
    draw,
    instruction,
    lead_ins,
    normalise_caption,
    normalise_question,
    templates,
)

TASKS = ("caption", "qa", "classification")
# As many as X-InstructBLIP has.
COUNTS = {
    "image": (53, 47, 20),
    "video": (13, 21, 20),
    "audio": (24, 26, 13),
    "depth": (13, 21, 20),
    "point_cloud": (45, 52, 13),
}


@pytest.mark.parametrize("modality", COUNTS)
def test_counts(modality):
    assert tuple(len(templates(task, modality)) for task in TASKS) == COUNTS[modality]


@pytest.mark.parametrize("modality", [*COUNTS, "vibration"])
def test_no_instruction_twice_and_one_place_for_the_question(modality):
    for task in TASKS:
        found = templates(task, modality)
        said = [instruction.lower().strip(" .?!:") for instruction in found]
        assert [text for text, count in Counter(said).items() if count > 1] == []
        assert {template.count("{}") for template in found} == {1 if task == "qa" else 0}
        assert not any("{medium}" in template or "  " in template for template in found)


def test_a_modality_of_ones_own_is_named_by_its_name():
    assert any("heat image" in template for template in templates("caption", "heat_image"))
    assert not any("picture" in template for template in templates("caption", "heat_image"))


def test_lead_ins():
    assert (len(lead_ins("audio")), len(lead_ins("image"))) == (6, 3)
    assert "" in lead_ins("audio")


@given(st.sampled_from([*COUNTS]), st.sampled_from(TASKS), st.text(), st.integers(0, 9), st.text())
def test_an_instruction_holds_the_question_and_is_drawn_alike(modality, task, question, seed, name):
    said = instruction(task, modality, question, seed, name)
    assert said == instruction(task, modality, question, seed, name)
    assert said == said.lower().strip()
    assert "??" not in instruction("qa", modality, "what is it?", seed, name)
    assert "what is it?" in instruction("qa", modality, "What is it?", seed, name)


def test_questions_may_hold_braces():
    assert "{x} {}" in instruction("qa", "image", "{x} {}", 0, "a")


def test_every_instruction_is_drawn_about_equally_often():
    found = Counter(draw(templates("caption", "video"), 0, f"{i}") for i in range(2600))
    assert len(found) == 13
    assert min(found.values()) > 140


def test_seeds_and_ids_change_the_draw():
    choices = [str(i) for i in range(1000)]
    assert draw(choices, 0, "a") != draw(choices, 1, "a")
    assert draw(choices, 0, "a") != draw(choices, 0, "b")


def test_the_draw_is_the_same_in_another_process():
    code = (
        "from pathweave.datasets.templates import instruction as i;"
        "print([i('caption', 'image', '', 3, f'{n}') for n in range(5)])"
    )
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([instruction("caption", "image", "", 3, f"{n}") for n in range(5)])


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Engine", "an engine"),
        ("Dog", "a dog"),
        ("Unicycle", "a unicycle"),
        ("Hour bell", "an hour bell"),
        ("Oboe", "an oboe"),
    ],
)
def test_answers_of_classes(label, words):
    answers = {class_answer(label, "audio", 0, f"{i}") for i in range(200)}
    assert len(answers) == 6
    assert all(answer.endswith(words) for answer in answers)


MARKS = '.!"()*#:;~'


@given(st.text())
def test_the_form_of_captions_and_questions(text):
    for normalise in (normalise_caption, normalise_question):
        normal = normalise(text)
        assert normalise(normal) == normal
        assert normal == normal.strip()
        assert len(normal.split()) <= MAX_WORDS
        assert not set(normal) & set(MARKS)
        assert "  " not in normal


def test_marks_part_words_of_captions_and_join_those_of_questions():
    assert normalise_caption("A T.V. set; on") == "a t v set on"
    assert normalise_question("A T.V. set; on?") == "a tv set on?"


def test_the_fiftieth_word_is_the_last():
    assert normalise_caption(" ".join(map(str, range(60)))).split()[-1] == "49"
