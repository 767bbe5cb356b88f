"""Build the sdist and the wheel of a release and check all that users will get. Uploads nothing.

    python scripts/release.py                # builds into dist/, prints a table of checks

The wheel is made from the sdist, installed outside the repository with the dependencies of this
environment, and learns, verifies and answers there. The exit code is 1 if a check fails. Needs the
extra ``dev``, and the weights of the small base in the cache or a network.
"""

import argparse
import email.parser
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet
from packaging.metadata import Metadata
from rich.box import SIMPLE_HEAD
from rich.console import Console

from pathweave.display import WholeTable

ROOT = Path(__file__).parents[1]
SHIPPED = ("recipes", "data/mcl-mini", "examples")  # in pathweave/shipped of the wheel
LICENCES = ("LICENSE", "NOTICE", "data/mcl-mini/LICENSES.md", "data/mcl-mini/LICENSES")
LARGEST = 100_000_000  # bytes of a file that PyPI takes
VERSION = re.compile(r"^## \[([^]]+)\](?: - (\d{4}-\d\d-\d\d))?", re.MULTILINE)
FEW = {
    "curriculum": "[image, audio]",
    "limit": "16",
    "evaluation.subset": "4",
    "modalities.image.training.steps": "2",
    "modalities.image.training.warmup": "1",
    "modalities.audio.training.steps": "2",
    "training.warmup": "1",
}


class RefusedError(Exception):
    """A check that failed: the rule and what was found."""


def refuse_unless(fits: object, rule: str, found: object) -> None:
    """Raise ``RefusedError`` unless a rule holds."""
    if not fits:
        raise RefusedError(f"{rule}, got {found}")


def run(*words: str | Path, cwd: Path = ROOT, typed: str = "") -> str:
    """Run a program, apart from packages on PYTHONPATH, and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=cwd, env=environment, input=typed, capture_output=True, encoding="utf-8"
    )
    said = " ".join((done.stderr or done.stdout).split())[-300:]
    refuse_unless(not done.returncode, f"{Path(words[0]).name} {words[1]} must succeed", said)
    return done.stdout


def check_tree() -> str:
    """Check that the working tree holds what is committed and nothing else."""
    changed = run("git", "status", "--porcelain").splitlines()
    refuse_unless(not changed, "all files must be committed", ", ".join(changed[:5]))
    return run("git", "rev-parse", "--short", "HEAD").strip()


@dataclass(frozen=True)
class Release:
    """What was built, and the checks of it.

    Attributes:
        sdist: The source distribution.
        wheel: The wheel.
        files: Content of the wheel's files, by name.
    """

    sdist: Path
    wheel: Path
    files: dict[str, bytes]

    def check_size(self) -> str:
        """Check that the files are not too large to be uploaded."""
        sizes = {file.name: file.stat().st_size for file in (self.sdist, self.wheel)}
        refuse_unless(max(sizes.values()) < LARGEST, f"files must have under {LARGEST} B", sizes)
        return ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())

    @property
    def metadata(self) -> bytes:
        """Return the metadata in the wheel."""
        return next(data for name, data in self.files.items() if name.endswith("/METADATA"))

    @property
    def version(self) -> str:
        """Return the version in the metadata."""
        return str(email.parser.BytesParser().parsebytes(self.metadata)["Version"])

    def check_version(self) -> str:
        """Check that the change log begins with this version and its date."""
        newest = VERSION.search((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
        found = newest.groups() if newest else None
        rule = f"CHANGELOG.md must begin with {self.version} and a date"
        refuse_unless(found and found[0] == self.version and found[1], rule, found)
        return f"{self.version}, {found[1] if found else None}"

    def check_sdist(self) -> str:
        """Check that the sdist holds the package and what ships with it, and nothing else."""
        with tarfile.open(self.sdist) as archive:
            found = {name.partition("/")[2] for name in archive.getnames()}
        own = {"CHANGELOG.md", "LICENSE", "NOTICE", "README.md", "pyproject.toml", ".gitignore"}
        _refuse_difference(found, {*shipped_files().values(), *own, "PKG-INFO"})
        return f"{len(found)} files"

    def check_wheel(self) -> str:
        """Check that the wheel holds the same, byte for byte, and its licences."""
        about = f"pathweave-{self.version}.dist-info"
        expected = shipped_files() | {
            f"{about}/licenses/{file}": file for file in tracked(*LICENCES)
        }
        made = {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
        _refuse_difference(self.files, {*expected, *made})
        other = [n for n, file in expected.items() if self.files[n] != (ROOT / file).read_bytes()]
        refuse_unless(not other, "files must be those of the repository", ", ".join(other[:5]))
        return (
            f"{len(self.files)} files, {sum(map(len, self.files.values())) / 1e6:.1f} MB unpacked"
        )

    def check_data(self) -> str:
        """Check the benchmark against its list of hashes."""
        data = "pathweave/shipped/data/mcl-mini/"
        listed = json.loads(self.files[f"{data}checksums.json"])
        tables = {n.removeprefix(data) for n in self.files if n.endswith(".parquet")}
        _refuse_difference(tables, {name for name in listed if name.endswith(".parquet")})
        for name, expected in listed.items():
            found = hashlib.sha256(self.files[data + name]).hexdigest()
            refuse_unless(found == expected, f"{name} must have sha256 {expected}", found)
        return f"{len(listed)} files by their hashes"

    def check_metadata(self) -> str:
        """Check the metadata by their specification, and the licences of all media."""
        metadata = Metadata.from_email(self.metadata, validate=True)
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        refuse_unless(metadata.description == readme, "the description must be README.md", "other")
        named = str(metadata.license_expression).split(" AND ")
        media = [data for name, data in self.files.items() if name.endswith("/media.parquet")]
        used = {
            licence
            for data in media
            for licence in pyarrow.parquet.read_table(io.BytesIO(data))["licence"].to_pylist()
        }
        missing = {name for name in used if not {name, f"LicenseRef-{name}"} & {*named}}
        refuse_unless(media and not missing, "license must name those of all media", missing)
        return f"{len(metadata.requires_dist or ())} requirements, {len(named)} licences"

    def check_installed(self, place: Path) -> str:
        """Check that an installed package says its version and finds what it carries."""
        program = install(self.wheel, place)
        said = run(program, "--version", cwd=place).strip()
        refuse_unless(said == f"pathweave {self.version}", f"it must say {self.version}", said)
        found = json.loads(run(program, "recipes", "--json", cwd=place))
        strange = [r["file"] for r in found if not Path(r["file"]).is_relative_to(place / "env")]
        refuse_unless(found and not strange, "recipes must be those installed", strange)
        return f"{len(found)} recipes and grids"

    def check_running(self, place: Path) -> str:
        """Check that it learns two modalities from its own data, forgets none, and answers."""
        program = place / "env" / "bin" / "pathweave"
        few = [word for name, value in FEW.items() for word in ("--set", f"{name}={value}")]
        run(program, "evolve", "mcl_mini", "--quick", *few, "--out", "run", "--json", cwd=place)
        verified = json.loads(run(program, "verify", "run", "--json", cwd=place))
        refuse_unless(all(each["identical"] for each in verified), "paths must be kept", verified)
        (sound,) = place.glob("env/lib/*/site-packages/pathweave/shipped/examples/organ.ogg")
        question = "What makes this sound?"
        words = ("ask", "run", "--audio", sound, question, "--json")
        answer = json.loads(run(program, *words, cwd=place))["answer"]
        typed = f"/audio {sound}\n{question}\n"
        talk = run(program, "chat", "run", "--max-tokens", "8", cwd=place, typed=typed)
        refuse_unless(len(talk.splitlines()) > 1, "chat must show the sound and answer", talk)
        return f"{len(verified)} proofs hold, the answer is {answer!r:.40}"


def build(out: Path) -> Release:
    """Build the sdist, and the wheel from what is in it, into a directory."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        source, made = Path(work, "source"), Path(work, "made")
        hatchling = (sys.executable, "-m", "hatchling", "build", "-d", made, "-t")
        run(*hatchling, "sdist")
        (sdist,) = made.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(source, filter="data")
        run(*hatchling, "wheel", cwd=next(source.iterdir()))
        (wheel,) = made.glob("*.whl")
        sdist, wheel = (Path(shutil.copy(file, out)) for file in (sdist, wheel))
    with zipfile.ZipFile(wheel) as archive_of_wheel:
        files = {name: archive_of_wheel.read(name) for name in archive_of_wheel.namelist()}
    return Release(sdist, wheel, files)


