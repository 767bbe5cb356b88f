"""A server in a thread of this process, on a free port, as ``pathweave serve`` makes it."""

import threading
from contextlib import contextmanager

import uvicorn

from pathweave.serve.server import build_app, open_door


@contextmanager
def served(service, sandbox=None, key=None, is_local=True, root=None):
    """Yield the address of a server, which ends with the block."""
    door = open_door("127.0.0.1", 0)
    app = build_app(service, sandbox, key, is_local, root)
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()
