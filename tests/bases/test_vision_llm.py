"""Vision LLMs are read from a directory as transformers reads them, and refused with the reason."""

import json
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Florence2Config,
)

from pathweave.bases.vision_llm import (
    is_vision_llm,
    load_processor,
    load_vision_llm,
    open_vision_llm,
)
from pathweave.errors import FetchError, PathWeaveError, RecipeError
from pathweave.model.chat import Native, lay_out_chats
from tests.published import write_llm, write_published
from tests.vision_llms import FAMILIES, WITH_PROCESSOR, native, picture, write_vision_llm

# The processor of PaliGemma turns tensors to arrays in a way that numpy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def directory_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("vision_llms")
    return cache(lambda name: write_vision_llm(root / name, name))


@pytest.fixture
def copy(directory_of, tmp_path):
    """A LLaVA to be damaged."""
    return shutil.copytree(directory_of("llava"), tmp_path / "copy")


def edit(file: Path, **changes) -> None:
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, **changes}), encoding="utf-8")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_loaded_as_transformers_loads_it(directory_of, name):
    directory = directory_of(name)
    assert is_vision_llm(AutoConfig.from_pretrained(directory))
    auto = AutoModelForCausalLM if name == "phi4_multimodal" else AutoModelForImageTextToText
    theirs = auto.from_pretrained(directory).eval()
    ours, identity, kinds = load_vision_llm(directory, dtype=torch.float32)
    assert type(ours) is type(theirs)
    assert identity is None
    assert "image" in kinds
    assert "text" not in kinds
    assert not ours.training
    assert not any(p.requires_grad for p in ours.parameters())
    weights = dict(theirs.named_parameters())
    for weight, parameter in ours.named_parameters():
        assert torch.equal(parameter, weights[weight]), weight
    ids = torch.arange(40, 60).view(2, 10)
    with torch.no_grad():
        found, expected = ours(input_ids=ids).logits, theirs(input_ids=ids).logits
    assert torch.equal(found, expected)
    assert expected.std() > 0.1
    ends = ours.generation_config.eos_token_id, ours.generation_config.pad_token_id
    assert ends == (theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id)


def test_a_tower_that_is_left_out_reads_nothing(directory_of):
    """Gemma 4 of this size has none for sound, though its class may."""
    assert load_vision_llm(directory_of("gemma4")).native == ("image", "video")