def tracked(*places: str) -> list[str]:
    """Return the files of the repository under some places; new ones too, ignored ones not."""
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", "--", *places)
    return [file for file in listed.split("\0") if (ROOT / file).is_file()]


def shipped_files() -> dict[str, str]:
    """Return the files that a wheel carries: the name in it, and that in the repository."""
    beside = [f for f in tracked(*SHIPPED) if not f.startswith("recipes/sensors")]
    package = {file: file for file in tracked("pathweave")}
    return package | {f"pathweave/shipped/{file}": file for file in beside}


def _refuse_difference(found: "dict[str, bytes] | set[str]", expected: set[str]) -> None:
    for what, names in (("no", expected - {*found}), ("a foreign", {*found} - expected)):
        refuse_unless(
            not names, "files must be those of the repository", f"{what} {sorted(names)[:5]}"
        )


def install(wheel: Path, place: Path) -> Path:
    """Install a wheel in a new environment under ``place`` and return the program.

    Its dependencies are those of this environment, so nothing is downloaded.
    """
    env = place / "env"
    run(sys.executable, "-m", "venv", "--without-pip", env)
    pip = (sys.executable, "-m", "pip", "--python", env / "bin" / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--no-compile", wheel.resolve(), cwd=place)
    (site,) = env.glob("lib/*/site-packages")
    here = "\n".join(path for path in sys.path if path.endswith("-packages"))
    (site / "dependencies.pth").write_text(f"{here}\n", encoding="utf-8")
    return env / "bin" / "pathweave"


def main() -> None:
    """Build, check and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go")
    release = build(parser.parse_args().out)
    table = WholeTable("check", "", "found", box=SIMPLE_HEAD)
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        place = Path(work).resolve()
        checks: dict[str, Callable[[], str]] = {
            "everything is committed": check_tree,
            "the change log begins with the version": release.check_version,
            "the sdist holds what it should": release.check_sdist,
            "the wheel holds what it should": release.check_wheel,
            "both can be uploaded": release.check_size,
            "the data are whole": release.check_data,
            "metadata and licences": release.check_metadata,
            "it is installed elsewhere": partial(release.check_installed, place),
            "it learns, verifies and answers": partial(release.check_running, place),
        }
        for name, check in checks.items():
            try:
                table.add_row(name, "ok", check())
            except Exception as error:  # a check that cannot be made has failed too
                table.add_row(name, "FAILED", f"{error or type(error).__name__}")
                failed += 1
    Console().print(table, crop=False)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
