"""Gemma 3 as a language model: its converter on a tiny GGUF file, and the real one if there."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pathweave.bases import find_weights, ready_dir
from pathweave.bases.convert.gemma3 import SPACE, TERMS, convert_gemma3
from pathweave.bases.llm import load_llm_directory, load_tokenizer, starts_with_bos, use_llm
from pathweave.model.base import native_dtype
from pathweave.model.generate import generate
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.runs.loading import load_base
from tests.tiny import medium, randomise, tiny_base

NAME = "gemma-3-270m"
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<unused0>"]
OWN = ["\n", "\n\n", "  ", "   ", "<b>"]  # runs of spaces are written as text there
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = [f"{SPACE}t", "he", f"{SPACE}the", "an", f"{SPACE}an", "ant", "  x".replace(" ", SPACE)]
WORDS += [SPACE, *"tehanx<>b"]
TOKENS = CONTROL + OWN + BYTES + WORDS
KINDS = [3] * len(CONTROL) + [4] * len(OWN) + [6] * len(BYTES) + [1] * len(WORDS)
DIM, HEAD_DIM, HIDDEN, LAYERS, WINDOW = 32, 16, 64, 6, 4


def tiny_gguf(path):
    """Write a Gemma 3 in GGUF whose last layer attends to all tokens."""
    from gguf import GGUFWriter

    rng = np.random.default_rng(0)
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(64)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(WINDOW)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    normal = KINDS.index(1)
    writer.add_token_scores([-1000.0] * normal + [-float(i) for i in range(len(WORDS))])
    writer.add_token_types(KINDS)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    shapes = {
        "attn_norm": (DIM,),
        "attn_q": (2 * HEAD_DIM, DIM),
        "attn_k": (HEAD_DIM, DIM),
        "attn_v": (HEAD_DIM, DIM),
        "attn_output": (DIM, 2 * HEAD_DIM),
        "attn_q_norm": (HEAD_DIM,),
        "attn_k_norm": (HEAD_DIM,),
        "post_attention_norm": (DIM,),
        "ffn_norm": (DIM,),
        "ffn_gate": (HIDDEN, DIM),
        "ffn_up": (HIDDEN, DIM),
        "ffn_down": (DIM, HIDDEN),
        "post_ffw_norm": (DIM,),
    }
    named = {f"blk.{i}.{name}": shape for i in range(LAYERS) for name, shape in shapes.items()}
    for name, shape in {"token_embd": (len(TOKENS), DIM), "output_norm": (DIM,), **named}.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The directory of a file, and what became of it."""
    root = tmp_path_factory.mktemp("gemma3")
    (root / "out").mkdir()
    tiny_gguf(root / "model.gguf")
    (root / TERMS).write_text("terms", encoding="utf-8")
    convert_gemma3(root, root / "out")
    return root, root / "out"


def test_the_weights_and_sizes_are_those_that_transformers_reads(tiny):
    source, out = tiny
    theirs = AutoModelForCausalLM.from_pretrained(source, gguf_file="model.gguf")
    ours, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected, found = theirs.state_dict(), load_file(out / "model.safetensors")
    assert expected.keys() - found.keys() == {"lm_head.weight"}
    assert all(torch.equal(found[name], expected[name].bfloat16()) for name in found)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    for field in ("layer_types", "sliding_window", "head_dim"):
        assert getattr(ours.config, field) == getattr(theirs.config, field)
    assert ours.config.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
    assert ours.config.rope_parameters == theirs.config.rope_parameters
    assert ours.config.rms_norm_eps == 1e-6
    assert ours.config.query_pre_attn_scalar == HEAD_DIM


TEXTS = st.text(st.sampled_from("then ab<>x\n\té€"), max_size=20)


@pytest.fixture(scope="module")
def tokenizers(tiny):
    source, out = tiny
    return load_tokenizer(out), AutoTokenizer.from_pretrained(source, gguf_file="model.gguf")


@given(text=TEXTS)
def test_texts_have_the_ids_that_transformers_gives_them(tokenizers, text):
    ours, theirs = tokenizers
    ids = ours(text).input_ids
    assert ids == theirs(text).input_ids
    assert ids[0] == TOKENS.index("<bos>")
    assert ours.decode(ids, skip_special_tokens=True) == text


def test_runs_of_spaces_are_one_token(tokenizers):
    ours, _ = tokenizers
    assert ours("a  b", add_special_tokens=False).input_ids == [
        TOKENS.index(token) for token in ("a", "  ", "b")
    ]
    assert starts_with_bos(ours)
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert ours.chat_template is None


def test_the_converted_model_loads_as_a_language_model_with_the_terms_beside_it(tiny):
    _, out = tiny
    assert (out / TERMS).read_text(encoding="utf-8") == "terms"
    llm = load_llm_directory(out).model
    embed = llm.get_input_embeddings()
    ids = torch.tensor([5, 6])
    scaled = embed.weight[ids] * torch.tensor(DIM**0.5).to(embed.weight.dtype)
    torch.testing.assert_close(embed(ids), scaled)
    assert llm.generation_config.eos_token_id == TOKENS.index("<eos>")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"


def test_a_path_leaves_text_prompts_of_the_converted_model_as_they_were(tiny):
    """With sliding windows shorter than the prompt."""
    base = tiny_base()
    use_llm(base, tiny[1])
    assert_text_stays(PathWeave(base, {"sound": "sound:"}), "the ant the ant then")


@torch.no_grad()
def assert_text_stays(model, text):
    """Neither logits nor answer change with a path that changes those of its own medium."""
    ids = torch.tensor([model.base.tokenizer.encode(text)])
    before = model.llm(input_ids=ids).logits, generate(model, [[text]], 8)
    width = model.qformer.shape.encoder_width
    spec = PathSpec("sound", width, num_queries=3, rank=4, sites=("llm/*/self_attn/*",))
    path = model.paths.expand(spec)
    asked = [[medium("sound", width=width), text]]
    zero, _ = model(asked, ["yes"])  # new adapters are the zero map
    randomise(path, std=0.05)
    assert len(path.experts) == 4 * len(model.llm.get_decoder().layers)
    assert not torch.isclose(model(asked, ["yes"])[0], zero)
    after = model.llm(input_ids=ids).logits, generate(model, [[text]], 8)
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.slow
def test_the_real_model_speaks_english_and_paths_leave_its_text_as_it_is():
    directory = ready_dir(NAME)
    if directory is None:
        pytest.skip(f"pathweave fetch {NAME} fetches it, once its terms are accepted")
    base = load_base("mini", llm=NAME)
    assert base.licences[NAME] == find_weights(NAME).licence
    assert base.llm.dtype == native_dtype()  # where that is float32, bfloat16 is very slow
    assert base.template.bos
    assert base.template.chat is None
    tokenizer, llm = base.tokenizer, base.llm
    assert tokenizer("The capital of France is").input_ids == [2, 818, 5279, 529, 7001, 563]
    inputs = tokenizer("The capital city of France is called", return_tensors="pt")
    tokens = llm.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(tokens[0]).endswith("France is called Paris.")
    assert llm.config.sliding_window == 512
    model = PathWeave(base, {"sound": "sound:"})
    assert_text_stays(model, "The capital of France is")
