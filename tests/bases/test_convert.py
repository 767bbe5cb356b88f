"""Converters on tiny files of the published forms."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pathweave.bases.convert import CONVERTERS
from pathweave.bases.convert.ctranslate2 import read_ctranslate2
from pathweave.bases.weights_manifest import manifest
from pathweave.errors import FetchError


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_every_entry_of_the_manifest_has_a_converter():
    assert {weights.converter for weights in manifest().values()} == set(CONVERTERS)


def test_efficientnet_leaves_out_the_step_counters(source, out):
    state = {"w": torch.ones(2), "bn.num_batches_tracked": torch.tensor(7)}
    torch.save(state, source / "model.pth")
    CONVERTERS["efficientnet"](source, out)
    assert set(load_file(out / "model.safetensors")) == {"w"}


def test_aisfx_keeps_the_embedding_network_alone(source, out):
    state = {"embedding_net.conv.weight": torch.ones(2), "fc.0.weight": torch.ones(3)}
    torch.save((state, {"set": (0, np.int64(5))}), source / "model.pth")
    CONVERTERS["aisfx"](source, out)
    assert set(load_file(out / "model.safetensors")) == {"conv.weight"}


def test_aisfx_runs_no_code_of_the_file(source, out, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("evil").mkdir, ())

    torch.save(({}, Evil()), source / "model.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        CONVERTERS["aisfx"](source, out)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("is_zip", [False, True])
def test_minilm_is_the_same_from_both_forms(source, out, is_zip):
    tensors = {"embeddings.position_ids": torch.arange(4), "w": torch.ones(2)}
    save_file(tensors, source / "model.safetensors")
    config = {"model_type": "bert", "_name_or_path": "x", "hidden_size": 4}
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (source / "tokenizer.json").write_text(
        '{"padding": {"length": 128}, "model": {}}', encoding="utf-8"
    )
    if is_zip:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(source.iterdir()):
                file.write(path, path.name)
                path.unlink()
        (source / "model.zip").write_bytes(archive.getvalue())
    CONVERTERS["minilm"](source, out)
    assert set(load_file(out / "model.safetensors")) == {"w"}
    assert json.loads((out / "config.json").read_text(encoding="utf-8")) == {
        "model_type": "bert",
        "hidden_size": 4,
    }
    tokenizer = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer == {"padding": None, "truncation": None, "model": {}}


def string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def ctranslate2_bytes(arrays):
    parts = [struct.pack("<I", 6), string("Spec"), struct.pack("<II", 3, len(arrays))]
    for name, values in arrays.items():
        header = struct.pack("<B", values.ndim) + struct.pack(f"<{values.ndim}I", *values.shape)
        parts += [string(name), header, struct.pack("<BI", 4, values.nbytes), values.tobytes()]
    return b"".join([*parts, struct.pack("<I", 0)])


def test_ctranslate2_arrays_are_read_by_name(tmp_path):
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    (tmp_path / "model.bin").write_bytes(ctranslate2_bytes({"a/weight": values, "b": values[0]}))
    arrays = read_ctranslate2(tmp_path / "model.bin")
    assert arrays["a/weight"].tolist() == values.tolist()
    assert arrays["b"].shape == (3,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got a damaged one"),
        (struct.pack("<I", 5) + string("Spec"), "of version 6, got 5"),
        (ctranslate2_bytes({"a": np.ones(9, dtype=np.float16)})[:-8], "got a damaged one"),
    ],
)
def test_a_damaged_ctranslate2_file_is_refused(tmp_path, data, message):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(FetchError, match=message):
        read_ctranslate2(tmp_path / "model.bin")


def test_whisper_gets_its_names_from_ctranslate2(source, out):
    arrays = {"encoder/position_encodings/encodings": np.ones((4, 2))}
    for conv in ("conv1", "conv2"):
        arrays |= {f"encoder/{conv}/weight": np.ones((2, 2, 3)), f"encoder/{conv}/bias": np.ones(2)}
    norms, linears = ["layer_norm"], {}
    for index in range(4):
        norms += [f"layer_{index}/self_attention/layer_norm", f"layer_{index}/ffn/layer_norm"]
        linears |= {
            f"layer_{index}/self_attention/linear_0": 6,
            f"layer_{index}/self_attention/linear_1": 2,
            f"layer_{index}/ffn/linear_0": 8,
            f"layer_{index}/ffn/linear_1": 2,
        }
    for name in norms:
        arrays |= {f"encoder/{name}/gamma": np.ones(2), f"encoder/{name}/beta": np.ones(2)}
    for name, rows in linears.items():
        columns = 8 if name.endswith("ffn/linear_1") else 2
        values = np.arange(rows * columns).reshape(rows, columns)
        arrays |= {f"encoder/{name}/weight": values, f"encoder/{name}/bias": np.arange(rows)}
    data = ctranslate2_bytes({name: value.astype(np.float16) for name, value in arrays.items()})
    (source / "model.bin").write_bytes(data)
    CONVERTERS["whisper"](source, out)
    tensors = load_file(out / "model.safetensors")
    assert len(tensors) == 5 + 2 + 4 * 15
    attention = "layers.3.self_attn"
    assert tensors[f"{attention}.k_proj.weight"].tolist() == [[4, 5], [6, 7]]
    assert tensors[f"{attention}.v_proj.bias"].tolist() == [4, 5]
    assert f"{attention}.k_proj.bias" not in tensors


def test_whisper_keeps_the_encoder_of_a_published_directory(source, out):
    tensors = {"model.encoder.conv1.bias": torch.ones(2).half(), "model.decoder.w": torch.ones(1)}
    save_file(tensors, source / "model.safetensors")
    CONVERTERS["whisper"](source, out)
    [(name, value)] = load_file(out / "model.safetensors").items()
    assert (name, value.dtype) == ("conv1.bias", torch.float32)