@torch.no_grad()
@pytest.mark.parametrize("name", WITH_PROCESSOR)
def test_a_batch_that_is_laid_out_is_read_as_each_prompt_alone(directory_of, name):
    """Padding on the left with zeros is right for all that runs along the tokens."""
    model, processor, _, _ = open_vision_llm(directory_of(name), dtype=torch.float32)
    # Phi-4's tower reads a square picture otherwise beside one that is padded to a square.
    width = 32 if name == "phi4_multimodal" else 64
    one, other = Native("image", picture(seed=1)), Native("image", picture(width, 32, seed=2))
    prompts = [["What is it?"], [one, "What?"], [one, "Is it", other, "or not?"]]
    if name == "mllama":  # it reads pictures by cross-attention: every prompt has as many
        prompts = [prompts[1], [other, "Is it?"]]
    together = last_logits(model, lay_out_chats(prompts, processor, {}))
    assert together.std() > 0.1
    for prompt, found in zip(prompts, together, strict=True):
        [alone] = last_logits(model, lay_out_chats([prompt], processor, {}))
        torch.testing.assert_close(found, alone, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", WITH_PROCESSOR)
def test_what_a_base_reads_by_itself_changes_what_it_says(directory_of, name):
    model, processor, _, kinds = open_vision_llm(directory_of(name), dtype=torch.float32)
    for kind in kinds:
        prompts = [[native(kind, seed), "What?"] for seed in (1, 2)]
        one, other = (last_logits(model, lay_out_chats([p], processor, {})) for p in prompts)
        assert (one - other).abs().max() > 1e-3, kind


def last_logits(model, laid):
    rows = [torch.tensor(row[0]) for row in laid.rows]
    longest = max(map(len, rows))
    read = {
        "input_ids": torch.stack([pad(row, (longest - len(row), 0)) for row in rows]),
        "attention_mask": torch.stack([pad(row * 0 + 1, (longest - len(row), 0)) for row in rows]),
    }
    for name in laid.alongside[0]:
        values = [row[name] for row in laid.alongside]
        read[name] = torch.stack(
            [pad(v, (*(0, 0) * (v.ndim - 1), longest - len(v), 0)) for v in values]
        )
    positions = model._prepare_position_ids_for_generation(
        read["input_ids"], {**read, **laid.inputs}
    )
    return model(**read, **laid.inputs, position_ids=positions).logits[:, -1]


def test_instructblip_and_blip2_are_bases_of_another_kind(tmp_path):
    for kind in ("instructblip-opt", "blip2-opt"):
        config = write_published(tmp_path / kind, kind).model.config
        assert not is_vision_llm(config)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gemma4_text", "blt", "whisper"])
def test_a_language_model_is_no_vision_llm_whatever_its_class_says_of_media(kind):
    assert not is_vision_llm(AutoConfig.for_model(kind))


def test_another_kind_of_model_is_refused(tmp_path):
    write_llm(tmp_path, "llama")
    for opened in (load_vision_llm, open_vision_llm):
        with pytest.raises(RecipeError, match=r"must be a vision LLM, got 'llama'; choose"):
            opened(tmp_path)


def test_a_model_whose_language_model_has_an_encoder_is_refused(copy):
    Florence2Config().save_pretrained(copy)
    with pytest.raises(RecipeError, match=r"decoder alone, got 'florence2', which has an encoder"):
        load_vision_llm(copy)


def test_a_model_without_a_head_of_its_own_is_refused(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = {**small, "num_attention_heads": 2, "encoder_hidden_size": 16, "vocab_size": 60}
    text |= {"bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2}
    vision = {**small, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = AutoConfig.for_model("blip", text_config=text, vision_config=vision)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"a language model whose head .* got 'blip'; choose"):
        load_vision_llm(tmp_path)


def test_an_unknown_tower_is_refused(copy):
    edit(copy / "config.json", vision_config={"model_type": "tomorrow"})
    with pytest.raises(FetchError, match=r"must hold the config.json .* got .*tomorrow.*newer"):
        load_vision_llm(copy)


def test_a_field_of_another_kind_is_refused(copy):
    edit(copy / "config.json", image_seq_length="many")
    with pytest.raises(FetchError, match=r"must hold the config.json .* for field 'image_seq_l"):
        load_vision_llm(copy)


def test_missing_weights_are_refused(copy):
    file = copy / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "vision" in name)
    save_file({n: t for n, t in tensors.items() if n != name}, file, {"format": "pt"})
    with pytest.raises(FetchError, match=r"got no model.vision_tower\S* \(1 are missing\)"):
        load_vision_llm(copy)
    save_file({**tensors, name: tensors[name][:1]}, file, {"format": "pt"})
    with pytest.raises(FetchError, match=r"weights of the shapes that its config.json says"):
        load_vision_llm(copy)
    file.unlink()
    with pytest.raises(FetchError, match=r"must hold model.safetensors or"):
        load_vision_llm(copy)


def test_a_base_without_a_processor_is_refused(copy):
    (copy / "processor_config.json").unlink()
    with pytest.raises(FetchError, match=r"must hold the processor of a vision LLM .* got none"):
        open_vision_llm(copy)


def test_a_damaged_processor_is_refused(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(
        FetchError, match=r"whole processor with its tokenizer, got one that cannot"
    ):
        open_vision_llm(copy)


def test_a_package_that_a_processor_needs_is_named(copy):
    if FAMILIES["qwen3_vl"].has_processor:
        pytest.skip("torchvision is installed")
    edit(copy / "processor_config.json", processor_class="PixtralProcessor")
    with pytest.raises(PathWeaveError, match=r"torchvision must be installed .*'pathweave\[vlm\]'"):
        load_processor(copy)


def test_quantising_without_the_package_is_refused(directory_of):
    if find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(PathWeaveError, match=r"bitsandbytes must be installed"):
        load_vision_llm(directory_of("llava"), quantise="8bit")


def test_the_tokenizer_of_the_processor_is_that_of_the_directory(directory_of):
    directory = directory_of("gemma3")
    theirs = AutoTokenizer.from_pretrained(directory)
    assert load_processor(directory).tokenizer.get_vocab() == theirs.get_vocab()
