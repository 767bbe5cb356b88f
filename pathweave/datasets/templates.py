"""Instructions to learn from, of which each sample draws one, and the form of what is learnt."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import yaml

from pathweave.storage.atomic import sha256_bytes

# Captions and questions have the one form of X-InstructBLIP.
MAX_WORDS = 50

_Choice = TypeVar("_Choice")
_MARKS = re.compile(r'[.!"()*#:;~]')
_VOWELS = set("aeiou")

# Words whose first letter says the wrong thing about their first sound.
_SOUNDS_VOWEL = ("hour", "honest", "heir", "honor", "honour")
_SOUNDS_CONSONANT = ("uni", "use", "usu", "eu", "one", "once", "ukulele", "u-")


@cache
def _tree() -> dict[str, Any]:
    return yaml.safe_load((files("pathweave.datasets") / "templates.yaml").read_bytes())


@cache
def templates(task: str, modality: str) -> tuple[str, ...]:
    """Return the instructions of a task for a kind of medium.

    Those of ``qa`` hold one ``{}`` for the question. A modality that is not in the file gets the
    shared ones, with its own name as the noun.

    Args:
        task: ``caption``, ``qa`` or ``classification``.
        modality: Name of the modality.

    Example:
        >>> len(templates("caption", "tremor")), "tremor" in templates("qa", "tremor")[0]
        (13, True)
    """
    known = [group for group in _tree()[task] if modality in group.get("for", [modality])]
    return _named(modality, (text for group in known for text in group["templates"]))


@cache
def lead_ins(modality: str) -> tuple[str, ...]:
    """Return what may stand before a class when it is the answer; one of them may be empty."""
    tree = _tree()["lead_ins"]
    return _named(modality, tree.get(modality, tree["shared"]))


def _named(modality: str, texts: Iterable[str]) -> tuple[str, ...]:
    noun = _tree()["nouns"].get(modality, modality.replace("_", " "))
    return tuple(text.replace("{medium}", noun) for text in texts)


def draw(choices: Sequence[_Choice], seed: int, sample_id: str) -> _Choice:
    """Return one of the choices; it depends on the seed and the id and on nothing else.

    Example:
        >>> draw(["a", "b", "c"], 0, "clip-7") == draw(["a", "b", "c"], 0, "clip-7")
        True
    """
    return choices[int(sha256_bytes(f"{seed} {sample_id}".encode())[:8], 16) % len(choices)]


def instruction(task: str, modality: str, question: str, seed: int, sample_id: str) -> str:
    """Return the instruction of a sample to learn from.

    Args:
        task: ``caption``, ``qa`` or ``classification``.
        modality: What is shown.
        question: The question of ``qa``; not used otherwise.
        seed: Seed of the draw.
        sample_id: Id of the sample.
    """
    template = draw(templates(task, modality), seed, sample_id)
    if task == "qa":
        # Not str.format: a question may hold braces.
        template = template.replace("{}", normalise_question(question))
    return template.lower().strip().replace("??", "?")


def class_answer(label: str, modality: str, seed: int, sample_id: str) -> str:
    """Return the answer "a/an label", after a lead-in that is drawn.

    Example:
        >>> class_answer("Engine", "tremor", 0, "x").endswith("an engine")
        True
    """
    label = label.lower().strip()
    lead = draw(lead_ins(modality), seed, f"{sample_id} lead-in")
    starts_with_vowel = label[:1] in _VOWELS and not label.startswith(_SOUNDS_CONSONANT)
    article = "an" if starts_with_vowel or label.startswith(_SOUNDS_VOWEL) else "a"
    return f"{lead} {article} {label}".strip()


def normalise_caption(text: str) -> str:
    """Return a caption to learn: lower case, marks as spaces, at most 50 words.

    Example:
        >>> normalise_caption('A man: "Hello!"  He waves.')
        'a man hello he waves'
    """
    return " ".join(_MARKS.sub(" ", text.lower()).split()[:MAX_WORDS])


def normalise_question(text: str) -> str:
    """Return a question to ask: lower case, without marks, at most 50 words.

    Example:
        >>> normalise_question("What's this (a dog)?")
        "what's this a dog?"
    """
    return " ".join(_MARKS.sub("", text.lower()).split()[:MAX_WORDS])
