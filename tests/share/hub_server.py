"""The few requests of the Hugging Face hub that pushing and pulling one model makes, in memory."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """A hub on this machine; ``files`` are those of its one model, by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.created: dict[str, object] | None = None
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._json({"url": f"{self.server.url}/me/tilt"})
        elif "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self._json({"files": [{"path": name, **modes} for name in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
            self._json({"commitOid": COMMIT, "commitUrl": f"{self.server.url}/me/tilt/commit/x"})
        else:
            self._json({"errors": [], "warnings": []})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        files = self.server.files
        name = self.path.rpartition("/")[2].partition("?")[0]
        if "/resolve/" in self.path and name in files:
            self._send(files[name], name)
        elif self.path.startswith("/api/models/me/tilt/tree/"):
            self._json([self._entry(name) for name in files])
        elif self.path.startswith("/api/models/me/tilt"):
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": "me/tilt", "sha": COMMIT, "siblings": siblings})
        else:
            self._json({"error": "Repository not found"}, 404)

    def _entry(self, name: str) -> dict[str, object]:
        data = self.server.files[name]
        oid = hashlib.sha1(data).hexdigest()
        return {"type": "file", "path": name, "size": len(data), "oid": oid}

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), None, status)

    def _send(self, data: bytes, name: str | None, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Type", "application/json")
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        if name is not None:
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
