"""What the documents claim, executed."""

import ast
import importlib
import itertools
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from pathweave.cli import app
from pathweave.cli.ask import parse_words
from pathweave.evaluate.results import Results
from pathweave.methods.settings import Training
from pathweave.recipe.schema import Modality, Recipe, TestSet
from scripts import mcl_verdict, reference_pages
from scripts.readme_results import with_results
from tests import whole_runs as runs

ROOT = Path(__file__).parents[1]
BESIDE = ("README.md", "CONTRIBUTING.md", "data/mcl-mini/README.md", "examples/README.md")
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [*(ROOT / name for name in BESIDE), *PAGES]
COMMAND = re.compile(r" {4,}(\S+=\S+ )*(pathweave|make|python|accelerate|torchrun|cp) ")
MADE = {"commands": reference_pages.commands, "recipe": reference_pages.recipe}


def named(document):
    return document.relative_to(ROOT).as_posix()


def anchors(text):
    """The places in a page that a link may lead to, as GitHub and the site name them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\s-]", "", words).strip().replace(" ", "-")
        again = (f"{name}-{number}" for number in itertools.count(1))
        found.add(name if name not in found else next(a for a in again if a not in found))
    return found


def command_lines(text):
    """The words of every command in blocks of shell, fenced or indented."""
    fence, blocks = None, []
    for line in text.splitlines():
        if mark := re.match(r"\s*```(\w*)", line):
            fence = mark[1] if fence is None else None
        elif fence in ("bash", "sh") or (
            fence is None and (COMMAND.match(line) or (blocks and blocks[-1].endswith("\\")))
        ):
            blocks.append(line)
    for line in "\n".join(blocks).replace("\\\n", "").splitlines():
        words = itertools.dropwhile(lambda word: "=" in word, shlex.split(line, comments=True))
        for is_end, command in itertools.groupby(words, lambda word: word in ("&&", "|")):
            if not is_end:
                yield list(command)


def find_command(words):
    """The context of the command that words name, and the words after its name."""
    command, context, rest = get_command(app), None, list(words)
    while hasattr(command, "commands"):
        context = command.context_class(command, info_name="pathweave", parent=context)
        name = rest.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"there is no command {name!r}"
    return command.context_class(command, info_name=name, parent=context), rest


def understand(words):
    """Parse a command line as the program does, and run nothing."""
    context, rest = find_command(words)
    parsed = context.command.make_context(context.info_name, rest, parent=context.parent)
    if context.info_name == "ask":
        parse_words(parsed.params["words"], has_run=parsed.params["base"] is None)


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_file_and_place_that_a_document_links_to_exists(document):
    text = document.read_text(encoding="utf-8")
    for label, target, anchor in re.findall(r"\[([^\]]*)\]\(([^)\s:#]*)(?:#([^)\s]+))?\)", text):
        file = (document.parent / target).resolve() if target else document
        if file.parent == ROOT / "docs/reference" and file.stem in MADE:
            headings = MADE[file.stem]()
        else:
            assert file.exists(), target
            headings = file.read_text(encoding="utf-8") if file.suffix == ".md" else ""
        if anchor:
            assert anchor in anchors(headings), f"{target}#{anchor}"
        if file.suffix == ".py" and (name := re.fullmatch(r"`(?:\w+\.)*(\w+)`", label)):
            code = file.read_text(encoding="utf-8")
            assert re.search(rf"^ *(def|class) {name[1]}\b", code, re.MULTILINE), label
    for test in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / test).exists(), test


def test_anchors_are_those_of_the_headings():
    text = "# A b, `c_d`: e\n```sh\n# no\n```\n## A b, `c_d`: e\n### [Link](x.md)s\n"
    assert anchors(text) == {"a-b-c_d-e", "a-b-c_d-e-1", "links"}


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"^ +- .*?([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES}
    made = {f"reference/{name}.md" for name in MADE}
    assert sorted(listed) == sorted({page for page in pages if "results" not in page} | made)


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


def test_the_readme_has_two_commands_that_do_everything():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"evolve", "test"} <= set(re.findall(r"^make (\w+)", readme, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_command_line_of_a_document_is_understood(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in command_lines(document.read_text(encoding="utf-8")):
        if "pathweave.cli" in words:
            words = ["pathweave", *words[words.index("pathweave.cli") + 1 :]]
        if words[0] == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), words
        elif words[:2] == ["python", "-m"] and words[2].startswith("scripts."):
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), words
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), words
        elif words[0] == "pathweave":
            understand(words[1:])
        for word in words:
            if re.match(r"(recipes|examples|benchmarks)/[\w./-]+$|data/mcl-mini/[\w./-]+$", word):
                assert (ROOT / word).exists(), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_command_and_option_named_in_a_sentence_exists(document):
    text = document.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for named in re.findall(r"`pathweave ([a-z][^`]*)`", prose):
        words = named.split()
        context, rest = find_command(words)
        known = {option for each in context.command.params for option in each.opts}
        for word in rest:
            option = word.partition("=")[0]
            if option.startswith("--") and context.info_name != "ask":
                assert option in known, named


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("evolve recipe.yaml", "Missing parameter: out"),
        ("evolve recipe.yaml --out DIR --steps 3", "No such option"),
        ("data chek ROOT", "no command"),
        ("ask RUN --depth", "must be followed by a file"),
        ("curve recipe.yaml --out DIR", "Missing parameter: samples"),
    ],
)
def test_a_command_line_that_is_wrong_is_told(line, message):
    with pytest.raises(Exception, match=message):
        understand(line.split())


def test_command_lines_are_found_in_blocks_and_nowhere_else():
    text = (
        "pathweave in prose\n\n    pathweave a 'b c'  # why\n\n```bash\npathweave d \\\n  e\n```\n"
        "    N=1 make x && pathweave f\n\n    it's a list\n\n```yaml\n    pathweave: no\n```\n"
    )
    commands = ["pathweave", "a", "b c"], ["pathweave", "d", "e"], ["make", "x"], ["pathweave", "f"]
    assert tuple(command_lines(text)) == commands


def test_every_command_and_field_is_on_a_page_of_the_reference():
    commands, recipe = reference_pages.commands(), reference_pages.recipe()
    for name in ("evolve", "ask", "data convert", "modality new"):
        assert f"## pathweave {name}\n" in commands
    assert "pathweave mcl" not in commands  # an older name, hidden
    assert "- `--dry-run`:" in commands
    for model in (Recipe, Modality, TestSet, Training):
        for field, about in model.model_fields.items():
            assert f"| `{field}` |" in recipe
            assert about.description.replace("|", "\\|") in recipe
    assert "| `seed` | integer >= 0 | `0` | Seed of everything random. |" in recipe


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


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if _python(d)], ids=named)
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
