"""A server in a thread of this process, on a free port, as ``pathweave serve`` makes it."""

import base64
import io
import socket
import threading
from contextlib import contextmanager

import numpy as np
import soundfile
import torch
from PIL import Image

from pathweave.data.cache import FeatureCache
from pathweave.data.readers import FeatureReader, JointReader
from pathweave.decoders import Clip, Picture, Points, Recording, Sound, Values
from pathweave.encoders.media import Array, Frames, Series, Waveform
from pathweave.runs.assistant import Assistant
from pathweave.serve.server import EngineServer, build_app, open_door
from tests.tiny import WIDTH, chain, tiny_model


class Cut:
    """An encoder that cuts the numbers of a medium into tokens."""

    width = WIDTH

    def __init__(self, accepts):
        self.accepts, self.fingerprint = accepts, f"cut {accepts.__name__}"

    def __call__(self, media):
        made = []
        for medium in media:
            values = next(iter(vars(medium).values()))
            flat = torch.from_numpy(np.resize(values, (1, 3, WIDTH)).astype(np.float32))
            made.append(flat / (1 + flat.abs().max()))
        return made


DECODERS = {
    "image": (Picture(max_pixels=10_000), Frames),
    "audio": (Sound(rate=1000, seconds=0.1), Waveform),
    "video": (Clip(frames=2), Frames),
    "cloud": (Points(size=16), Frames),
    "tilt": (Recording(rate=10.0), Series),
    "array": (Values(), Array),
}


def make_assistant(home, guard, kinds):
    """An assistant of a random model that reads media of some kinds, with decoders guarded."""
    cache = FeatureCache(home)
    readers = {
        name: FeatureReader(guard(decoder), Cut(accepts), cache)
        for name, (decoder, accepts) in kinds.items()
    }
    names = [*kinds]
    if len(kinds) > 1:
        readers["both"] = JointReader("both", tuple(kinds)[-2:], readers)
        names.append("both")
    model = tiny_model(*chain(*names))
    model.llm.generation_config.eos_token_id = None  # answers are as long as they may be
    return Assistant(model, readers)


def png(color="red", size=(4, 4)):
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, "PNG")
    return stream.getvalue()


def gif():
    stream = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return stream.getvalue()


def wav(level=0.5):
    stream = io.BytesIO()
    soundfile.write(stream, np.full(100, level), 1000, format="WAV")
    return stream.getvalue()


def npy(seed=0, shape=(4, WIDTH)):
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(seed).normal(size=shape))
    return stream.getvalue()


CSV = b"x,y\n1,10\n2,20\n3,30\n"
FILES = {
    "image": png(),
    "audio": wav(),
    "video": gif(),
    "cloud": npy(shape=(50, 3)),
    "tilt": CSV,
    "array": npy(),
}


@contextmanager
def served(service, sandbox=None, key=None, buffer=None, root=None):
    """Yield the address of a server, which ends with the block."""
    door = open_door("127.0.0.1", 0)
    if buffer is not None:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    server = EngineServer(build_app(service, sandbox, key, root=root), service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


def uri(data, mime="application/octet-stream"):
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def part(name, data=None, mime="application/octet-stream"):
    data = FILES[name] if data is None else data
    return {"type": f"{name}_url", f"{name}_url": {"url": uri(data, mime)}}


def user(*content):
    return [{"role": "user", "content": list(content)}]


WHAT = {"type": "text", "text": "What is it?"}


def ask(client, messages, max_tokens=5, model="tiny", **more):
    return client.chat.completions.create(
        model=model, messages=messages, max_tokens=max_tokens, **more
    )


def said(made):
    return made.choices[0].message.content
