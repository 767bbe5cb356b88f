"""Fetching of media from foreign addresses: off unless hosts are allowed by name.

Each address is looked up, checked and asked by its number, so that a name cannot mean another
machine a moment later; so is each address that an answer redirects to.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

from pathweave.errors import MediaError
from pathweave.serve.openai_messages import RefusedError

MAX_REDIRECTS = 3
GLOBAL_IPV6 = IPv6Network("2000::/3")


async def look_up(host: str, port: int) -> list[str]:
    """Return the numbers of a machine.

    Raises:
        OSError: If it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_public(number: str) -> bool:
    """Return whether a number is that of a machine on the public internet.

    Example:
        >>> [is_public(n) for n in ("8.8.8.8", "10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1")]
        [True, False, False, False]
    """
    address = ip_address(number.partition("%")[0])
    if isinstance(address, IPv6Address):
        inside: IPv4Address | None = address.ipv4_mapped
        if inside is None:
            # Outside this block, and in these two kinds, a number may stand for one of IPv4.
            wrapped = address.sixtofour or address.teredo
            return address in GLOBAL_IPV6 and address.is_global and not wrapped
        address = inside
    return address.is_global and not address.is_multicast


class Fetcher:
    """Fetches media from hosts that are allowed.

    Args:
        hosts: Hosts that may be asked, ``name`` or ``name:port``; none switches fetching off.
        max_bytes: Most bytes of a medium.
        seconds: Longest time, redirects and all.
        look_up: Returns the numbers of a machine.
        transport: Makes what connects.
    """

    def __init__(
        self,
        hosts: Collection[str] = (),
        max_bytes: int = 64 << 20,
        seconds: float = 20.0,
        look_up: Callable[[str, int], Awaitable[list[str]]] = look_up,
        transport: Callable[[], httpx.AsyncBaseTransport] = httpx.AsyncHTTPTransport,
    ) -> None:
        self.hosts = frozenset(host.lower() for host in hosts)
        self.max_bytes, self.seconds = max_bytes, seconds
        self._look_up, self._transport = look_up, transport

    async def fetch(self, address: str, place: str) -> bytes:
        """Return the medium at an address.

        Args:
            address: The address.
            place: Where it stands, for messages.

        Raises:
            RefusedError: If the address is not allowed.
            MediaError: If there is no medium, or a larger or slower one than is allowed.
        """
        if not self.hosts:
            raise RefusedError(
                f"{place}: nothing is fetched by this server, got {address!r:.80}; send a data "
                "URI, or start it with --fetch HOST"
            )
        try:
            async with asyncio.timeout(self.seconds):
                return await self._follow(address, place)
        except TimeoutError:
            raise MediaError(
                f"{place} must be fetched within {self.seconds:g} s, got {address!r:.80} without "
                "an end; send a data URI"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            if isinstance(error, (MediaError, RefusedError)):
                raise
            raise MediaError(
                f"{place} must be there to be fetched, got {type(error).__name__} from "
                f"{address!r:.80}; send a data URI"
            ) from error

    async def _follow(self, address: str, place: str) -> bytes:
        async with httpx.AsyncClient(
            transport=self._transport(), trust_env=False, timeout=self.seconds
        ) as client:
            url = httpx.URL(address)
            for _ in range(MAX_REDIRECTS + 1):
                request = client.build_request(
                    "GET",
                    url.copy_with(host=await self._checked(url, place)),
                    headers={"host": url.netloc.decode(), "accept-encoding": "identity"},
                    extensions={"sni_hostname": url.host},
                )
                answer = await client.send(request, stream=True)
                try:
                    if not answer.has_redirect_location:
                        return await self._body(answer, url, place)
                    url = url.join(answer.headers["location"])
                finally:
                    await answer.aclose()
        raise MediaError(
            f"{place} must be at most {MAX_REDIRECTS} redirects away, got more from "
            f"{address!r:.80}; give its own address"
        )

    async def _checked(self, url: httpx.URL, place: str) -> str:
        """Return the number to ask for an address, if it may be asked."""
        port = {"http": 80, "https": 443}.get(url.scheme)
        if port is None or url.userinfo:
            raise RefusedError(
                f"{place}: an address must be http:// or https://, without a password, got "
                f"{str(url)!r:.80}; send a data URI"
            )
        host = url.host.lower()
        name = host if url.port is None else f"{host}:{url.port}"
        if name not in self.hosts:
            raise RefusedError(
                f"{place}: a host must be one of {sorted(self.hosts)}, got {name!r:.80}; send a "
                "data URI, or start the server with --fetch HOST"
            )
        numbers = await self._look_up(host, url.port or port)
        for number in numbers:
            if not is_public(number):
                raise RefusedError(
                    f"{place}: a host must be on the public internet, got {name!r:.80}, which is "
                    f"{number}; send a data URI"
                )
        return numbers[0]

    async def _body(self, answer: httpx.Response, url: httpx.URL, place: str) -> bytes:
        encoding = answer.headers.get("content-encoding", "identity")
        if answer.status_code != httpx.codes.OK or encoding != "identity":
            raise MediaError(
                f"{place} must be answered with 200 and plain bytes, got {answer.status_code} and "
                f"{encoding!r:.20} from {str(url)!r:.80}; send a data URI"
            )
        body = bytearray()
        async for piece in answer.aiter_raw(1 << 16):
            body += piece
            if len(body) > self.max_bytes:
                raise MediaError(
                    f"{place} must have at most {self.max_bytes:,} bytes, got more from "
                    f"{str(url)!r:.80}; give a smaller one"
                )
        return bytes(body)
