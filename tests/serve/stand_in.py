"""A stand-in for vLLM: the routes that are used, over HTTP, with a real tiny language model."""

import base64
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from pathweave.model.base import ends_of

LIMIT = 600


class StandIn(ThreadingHTTPServer):
    """Greedy answers to prompts of embeddings, or of ids; ``mood`` is called before each token."""

    daemon_threads = True
    request_queue_size = 128  # all clients of a test may come at once

    def __init__(self, llm, tokenizer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.llm, self.tokenizer = llm, tokenizer
        self.mood = lambda body, step: None
        self.key = None
        self.listed = {"data": [{"id": "tiny", "max_model_len": LIMIT}]}
        self.bodies = []
        self.broken = threading.Event()  # a client has gone in mid-answer

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        self.broken.set()


class Refused(Exception):
    """An answer of another status."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.reply(200, self.server.listed)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            return self.reply(401, {"error": "Unauthorized"})
        if self.headers["Content-Type"] != "application/json":
            return self.reply(400, {"error": {"message": "Unsupported Media Type"}})
        try:
            self.server.mood(body, 0)
            if "prompt_embeds" in body:
                sent = body["prompt_embeds"]
                rows = [embeds_of(one) for one in ([sent] if isinstance(sent, str) else sent)]
            else:
                words = self.server.llm.get_input_embeddings()
                rows = [words(torch.tensor(ids)) for ids in body["prompt"]]
        except Refused as error:
            status, said = error.args
            return self.reply(status, said)
        if body.get("stream"):
            return self.send_pieces(body, rows[0])
        choices = [self.choice(body, row, index) for index, row in enumerate(rows)]
        return self.reply(200, {"choices": choices})

    def choice(self, body, row, index):
        pieces = [*self.pieces(body, row)]
        return {"index": index, "token_ids": [t for t, _ in pieces]}

    def send_pieces(self, body, row):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for step, (token, why) in enumerate(self.pieces(body, row), start=1):
            choice = {"index": 0, "token_ids": [token], "finish_reason": why, "text": "unused"}
            self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            said = self.server.mood(body, step)
            if said is not None:
                self.wfile.write(said)
                return
        self.wfile.write(b"data: [DONE]\n\n")

    def reply(self, status, value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    @torch.no_grad()
    def pieces(self, body, row):
        """Yield tokens, the likeliest first; and why the last is the last."""
        llm, said = self.server.llm, []
        for step in range(body["max_tokens"]):
            words = llm.get_input_embeddings()(torch.tensor(said, dtype=torch.long))
            logits = llm(inputs_embeds=torch.cat([row, words])[None]).logits
            said.append(int(logits[0, -1].argmax()))
            text = self.server.tokenizer.decode(said, skip_special_tokens=True)
            ended = said[-1] in ends_of(llm) or any(stop in text for stop in body["stop"])
            is_last = step == body["max_tokens"] - 1
            yield said[-1], "stop" if ended else "length" if is_last else None
            if ended:
                return


def embeds_of(sent):
    rows = torch.load(io.BytesIO(base64.b64decode(sent, validate=True)), weights_only=True)
    assert rows.ndim == 2
    return rows


@contextmanager
def stand_in(llm, tokenizer):
    server = StandIn(llm, tokenizer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
