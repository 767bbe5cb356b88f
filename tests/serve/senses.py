"""A tiny model that reads media of every kind, and files of each."""

import numpy as np
from PIL import Image

from pathweave.data.cache import FeatureCache
from pathweave.data.readers import FeatureReader
from pathweave.decoders import build_decoder
from pathweave.runs.assistant import Assistant
from tests.decoders.files import animation, encoded, npy, wav
from tests.serve.served import Cut
from tests.tiny import WIDTH, chain, tiny_model

DECODERS = {
    "photo": ("picture", {}),
    "film": ("clip", {"frames": 3}),
    "noise": ("sound", {"rate": 8000, "seconds": 0.5}),
    "range": ("range_map", {}),
    "shape": ("points", {"size": 32}),
    "motion": ("series", {"rate": 50.0, "channels": ("x", "y")}),
    "tilt": ("array", {}),
}


def assistant_of_all(directory, guard=lambda decoder: decoder):
    cache, encoder = FeatureCache(directory), Cut(object)
    readers = {
        name: FeatureReader(guard(build_decoder(kind, **options)), encoder, cache)
        for name, (kind, options) in DECODERS.items()
    }
    return Assistant(tiny_model(*chain(*DECODERS), max_positions=256), readers)


def files_of_all(directory):
    """Write a file of each modality and return them by its name."""
    random = np.random.default_rng(0)
    time = np.arange(4000) / 8000
    picture = Image.fromarray(random.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    slope = np.linspace(1000, 3000, 24 * 32, dtype=np.uint16).reshape(24, 32)
    rows = "\n".join(f"{np.sin(i / 9):.3f},{i}" for i in range(200))
    data = {
        "photo.png": encoded(picture),
        "film.gif": animation([0, 100, 200], "GIF"),
        "noise.wav": wav(np.sin(2 * np.pi * 300 * time)),
        "range.png": encoded(Image.fromarray(slope)),
        "shape.npy": npy(random.normal(size=(500, 3))),
        "motion.csv": f"x,y\n{rows}\n".encode(),
        "tilt.npy": npy(random.normal(size=(4, WIDTH)).astype(np.float32)),
    }
    files = {}
    for name, content in data.items():
        files[name.split(".")[0]] = directory / name
        (directory / name).write_bytes(content)
    return files
