"""Getting files from the Hugging Face hub."""

import shutil
import urllib.error
import urllib.request
from pathlib import Path

from pathweave.bases.manifest import HubSource
from pathweave.bases.progress import Report
from pathweave.bases.wheel import UnavailableError


def download_files(name: str, source: HubSource, out: Path, report: Report) -> str:
    """Copy the files of ``source`` to ``out`` and return the commit they are from.

    Raises:
        UnavailableError: If the hub cannot be reached or has no such file.
    """
    # Importing the client takes longer than finding weights that are already there.
    from huggingface_hub import constants, hf_hub_download

    # Without a connection the client would try again for half a minute, for each file.
    is_offline = not _is_reachable(constants.ENDPOINT)
    commit = ""
    for index, file in enumerate(source.files):
        done = source.num_bytes * index // len(source.files)
        report(name, "downloading", done, source.num_bytes)
        try:
            cached = Path(hf_hub_download(source.repository, file, local_files_only=is_offline))
        # The client raises errors of its own, of its HTTP library and of the system.
        except Exception as error:
            first_line = str(error).strip().split("\n")[0]
            reason = "no connection" if is_offline else first_line or type(error).__name__
            raise UnavailableError(
                f"{source.repository}/{file} cannot be downloaded from the hub ({reason}); connect "
                "to the hub and run the same command again"
            ) from error
        # The client's cache is .../snapshots/<commit>/<file>.
        commit = cached.parents[len(Path(file).parts) - 1].name
        shutil.copyfile(cached, out / Path(file).name)
    return commit


def _is_reachable(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:  # an answer, if not a friendly one
        return True
    except OSError:
        return False
