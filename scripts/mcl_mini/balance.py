"""What the question and some of the media of a joint sample tell about its answer."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def media_of(row: Row) -> list[dict[str, str]]:
    """The parts of a manifest row that are no text, in order."""
    return [part for part in row["messages"][0]["content"] if part["type"] != "text"]


def question_of(row: Row) -> str:
    """All text of the question of a manifest row."""
    texts = [part["text"] for part in row["messages"][0]["content"] if part["type"] == "text"]
    return " ".join(texts)


def most_told(table: Sequence[Row], shown: Sequence[int]) -> float:
    """The most that anyone can score who is given the question and some of the media, in percent.

    This is a bound, not a guess: it is reached by whoever has seen these very samples with their
    answers, and so it holds for every model.

    Args:
        table: Manifest rows.
        shown: Which media are given, counted from 0; none for the question alone.
    """
    answers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for row in table:
        media = media_of(row)
        given = (question_of(row), *(media[index]["path"] for index in shown))
        answers[given][row["references"][0]] += 1
    right = sum(max(counts.values()) for counts in answers.values())
    return 100 * right / len(table)


def most_common(table: Sequence[Row]) -> float:
    """Score of giving one answer to all questions, in percent."""
    return 100 * max(Counter(row["references"][0] for row in table).values()) / len(table)
