"""Declarations of data sets: where their files are, what fields mean, how they are scored."""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, model_validator

from pathweave.errors import RecipeError
from pathweave.validation import unknown


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Strings = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Format = Literal["csv", "json", "jsonl", "points_pickle"]


class _Strict(BaseModel, frozen=True, extra="forbid"):
    pass


class MediumPlace(_Strict):
    """Where one medium of a sample is.

    Args:
        modality: The type of the part of the message.
        decoder: Kind of the decoder that reads it.
        paths: Patterns of the path under the root; the first that is a file is taken.
        companion: Patterns of a second file of the same medium.
        field: The field that holds the medium itself, as an array, instead of paths.
    """

    modality: str
    decoder: str
    paths: Strings = ()
    companion: Strings = ()
    field: str | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> "MediumPlace":
        if bool(self.paths) == bool(self.field):
            raise ValueError("a medium must have either paths or a field")
        return self


class Join(_Strict):
    """A second list of records, whose fields are added to those of the first.

    Args:
        file: Its role among ``files``; None is the annotation file itself.
        list: Where the records are in it.
        by: The field of the first list that names a record of the second.
        key: The field of the second list that it names.
        unnamed: Why records of the second list that none of the first names are left out; None
            does not count them.
    """

    file: str | None = None
    list: str | None = None
    by: str
    key: str
    unnamed: str | None = None


class Lookup(_Strict):
    """A table that turns codes, separated by commas, into words.

    Args:
        file: Its role among ``files``; a CSV file.
        key: The column of codes.
        value: The column of words.
    """

    file: str
    key: str
    value: str


class Keep(_Strict):
    """Which samples count, by their answers.

    Args:
        without: None of the answers may be one of these.
        not_containing: None of the answers may contain one of these.
        unanimous: All answers must be equal.
    """

    without: Strings = ()
    not_containing: Strings = ()
    unanimous: bool = False

    def leaves_out(self, answers: tuple[str, ...]) -> str:
        """Return why a sample with these answers does not count, or an empty text."""
        if banned := [answer for answer in answers if answer in self.without]:
            return f"the answer {banned[0]!r} does not count here"
        if found := [w for w in self.not_containing if any(w in answer for answer in answers)]:
            return f"an answer that contains {found[0]!r} does not count here"
        differ = self.unanimous and len(set(answers)) > 1
        return "answers that differ do not count here" * differ


class Layout(_Strict):
    """How an annotation file is laid out.

    Args:
        format: Its format; a CSV file that ends in ``.tsv`` has tabs.
        list: Where the records are in a JSON file, see ``json_stream``.
        columns: Names of the columns, for files without a header.
        comment: Beginning of lines to be passed over.
    """

    format: Format = "json"
    list: str | None = None
    columns: Strings = ()
    comment: str | None = None


class Split(Layout):
    """One part of a data set, and how its files are read.

    Patterns know every field of a record and ``split`` (the name of the split), ``row`` (from 1)
    and ``folder`` (the directory of the annotation file). Fields may be nested (``answers.answer``)
    and hold lists.

    Args:
        records: The annotation files under the root.
        media: The media of a sample, in the order in which they are shown.
        targets: The fields that hold captions, answers or labels; all of them are taken.
        learn: Whether this split is learnt from: one sample for each target, with an instruction
            drawn from the templates. Otherwise all targets are references of one sample.
        files: Other files under the root, by role.
        join: A second list whose fields are added.
        lookup: A table that turns targets into words.
        translate: Targets to be replaced, each by one or several accepted answers.
        only_translated: Whether a target that is not among those to be replaced is an error.
        where: Values that fields must have for a record to belong to this data set.
        keep: Which samples count, by their answers.
        id: Pattern of the id of a sample; in a split to learn from, ids are numbers of rows.
        object: Pattern of the name of what is shown, to group samples by.
        group: Pattern; records for which it is equal are one sample.
        question: The field that holds the question.
        turns: The field that holds a conversation, of which one round is drawn.
        samples: Number of samples as published.
        paper: Number of samples in the paper's runs.
    """

    records: Strings
    media: tuple[MediumPlace, ...] = Field(min_length=1)
    targets: Strings = ()
    learn: bool = False
    files: dict[str, str] = {}
    join: Join | None = None
    lookup: Lookup | None = None
    translate: dict[str, Strings] = {}
    only_translated: bool = False
    where: dict[str, str] = {}
    keep: Keep = Keep()
    id: Strings = ("{row}",)
    object: Strings = ()
    group: Strings = ()
    question: str | None = None
    turns: str | None = None
    samples: int | None = None
    paper: int | None = None

    @property
    def annotations(self) -> tuple[str, ...]:
        """All files under the root but the media."""
        return (*self.records, *self.files.values())


