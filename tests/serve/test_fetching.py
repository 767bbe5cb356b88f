import asyncio
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from pathweave.errors import MediaError
from pathweave.serve.fetching import Fetcher, is_public
from pathweave.serve.openai_messages import RefusedError

PUBLIC = "93.184.216.34"
NAMES = {
    "media.example": [PUBLIC],
    "other.example": [PUBLIC],
    "inside.example": ["10.1.2.3"],
    "half.example": [PUBLIC, "127.0.0.1"],
}


class Media(BaseHTTPRequestHandler):
    """Serves a medium, redirects, bodies without an end, and what is zipped."""

    def do_GET(self):
        host = self.headers["host"]
        status, headers, body = {
            "/a.wav": (200, {}, b"sound"),
            "/hop": (302, {"location": "/a.wav"}, b""),
            "/inside": (302, {"location": "http://inside.example/a.wav"}, b""),
            "/number": (302, {"location": "http://127.0.0.1:80/a.wav"}, b""),
            "/stranger": (302, {"location": "http://stranger.example/a.wav"}, b""),
            "/file": (302, {"location": "file:///etc/passwd"}, b""),
            "/round": (302, {"location": "/round"}, b""),
            "/large": (200, {}, b"x" * 5000),
            "/zipped": (200, {"content-encoding": "gzip"}, b"x"),
            "/host": (200, {}, host.encode()),
            "/slow": (200, {"content-length": "10"}, b"x"),
        }.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/slow":
            self.server.ends.wait(10)

    def log_message(self, *_):
        pass


@contextmanager
def media():
    with ThreadingHTTPServer(("127.0.0.1", 0), Media) as server:
        server.ends = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.ends.set()
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def port():
    with media() as port:
        yield port


def fetch(port, address, seconds=5.0, hosts=(*NAMES, "localhost", "127.0.0.1", "2130706433")):
    """Fetch from a network in which the one public machine is the local server."""

    class Network(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            assert request.url.host == PUBLIC  # no other machine is ever asked
            request.url = request.url.copy_with(host="127.0.0.1", port=port)
            return await super().handle_async_request(request)

    async def look_up(host, _port):
        if host in NAMES:
            return NAMES[host]
        return ["127.0.0.1"]

    fetcher = Fetcher(hosts, 4000, seconds, look_up, Network)
    return asyncio.run(fetcher.fetch(address, "part 1"))


def test_a_medium_of_an_allowed_host_is_fetched_by_its_own_name(port):
    assert fetch(port, "http://media.example/a.wav") == b"sound"
    assert fetch(port, "http://media.example/hop") == b"sound"
    assert fetch(port, "http://media.example/host") == b"media.example"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://stranger.example/a.wav", "a host must be one of"),
        ("http://media.example:8080/a.wav", "got 'media.example:8080'"),
        ("http://inside.example/a.wav", "which is 10.1.2.3"),
        ("http://half.example/a.wav", "which is 127.0.0.1"),
        ("http://localhost/a.wav", "which is 127.0.0.1"),
        ("http://127.0.0.1/a.wav", "which is 127.0.0.1"),
        ("http://2130706433/a.wav", "which is 127.0.0.1"),
        ("http://user:word@media.example/a.wav", "without a password"),
        ("file:///etc/passwd", "must be http:// or https://"),
        ("ftp://media.example/a.wav", "must be http:// or https://"),
        ("http://media.example/inside", "which is 10.1.2.3"),
        ("http://media.example/number", "127.0.0.1"),
        ("http://media.example/stranger", "got 'stranger.example'"),
        ("http://media.example/file", "must be http:// or https://"),
    ],
)
def test_an_address_that_is_not_allowed_is_refused_also_after_a_redirect(port, address, said):
    with pytest.raises(RefusedError, match=said):
        fetch(port, address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://media.example/none", "got 404"),
        ("http://media.example/round", "at most 3 redirects away"),
        ("http://media.example/large", "at most 4,000 bytes"),
        ("http://media.example/zipped", "got 200 and 'gzip'"),
        ("http://media.example/slow", "within 0.2 s"),
        ("http://media.example:x/", "got InvalidURL"),
    ],
)
def test_what_is_no_medium_or_too_much_is_refused(port, address, said):
    with pytest.raises(MediaError, match=said):
        fetch(port, address, seconds=0.2 if "slow" in address else 5.0)


def test_nothing_is_fetched_unless_a_host_is_allowed(port):
    with pytest.raises(RefusedError, match="start it with --fetch HOST"):
        fetch(port, "http://media.example/a.wav", hosts=())


@pytest.mark.parametrize(
    "number",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%eth0"),
        *("fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001::1"),
    ],
)
def test_numbers_of_private_and_special_machines_are_not_public(number):
    assert not is_public(number)


def test_public_numbers_are_public():
    assert all(is_public(number) for number in (PUBLIC, "2606:2800:220:1::1", "::ffff:8.8.8.8"))
