"""What the documents claim, executed."""

import ast
import importlib
import re
import shutil
from pathlib import Path

import pytest
import yaml

from pathweave.evaluate.results import Results
from scripts import mcl_verdict
from scripts.readme_results import with_results
from tests import whole_runs as runs

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/mcl-mini/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_every_symbol_of_the_paper_map_exists():
    symbols = set(
        re.findall(
            r"`(pathweave\.[\w.]+)`", (ROOT / "docs/paper_map.md").read_text(encoding="utf-8")
        )
    )
    assert len(symbols) > 15
    for symbol in symbols:
        parts = symbol.split(".")
        for split in range(len(parts), 0, -1):
            try:
                value = importlib.import_module(".".join(parts[:split]))
                break
            except ModuleNotFoundError:
                continue
        for name in parts[split:]:
            value = getattr(value, name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_file_named_in_a_document_exists(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (document.parent / target).exists(), target
    for test in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / test).exists(), test


def test_the_results_in_the_readme_are_those_of_the_stored_run():
    results = Results.load(ROOT / "docs/results/mcl_mini.json")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_results(readme, results) == readme


def test_what_comes_out_is_what_the_stored_reports_hold():
    page = (ROOT / "docs/mcl.md").read_text(encoding="utf-8")
    grids = {
        name: mcl_verdict.read(ROOT / f"docs/results/{file}.csv")
        for name, file in mcl_verdict.GRIDS.items()
    }
    assert mcl_verdict.with_table(page, grids) == page
    # A difference of T in the table is what both methods' means differ by.
    rows = grids["grid"]
    for kind in mcl_verdict.KINDS:
        own, other = (float(rows[m, "T", kind]["value"]) for m in ("pathweave", "sequential"))
        shown = mcl_verdict.difference(rows["sequential", "T", kind])
        assert float(shown.split(" ")[0]) == pytest.approx(own - other, abs=0.5)


def test_the_commands_of_the_readme_exist():
    from typer.testing import CliRunner

    from pathweave.cli import app

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = set(re.findall(r"^pathweave (\w+)", readme, re.MULTILINE))
    assert commands >= {"ask", "inspect", "verify", "evaluate"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    for target in re.findall(r"^make (\w+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.fixture(scope="module")
def as_documented(tmp_path_factory, shared_home):
    """A directory in which the Python of the documents can be typed: a small run, and its media."""
    root = tmp_path_factory.mktemp("documents")
    recipe = runs.write_recipe(root / "sensors", "image", "audio", "depth", "point_cloud")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHWEAVE_HOME", str(shared_home))
        out = root / "runs" / "mcl_mini"
        assert runs.command("evolve", recipe, "--out", out, "--json") == 0
    (root / "examples").mkdir()
    files = {"audio": "organ.ogg", "depth": "chair.png", "point_cloud": "desk.npy"}
    for name, file in files.items():
        # The invented sensors read arrays; the real examples are asked about in the slow suite.
        shutil.copy(root / "sensors" / f"{name}-test-0.npy", root / "examples" / file)
    (root / "data").symlink_to(ROOT / "data")
    return root


def _python(document):
    return re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if _python(d)], ids=lambda d: f"{d.parent.name}/{d.name}"
)
def test_the_python_of_a_document_runs_as_it_stands(document, as_documented, home, monkeypatch):
    monkeypatch.chdir(as_documented)
    for block in _python(document):
        if "from datasets" in block:  # no part of any extra
            pytest.importorskip("datasets", reason="the library datasets is not installed")
        exec(compile(block, document.name, "exec"), {})


def test_the_readme_asks_and_prints_an_answer_for_each_question(
    as_documented, home, monkeypatch, capsys
):
    monkeypatch.chdir(as_documented)
    (block,) = _python(ROOT / "README.md")
    for _ in range(2):  # `pathweave.load` is the function the second time too
        exec(compile(block, "README.md", "exec"), {})
        answers = ast.literal_eval(capsys.readouterr().out)
        assert len(answers) == 2
        assert all(isinstance(answer, str) for answer in answers)


def test_yaml_blocks_parse():
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
            assert yaml.safe_load(block)


def test_no_machine_path_in_what_is_shipped():
    for file in [*ROOT.glob("recipes/**/*.yaml"), *DOCUMENTS, *ROOT.glob("pathweave/**/*.py")]:
        assert not re.search(
            r"(?<![\w.])/(work|root|home|tmp)/\w", file.read_text(encoding="utf-8")
        ), file