class ScoringMethod(_Strict):
    """One way of scoring.

    Args:
        metric: Name of the metric.
        decoding: How answers are generated: fields of a recipe's test set; None if candidates are
            ranked.
        candidates: How the name of a class becomes an answer.
    """

    metric: str
    decoding: dict[str, int | float] | None = None
    candidates: str = "{}"


class Dataset(_Strict):
    """A published data set.

    Args:
        name: What it is called on the command line.
        title: Its name in texts.
        task: What is asked of its media.
        domain: ``in`` if the paper learns from its training part or from its like, else ``out``.
        prompt: What is put to the model when it is scored; ``{}`` is the question.
        evaluation: Ways of scoring, by name; the first is the paper's.
        splits: Its parts, by name.
        labels: The names of the classes of a classification.
        origin: Where the publisher describes it.
        sources: Where the annotation files are to be had.
        terms: Licence or terms of use, in short.
        licence: SPDX identifier of the licence of the media, where they have one.
        note: What else is to be known.
    """

    name: str
    title: str
    task: Literal["caption", "qa", "classification"]
    domain: Literal["in", "out"]
    prompt: str
    evaluation: dict[str, ScoringMethod] = {}
    splits: dict[str, Split] = Field(min_length=1)
    labels: Strings = ()
    origin: str
    sources: Strings = ()
    terms: str
    licence: str | None = None
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _share(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Put what all splits have in common into each of them."""
        common = tree.pop("read", {})
        splits = {name: {**common, **split} for name, split in tree["splits"].items()}
        return {**tree, "splits": splits}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The types of its media, each once."""
        media = (medium for split in self.splits.values() for medium in split.media)
        return tuple(dict.fromkeys(medium.modality for medium in media))

    def split(self, name: str | None = None) -> tuple[str, Split]:
        """Return the split of that name, by default the first to be scored.

        Raises:
            RecipeError: If there is none.
        """
        if name is None:
            scored = [key for key, split in self.splits.items() if not split.learn]
            name = [*scored, *self.splits][0]
        if name not in self.splits:
            raise RecipeError(unknown(f"a split of {self.name}", name, list(self.splits)))
        return name, self.splits[name]

    def scoring(self, name: str | None = None) -> ScoringMethod | None:
        """Return the way of scoring of that name, by default the first; None if there is none.

        Raises:
            RecipeError: If there is none of that name.
        """
        if name is not None and name not in self.evaluation:
            raise RecipeError(unknown(f"--evaluation of {self.name}", name, list(self.evaluation)))
        return self.evaluation[name] if name else next(iter(self.evaluation.values()), None)

    def test_set(self, evaluation: str | None = None) -> dict[str, Any]:
        """Return the fields of a recipe's test set that score it as declared.

        The prompt and the candidates are not among them: they are in the manifest.

        Raises:
            RecipeError: If there is no way of scoring of that name.
        """
        how = self.scoring(evaluation)
        if how is None:
            return {}
        return {"metric": how.metric, **(how.decoding or {})}


@cache
def datasets() -> dict[str, Dataset]:
    """Return all declared data sets, by name."""
    found: dict[str, Dataset] = {}
    directory = files("pathweave.datasets") / "declared"
    for file in sorted(directory.iterdir(), key=lambda file: file.name):
        for name, tree in yaml.safe_load(file.read_bytes()).items():
            if not name.startswith("_"):
                found[name] = Dataset.model_validate({"name": name, **tree})
    return found


def find_dataset(name: str) -> Dataset:
    """Return a declared data set.

    Raises:
        RecipeError: If there is none of that name.

    Example:
        >>> find_dataset("esc50").modalities
        ('audio',)
    """
    if name not in datasets():
        raise RecipeError(unknown("a data set", name, list(datasets())))
    return datasets()[name]
