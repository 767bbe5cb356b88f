"""Getting files from the Hugging Face hub."""

import re
import shutil
import urllib.error
import urllib.request
from fnmatch import fnmatch
from pathlib import Path

from pathweave.bases.progress import Report
from pathweave.bases.weights_manifest import HubSource
from pathweave.bases.wheel import UnavailableError
from pathweave.errors import FetchError

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt")
SAFE, PICKLED = "model*.safetensors", "pytorch_model*.bin"
_FILE_SUFFIXES = (".bin", ".ckpt", ".json", ".pt", ".pth", ".safetensors")


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a model of the hub, ``owner/name``, and not of a file.

    Example:
        >>> is_hub_id("Salesforce/instructblip-vicuna-7b"), is_hub_id("weights/eva_vit_g.pth")
        (True, False)
    """
    return bool(_ID.fullmatch(name)) and not name.endswith(_FILE_SUFFIXES)


def is_remote(name: str) -> bool:
    """Return whether a name is the id of a model of the hub and of nothing local."""
    return is_hub_id(name) and not Path(name).exists()


def download_files(name: str, source: HubSource, out: Path, report: Report) -> str:
    """Copy the files of ``source`` to ``out`` and return the commit they are from.

    Raises:
        UnavailableError: If the hub cannot be reached or has no such file.
    """
    # Importing the client takes longer than finding weights that are already there.
    from huggingface_hub import hf_hub_download

    # Without a connection the client would try again for half a minute, for each file.
    is_offline = not is_reachable()
    commit = ""
    for index, file in enumerate(source.files):
        done = source.num_bytes * index // len(source.files)
        report(name, "downloading", done, source.num_bytes)
        try:
            cached = Path(hf_hub_download(source.repository, file, local_files_only=is_offline))
        # The client raises errors of its own, of its HTTP library and of the system.
        except Exception as error:
            raise UnavailableError(
                f"{source.repository}/{file} cannot be downloaded from the hub "
                f"({_reason(error, is_offline)}); connect to the hub and run the same command again"
            ) from error
        # The client's cache is .../snapshots/<commit>/<file>.
        commit = cached.parents[len(Path(file).parts) - 1].name
        shutil.copyfile(cached, out / Path(file).name)
    return commit


def snapshot(repository: str) -> Path:
    """Return the directory of a model of the hub, downloading what is missing of it.

    Only settings, tokenizers and weights are taken; weights as safetensors where there are any.

    Args:
        repository: Its id, ``owner/name``.

    Raises:
        UnavailableError: If the hub cannot be reached or has no such model, and no copy is here.
    """
    from huggingface_hub import HfApi, snapshot_download

    is_offline = not is_reachable()
    try:
        if is_offline:
            return Path(snapshot_download(repository, local_files_only=True))
        files = HfApi().list_repo_files(repository)
        weights = SAFE if any(fnmatch(file, SAFE) for file in files) else PICKLED
        return Path(snapshot_download(repository, allow_patterns=[*SETTINGS, weights]))
    # The client raises errors of its own, of its HTTP library and of the system.
    except Exception as error:
        raise UnavailableError(
            f"{repository} must be a directory or a model of the hub that can be downloaded, got "
            f"neither ({_reason(error, is_offline)}); connect to the hub, or place config.json, "
            f"the tokenizer's files and {SAFE} (with the index, if there are shards) in a "
            "directory and name that"
        ) from error


def local_directory(name: str) -> Path:
    """Return the directory of a model: itself, or a whole copy in the hub's cache.

    Raises:
        FetchError: If neither is there; the network is not asked.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        if not is_remote(name):
            raise FileNotFoundError(name)
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, local_files_only=True))
    except FileNotFoundError as error:
        raise FetchError(
            f"{name} must be a directory, or in the cache of the Hugging Face hub, got neither; "
            "connect to the hub, from which the run fetches it, or put its files (config.json, "
            "model*.safetensors with the index, tokenizer or preprocessor_config.json) into a "
            "directory and name that"
        ) from error


def is_reachable() -> bool:
    """Return whether the hub answers; with HF_HUB_OFFLINE=1 it is not asked."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError:  # an answer, if not a friendly one
        return True
    except OSError:
        return False


def _reason(error: Exception, is_offline: bool) -> str:
    from huggingface_hub import constants

    if is_offline:
        return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "no connection"
    return str(error).strip().split("\n")[0] or type(error).__name__
