"""Test every version that is claimed: each Python, and the lowest and newest dependencies.

    python scripts/versions.py                          # all combinations that this machine has
    python scripts/versions.py 3.12-newest 3.11-lowest  # some of them
    python scripts/versions.py --list

``newest`` installs what pip chooses; ``lowest`` the least version that pyproject.toml allows of
every dependency, with the lowest Python. Each combination gets an environment of its own in
``--envs`` and runs the everyday tests there. The exit code is 1 if one fails. An environment is
some gigabytes where PyTorch comes as a build for GPUs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("sound", "clip", "mesh", "report", "mini", "peft")
MINIMUM = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([\w.]+)")


def lowest(pyproject: dict[str, object]) -> list[str]:
    """Return a pin to the stated minimum of every dependency that the tests use.

    Example:
        >>> lowest({"project": {"dependencies": ["numpy>=1.26", "torch"]}})
        ['numpy==1.26']
    """
    project = pyproject["project"]
    assert isinstance(project, dict)
    extras = project.get("optional-dependencies", {})
    stated = [*project["dependencies"], *(line for e in EXTRAS for line in extras.get(e, ()))]
    found = (MINIMUM.match(line) for line in stated)
    return [f"{match[1]}=={match[2]}" for match in found if match]


def combinations() -> dict[str, str]:
    """Return the interpreters that this machine has, by combination."""
    found = {version: shutil.which(f"python{version}") for version in PYTHONS}
    here = {version: path for version, path in found.items() if path and _starts(path)}
    if not here:
        raise SystemExit(f"one of Python {', '.join(PYTHONS)} must be on the PATH, got none")
    oldest = min(here, key=PYTHONS.index)
    newest = {f"{version}-newest": path for version, path in here.items()}
    return newest | {f"{oldest}-lowest": here[oldest]}


def _starts(path: str) -> bool:
    """Return whether a command runs: those of version managers may only stand for one."""
    return subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0


def test(name: str, interpreter: str, envs: Path, torch: str | None) -> bool:
    """Install a combination, run the everyday tests with it, and return whether they pass."""
    env = envs / name
    python = env / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", env], check=True)
    pins = env / "pins.txt"
    with (ROOT / "pyproject.toml").open("rb") as file:
        stated = lowest(tomllib.load(file)) if name.endswith("-lowest") else []
    pins.write_text("\n".join(stated) + "\n", encoding="utf-8")
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(pins)]
    torch = torch or next((pin for pin in stated if pin.startswith("torch==")), "torch")
    for wanted in ([torch], ["--editable", f"{ROOT}[dev]"]):
        if subprocess.run([*install, *wanted], check=False).returncode:
            return False
    line = [str(python), "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile"]
    if stated:  # old versions warn of newer ones, and check shapes in another way
        line += ["-o", "filterwarnings=default", "-o", "addopts=-m 'not slow and not unchecked'"]
    return subprocess.run(line, cwd=ROOT, check=False).returncode == 0


def main() -> None:
    """Test the combinations and print which of them pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="combinations; all by default")
    parser.add_argument("--envs", type=Path, default=ROOT / "runs" / "versions")
    parser.add_argument("--torch", help="what to install as PyTorch, such as torch==2.13.0")
    parser.add_argument("--list", action="store_true", help="print the combinations")
    options = parser.parse_args()
    known = combinations()
    if options.list:
        print("\n".join(known))
        return
    if wrong := [name for name in options.names if name not in known]:
        raise SystemExit(f"combinations are {', '.join(known)}, got {wrong[0]}")
    passed = {
        name: test(name, known[name], options.envs, options.torch)
        for name in options.names or known
    }
    print("\n".join(f"{name}: {'passed' if ok else 'FAILED'}" for name, ok in passed.items()))
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
