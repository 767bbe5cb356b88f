"""Repositories of packs: the Hugging Face hub, or a directory, one path with its card in each.

What is pulled is pinned: its hash is kept beside it, and another file under the same name is
refused from then on.
"""

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathweave.bases.hub import is_hub_id, is_reachable
from pathweave.errors import FetchError, PathError
from pathweave.runs.run_directory import RunDirectory
from pathweave.share.model_card import CARD, model_card
from pathweave.share.origin import pack
from pathweave.share.pack import SUFFIX, Pack
from pathweave.storage.atomic import new_file, read_json, sha256_file, write_json
from pathweave.storage.bundle import SHOWN


@dataclass(frozen=True)
class Pushed:
    """A path in a repository.

    Attributes:
        repository: The repository.
        file: Name of the pack in it.
        sha256: Hash of the pack.
        revision: Commit of the hub; None of a directory.
    """

    repository: str
    file: str
    sha256: str
    revision: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def push(
    root: Path,
    name: str,
    repository: str,
    alone: bool = False,
    licence: str = "other",
    public: bool = False,
) -> Pushed:
    """Pack a path of a run and put it into a repository, with a model card.

    Args:
        root: Directory of the run.
        name: The path.
        repository: A directory (one that exists, or that starts with ``.``, ``/`` or ``~``), or an
            id of the hub, ``owner/name``.
        alone: See ``pack``.
        licence: Licence of the path, as the hub names it, such as ``apache-2.0``.
        public: Whether everyone may see a repository that is made on the hub by this.

    Raises:
        PathError: See ``pack``; or if the repository holds another path.
        FetchError: If the hub cannot be reached or refuses.
        DiskError: If something cannot be written.
    """
    file = name + SUFFIX
    with tempfile.TemporaryDirectory() as made:
        staging = Path(made)
        contents = pack(root, name, staging / file, alone)
        hash_ = sha256_file(staging / file)
        card = model_card(RunDirectory(root), contents, repository, licence)
        (staging / CARD).write_text(card, encoding="utf-8")
        if (directory := _directory(repository)) is not None:
            _check_free(repository, _packs(_names(directory)), file)
            for each in (file, CARD):
                with new_file(directory / each) as temporary:
                    shutil.copyfile(staging / each, temporary)
            return Pushed(repository, file, hash_)
        try:
            from huggingface_hub import HfApi

            api = HfApi()
            api.create_repo(repository, private=not public, exist_ok=True)
            _check_free(repository, _packs(api.list_repo_files(repository)), file)
            commit = api.upload_folder(
                repo_id=repository, folder_path=staging, commit_message=f"Path {name}"
            )
        except PathError:
            raise
        # The client raises errors of its own, of its HTTP library and of the system.
        except Exception as error:
            raise _hub_error(repository, "take this path", error) from error
    return Pushed(repository, file, hash_, commit.oid)


def pull(repository: str, out: Path, revision: str | None = None) -> Pushed:
    """Get the pack of a repository, check it whole, and keep its hash beside it.

    Args:
        repository: See ``push``.
        out: Directory to put it into.
        revision: Commit, branch or tag on the hub; None is the newest.

    Raises:
        PathError: If the repository does not hold one pack, or a damaged one, or another than was
            pulled into this directory before.
        FetchError: If the hub cannot be reached, or has no such repository.
        DiskError: If it cannot be written.
    """
    if (directory := _directory(repository)) is not None:
        commit, source = None, directory / _only(repository, _names(directory))
    else:
        try:
            from huggingface_hub import HfApi

            api = HfApi()
            commit = api.model_info(repository, revision=revision).sha
            file = _only(repository, _packs(api.list_repo_files(repository, revision=commit)))
            source = Path(api.hf_hub_download(repository, file, revision=commit))
        except PathError:
            raise
        # The client raises errors of its own, of its HTTP library and of the system.
        except Exception as error:
            raise _hub_error(repository, "give a path", error) from error
    Pack(source).check()
    pulled = Pushed(repository, source.name, sha256_file(source), commit)
    target = out / source.name
    pin = target.with_name(f"{source.name}.json")
    rule, remedy = (
        f"{pin} must hold a pin of pathweave pull",
        f"remove it to take {source.name} anew",
    )
    known = read_json(pin, rule, remedy, PathError).get("sha256") if pin.exists() else None
    if known is None and target.exists():
        known = sha256_file(target)
    if known not in (None, pulled.sha256):
        raise PathError(
            f"{source.name} of {repository} must be sha256 {str(known)[:SHOWN]}..., as it is in "
            f"{out}, got {pulled.sha256[:SHOWN]}...; choose another directory, or remove "
            f"{target} and {pin.name} to take it anew"
        )
    with new_file(target) as temporary:
        shutil.copyfile(source, temporary)
    write_json(pin, pulled.as_json())
    return pulled


def _directory(repository: str) -> Path | None:
    """Return the directory that a repository is; None is one of the hub.

    Raises:
        PathError: If it is neither.
    """
    directory = Path(repository).expanduser()
    if directory.is_dir() or repository.startswith((".", "/", "~")):
        return directory
    if is_hub_id(repository):
        return None
    raise PathError(
        f"a repository must be a directory or an id of the hub (owner/name), got {repository!r}; "
        f"write a new directory as ./{repository}"
    )


def _names(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir()] if directory.is_dir() else []


def _packs(files: list[str]) -> list[str]:
    return sorted(file for file in files if file.endswith(SUFFIX) and "/" not in file)


def _only(repository: str, files: list[str]) -> str:
    packs = _packs(files)
    if len(packs) != 1:
        raise PathError(
            f"{repository} must hold one path (*{SUFFIX}), got {packs or 'none'}; name the "
            "repository that pathweave push wrote to"
        )
    return packs[0]


def _check_free(repository: str, held: list[str], file: str) -> None:
    if other := sorted({*held} - {file}):
        raise PathError(
            f"a repository must hold one path, got {other[0]} in {repository} already; choose "
            f"another repository for {file}"
        )


def _hub_error(repository: str, what: str, error: Exception) -> FetchError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if not is_reachable():
        reason = "no connection"
    return FetchError(
        f"{repository} on the hub must {what}, got: {reason}; connect to the hub and log in (hf "
        "auth login), or use a directory as the repository"
    )
