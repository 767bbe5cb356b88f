"""The GGUF converter, on a tiny GGUF file and on the real one."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pathweave.bases import weights_dir
from pathweave.bases.convert.smollm2 import convert_smollm2
from pathweave.bases.mini import attention, load_smollm

TOKENS = ["<end>", "<s>", "</s>", "a", "b", "1", "2", "\u0120", "ab", "\u0120a"]
DIM, HEADS, KV_HEADS, HIDDEN = 32, 2, 1, 64


def tiny_gguf(path):
    """Write a one-layer Llama in GGUF."""
    from gguf import GGUFWriter

    rng = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(DIM)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["a b", "\u0120 a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    shapes = {
        "token_embd": (len(TOKENS), DIM),
        "output_norm": (DIM,),
        "blk.0.attn_norm": (DIM,),
        "blk.0.attn_q": (DIM, DIM),
        "blk.0.attn_k": (DIM // HEADS * KV_HEADS, DIM),
        "blk.0.attn_v": (DIM // HEADS * KV_HEADS, DIM),
        "blk.0.attn_output": (DIM, DIM),
        "blk.0.ffn_norm": (DIM,),
        "blk.0.ffn_gate": (HIDDEN, DIM),
        "blk.0.ffn_up": (HIDDEN, DIM),
        "blk.0.ffn_down": (DIM, HIDDEN),
    }
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("smollm2")
    (root / "out").mkdir()
    tensors = tiny_gguf(root / "model.gguf")
    convert_smollm2(root, root / "out")
    return root / "out", tensors


def test_the_directory_loads_and_nothing_is_missing(tiny):
    directory, _ = tiny
    model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.rms_norm_eps == 1e-5
    generation = model.generation_config
    ids = (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id)
    assert ids == (1, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, None])
def test_it_is_loaded_as_transformers_loads_it(tiny, dtype):
    (directory, _), before = tiny, torch.random.get_rng_state()
    ours = load_smollm(directory, dtype)
    assert torch.equal(torch.random.get_rng_state(), before)
    theirs = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype or "auto", attn_implementation=attention()
    )
    for found, expected in (
        (ours.state_dict(), theirs.state_dict()),
        (dict(ours.named_buffers()), dict(theirs.named_buffers())),
    ):
        assert [*found] == [*expected]
        assert all(torch.equal(found[name], expected[name]) for name in found)
        assert all(found[name].dtype == expected[name].dtype for name in found)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert ours.config.to_dict() == theirs.config.to_dict()
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()


def test_rotated_coordinates_are_put_into_halves(tiny):
    directory, tensors = tiny
    own = load_file(directory / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    size = DIM // HEADS
    published = torch.tensor(tensors["blk.0.attn_q"]).bfloat16()
    for head in range(HEADS):
        rows = published[head * size : (head + 1) * size]
        assert torch.equal(own[head * size :][: size // 2], rows[0::2])
        assert torch.equal(own[head * size + size // 2 :][: size // 2], rows[1::2])


def test_the_tokenizer_has_special_tokens_and_a_chat_template(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny[0])
    assert tokenizer("ab a12<s>").input_ids == [8, 9, 5, 6, 1]
    assert tokenizer.decode([8, 9, 5, 6]) == "ab a12"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<s>",
        "</s>",
        "</s>",
    )
    message = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "ab"


def test_a_published_directory_is_copied(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text(
        json.dumps({"model_type": "llama"}), encoding="utf-8"
    )
    convert_smollm2(tmp_path / "source", tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.slow
def test_the_real_model_continues_a_story():
    directory = weights_dir("smollm2-135m-instruct")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer("Once upon a time, there was a little girl who", return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=7, do_sample=False)
    assert tokenizer.decode(tokens[0]).endswith("who loved to play with her toys.")
    with torch.no_grad():
        loss = model(**inputs, labels=inputs.input_ids).loss
    # Perplexity 15.1, the same as with the reader of transformers.
    assert loss.exp().item() == pytest.approx(15.1, abs=0.1)
