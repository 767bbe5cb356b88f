"""``pathweave data``: the original data sets, and files of other projects."""

import json
from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, check and convert data sets (docs/datasets.md).",
)

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@data_app.command("list")
def list_datasets(as_json: _AsJson = False) -> None:
    """Show the data sets that are known: media, tasks, parts, metrics, terms; as JSON all of it.

    Example: pathweave data list
    """
    from pathweave.datasets.overview import overview, show_overview

    if as_json:
        typer.echo(json.dumps(overview(), ensure_ascii=False))
    else:
        show_overview()


@data_app.command()
def check(
    root: Annotated[Path, typer.Argument(help="Directory below which the data sets are.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Look for this data set.")
    ] = None,
    hashes: Annotated[
        bool, typer.Option("--hash", help="Print the SHA-256 of annotation files.")
    ] = False,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every medium as a whole; slow.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="List all problems, not 20 of each kind.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Say what is found of each data set, what is missing and what is corrupt.

    Exit code 0: what is there is sound (media may be missing). 1: annotations or media are broken,
    or a data set named with --only is absent.

    Example: pathweave data check /data --only msvd_caption
    """
    from pathweave.data.utf8 import printable
    from pathweave.datasets.check import LISTED, check_root, show_reports
    from pathweave.display import Display

    listed = None if every else LISTED
    reports = check_root(root, only or [], hashes, decode, listed, Display(quiet=as_json))
    if as_json:
        shown = json.dumps([report.to_json() for report in reports], ensure_ascii=False)
        typer.echo(printable(shown))
    else:
        show_reports(reports)
    present = {report.dataset for report in reports if report.state != "absent"}
    if not all(report.is_sound for report in reports) or set(only or []) - present:
        raise typer.Exit(1)


@data_app.command()
def stats(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST...", help="One manifest, or several.")
    ],
    as_json: _AsJson = False,
) -> None:
    """Say what manifests hold: samples, answers, media, and what several of them share.

    Exit code 1 if a row is broken or a medium is missing.

    Example: pathweave data stats motion/train.jsonl motion/test.jsonl
    """
    from pathweave.data.stats import manifest_stats, show_stats
    from pathweave.display import Display

    found = manifest_stats(manifests, Display(quiet=as_json))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        show_stats(found)
    media = [about for told in found["manifests"] for about in told["media"].values()]
    if any(told["broken"] for told in found["manifests"]) or any(a["missing"] for a in media):
        raise typer.Exit(1)


@data_app.command()
def convert(  # noqa: PLR0913 (all are options of one command)
    kind: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="A data set of the list, or llava, sharegpt, ms-swift, coco, huggingface.",
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="The root of a data set of the list, or a file; "
            "huggingface: a directory of Arrow or Parquet files.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The manifest to write, .jsonl or .parquet.")],
    split: Annotated[
        str | None,
        typer.Option(
            help="Part of a data set; by default the first to be scored, or the only one."
        ),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(help="Way of scoring of a data set (open or closed); by default the first."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawn instructions.")] = 0,
    media: Annotated[
        Path | None, typer.Option(help="Directory of the media; by default that of SRC.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="Type of all media; by default the name of their marks.")
    ] = None,
    every_caption: Annotated[
        bool, typer.Option("--every-caption", help="coco: one sample to learn from a caption.")
    ] = False,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="huggingface: the column of answers.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="huggingface: what is asked about every row.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the media.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Write a manifest, its coverage (FILE.coverage.json) and what could not be used.

    Examples: pathweave data convert msvd_caption /data --out manifests/msvd.parquet

    pathweave data convert llava llava_instruct.json --media coco/train2017 --out llava.jsonl

    pathweave data convert huggingface birds --split train --out birds.jsonl
    """
    from pathweave.datasets import convert as conversion
    from pathweave.display import Display

    options = {"split": split, "evaluation": evaluation, "media": media, "modality": modality,
               "licence": licence, "every_caption": every_caption, "label": label,
               "question": question}  # fmt: skip
    display = Display(quiet=as_json)
    coverage, fields = conversion.convert(kind, source, out, seed, display, **options)
    listed = conversion.problems_file(out)
    problems = str(listed) if listed.exists() else None
    if as_json:
        result = {**coverage.model_dump(), "manifest": str(out), "problems": problems}
        typer.echo(json.dumps({**result, "test_set": fields}, ensure_ascii=False))
        return
    typer.echo(f"{out}: {coverage} samples" + (f"; the others: {problems}" if problems else ""))
    if fields:
        shown = ", ".join(f"{name}: {value}" for name, value in fields.items())
        typer.echo(f"in a recipe: {{manifest: {out}, {shown}}}")


@data_app.command()
def stream(  # noqa: PLR0913 (all are options of one command)
    name: Annotated[str, typer.Argument(help="Data set on the Hugging Face hub, or a directory.")],
    split: Annotated[str, typer.Option(help="Part of the data set.")],
    out: Annotated[Path, typer.Option(help="Directory of the tar shards.")],
    config: Annotated[
        str | None, typer.Option(help="Configuration, where there are several.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="Type of all media; by default that of their column.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of answers.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What is asked about every row.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the media.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Write a stream of datasets as tar shards, which are a manifest; needs the extra stream.

    The same command goes on exactly where one was stopped.

    Example: pathweave data stream me/birds --split train --out birds --modality image
    """
    from pathweave.datasets.stream import Streamed, write_stream

    asked = Streamed(name, split, config, modality, label, question, licence)
    done = write_stream(asked, out, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(done))
        return
    last = f"; the last: {done['reason']}" if done["unusable"] else ""
    typer.echo(f"{done['samples']:,} samples, {done['unusable']:,} unusable{last}")
    typer.echo(f"manifest: {done['manifest']}")
