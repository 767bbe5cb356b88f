"""InstructBLIP and BLIP-2 through our modules give what they give through transformers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import OPTForCausalLM, T5Config

from pathweave.bases import llm as llms
from pathweave.bases.llm import (
    SAMPLED_ROWS,
    load_llm,
    load_llm_directory,
    read_config,
    soft_token_scale,
    starts_with_bos,
    use_llm,
)
from pathweave.bases.pretrained import load_pretrained
from pathweave.encoders.eva_clip import EvaClip
from pathweave.errors import FetchError, PathError, PathWeaveError, RecipeError
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium
from tests.published import (
    KINDS,
    QUERIES,
    QUESTION,
    WIDTH,
    picture_bytes,
    tokenizer,
    write_llm,
    write_published,
)
from tests.tiny import (
    FAMILIES,
    byte_tokenizer,
    chain,
    medium,
    randomise,
    tiny_base,
    tiny_llm,
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {kind: write_published(root / kind, kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def published(request, checkpoints):
    return checkpoints[request.param]


@pytest.fixture
def copy(checkpoints, tmp_path):
    """An InstructBLIP to be damaged."""
    return shutil.copytree(checkpoints["instructblip-opt"].directory, tmp_path / "copy")


def load(directory, **options) -> PathWeave:
    return PathWeave(load_pretrained(directory, dtype=torch.float32, **options)).eval()


def embedded(model: PathWeave, features, text=QUESTION):
    with torch.no_grad():
        return model.embed_prompts([[Medium("image", features), text]])


def test_the_logits_are_those_of_transformers(published):
    model, inputs = load(published.directory), published.inputs()
    [ours] = embedded(model, published.features())
    with torch.no_grad():
        theirs = published.model(**inputs).logits[0]
        found = model.llm(inputs_embeds=ours[None]).logits[0]
    assert theirs.std() > 0.1
    torch.testing.assert_close(found, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beams", [1, 5])
def test_the_answers_are_those_of_transformers(published, beams):
    model, inputs = load(published.directory), published.inputs()
    settings = {"max_new_tokens": 10, "num_beams": beams, "do_sample": False}
    start = inputs["input_ids"].shape[1]
    theirs = published.model.generate(**inputs, **settings)[0, start:]
    embeds = torch.stack(embedded(model, published.features()))
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    ours = model.llm.generate(inputs_embeds=embeds, attention_mask=mask, **settings)[0]
    assert ours.tolist() == theirs.tolist()
    prompt = [Medium("image", published.features()), QUESTION]
    said = model.base.tokenizer.decode(theirs, skip_special_tokens=True).strip()
    assert generate(model, [prompt], max_tokens=10, beams=beams) == [said]


@torch.no_grad()
def test_the_qformer_without_text_is_that_of_transformers(checkpoints):
    """InstructBLIP's own calls always pass text; its Q-Former also works without."""
    published = checkpoints["instructblip-llama"]
    model, theirs = load(published.directory), published.model
    seen = theirs.vision_model(published.inputs()["pixel_values"]).last_hidden_state
    without = theirs.qformer(None, query_embeds=theirs.query_tokens, encoder_hidden_states=seen)
    expected = theirs.language_projection(without.last_hidden_state)[0]
    features = [Medium("image", published.features())]
    with_text = model.soft_tokens(features, [QUESTION])[0]
    model.base.text_tokenizer = None
    found = model.soft_tokens(features, [QUESTION])[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(with_text, expected, atol=1e-2)


@pytest.mark.parametrize("text", ["", "A", "How many? Zwölf?"])
def test_the_sequence_is_that_of_the_processor(published, text):
    model, inputs = load(published.directory), published.inputs(text)
    [ours] = embedded(model, published.features(), text)
    ids = inputs["input_ids"][0]
    assert ids[: QUERIES + 1].tolist() == [model.llm.config.vocab_size - 1] * QUERIES + [1]
    theirs = model.llm.get_input_embeddings()(ids)
    assert len(ours) == len(ids)
    assert torch.equal(ours[QUERIES:], theirs[QUERIES:])


def test_the_encoder_of_the_base_gives_the_same_answer(published):
    model = load(published.directory)
    [ready] = model.base.ready_paths
    encoder = EvaClip(published.directory, precision="full")
    assert ready.encoder == {"kind": "eva-clip-g", "directory": str(published.directory)}
    from pathweave.decoders import build_decoder

    frames = build_decoder(**ready.decoder)(picture_bytes(), "picture.png")
    [features] = encoder([frames])
    torch.testing.assert_close(features, published.features(), atol=1e-5, rtol=1e-5)
    inputs = published.inputs()
    theirs = published.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    said = published.processor.decode(
        theirs[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert generate(model, [[Medium("image", features), QUESTION]], 8) == [said.strip()]


def test_a_base_says_what_it_is(published):
    base = load_pretrained(published.directory)
    assert base.kind == published.model.config.model_type
    reads_text = base.kind == "instructblip"
    assert (base.text_tokenizer is not None) == reads_text == (base.qformer.words is not None)
    assert base.template.bos
    assert base.template.separate
    assert base.end_token == 2
    assert base.projector.scale is None
    assert not base.fresh_projector
    assert all(not p.requires_grad for part in (base.llm, base.qformer) for p in part.parameters())
    [ready] = base.ready_paths
    assert (ready.spec.rank, ready.spec.norm_eps, ready.spec.encoder_width) == (0, 1e-6, WIDTH)
    assert PathWeave(base).paths.names == ["image"]


def test_weights_stay_in_the_file(checkpoints):
    """A weight of the wanted type is the page of the file itself: no second copy."""
    published = checkpoints["instructblip-llama"]
    model = load(published.directory)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    own = [line.split()[0].split("-") for line in maps if str(published.directory) in line]
    places = [range(int(start, 16), int(end, 16)) for start, end in own]
    for module in (model.llm, model.qformer, model.projector):
        for parameter in module.parameters():
            assert any(parameter.data_ptr() in place for place in places)
    assert all(not b.is_meta for b in model.llm.buffers())


def test_a_weight_of_another_type_is_converted(checkpoints):
    published = checkpoints["instructblip-opt"]
    base = load_pretrained(published.directory, dtype=torch.bfloat16)
    assert {p.dtype for p in base.llm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in base.qformer.parameters()} == {torch.float32}
    whole = load_pretrained(published.directory, dtype=torch.float32)
    assert base.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize(
    ("native", "stored", "expected"),
    [
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float16, torch.bfloat16),
        (torch.float32, torch.float16, torch.float16),
        (torch.float32, torch.float32, torch.float32),
    ],
)
def test_weights_are_never_widened(tmp_path, monkeypatch, native, stored, expected):
    write_llm(tmp_path, "llama", dtype=stored)
    monkeypatch.setattr(llms, "native_dtype", lambda: native)
    assert load_llm_directory(tmp_path).model.dtype == expected


@pytest.mark.parametrize("safe", [True, False])
def test_shards_and_pickles_are_read(checkpoints, tmp_path, safe):
    one = checkpoints["blip2-opt"]
    if safe:
        write_published(tmp_path / "other", "blip2-opt", max_shard_size="20KB")
        assert len(list((tmp_path / "other").glob("model-*.safetensors"))) > 2
    else:
        shutil.copytree(one.directory, tmp_path / "other")
        state = load_file(tmp_path / "other" / "model.safetensors")
        half = len(state) // 2
        shards = {
            "pytorch_model-1.bin": list(state)[:half],
            "pytorch_model-2.bin": list(state)[half:],
        }
        for file, names in shards.items():
            torch.save({n: state[n] for n in names}, tmp_path / "other" / file)
        index = {name: file for file, names in shards.items() for name in names}
        (tmp_path / "other" / "pytorch_model.bin.index.json").write_text(
            json.dumps({"weight_map": index}), encoding="utf-8"
        )
        (tmp_path / "other" / "model.safetensors").unlink()
    a, b = load_pretrained(one.directory), load_pretrained(tmp_path / "other")
    assert a.fingerprint() == b.fingerprint()


def test_another_language_model_of_the_same_width_keeps_the_projector(checkpoints, tmp_path):
    write_llm(tmp_path / "llm", "llama")
    published = checkpoints["instructblip-opt"]
    own, other = (
        load(published.directory),
        load(published.directory, llm_directory=tmp_path / "llm"),
    )
    assert other.llm.config.model_type == "llama"
    assert not other.base.fresh_projector
    weight = other.projector.linear.host.weight
    assert torch.equal(weight, own.projector.linear.host.weight)
    assert other.base.fingerprint() != own.base.fingerprint()
    assert other.base.template.bos
    assert len(generate(other, [[Medium("image", published.features()), QUESTION]], 3)) == 1


def test_one_of_another_width_starts_the_projector_anew(checkpoints, tmp_path):
    write_llm(tmp_path / "llm", "llama", width=48)
    published = checkpoints["blip2-opt"]
    model = load(published.directory, llm_directory=tmp_path / "llm")
    assert model.base.fresh_projector
    spread = model.llm.get_input_embeddings().weight.std()
    soft = model.soft_tokens([Medium("image", published.features())], [""])[0]
    torch.testing.assert_close(soft.std(1), (1.5 * spread).expand(QUERIES), rtol=0.05, atol=0)


def test_any_base_takes_another_language_model(tmp_path):
    write_llm(tmp_path, "opt", width=48)
    base = tiny_base()
    use_llm(base, tmp_path)
    assert (base.llm.config.model_type, base.fresh_projector) == ("opt", True)
    assert base.template.after == " Answer:"
    assert base.template.bos


@pytest.mark.parametrize("family", FAMILIES)
def test_soft_tokens_are_a_little_larger_than_text(tmp_path, family):
    words = byte_tokenizer()
    settings = {**FAMILIES[family], "hidden_size": 64, "vocab_size": 2 * SAMPLED_ROWS}
    llm = tiny_llm(words, settings.pop("llm"), **settings)
    llm.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    base = tiny_base()
    use_llm(base, tmp_path)
    model = PathWeave(base, {})
    randomise(model.paths.expand(chain("sound")[0]))
    text = model.llm.get_input_embeddings()(torch.arange(llm.config.vocab_size))
    with torch.no_grad():
        soft = model.soft_tokens([medium("sound", units=8)], ["What?"])[0]
    torch.testing.assert_close(soft.std() / text.std(), torch.tensor(1.5), rtol=0.05, atol=0)


def test_an_unscaled_embedding_is_measured_as_its_table(tmp_path):
    """To the last bit: the scale is part of the fingerprint of runs."""
    write_llm(tmp_path, "llama", width=48)
    llm = load_llm_directory(tmp_path).model
    table = llm.get_input_embeddings().weight
    for every in (1, 3):
        assert soft_token_scale(llm, every) == 1.5 * table[::every].float().std().item()


def test_where_generation_stops_is_read_from_the_checkpoint(tmp_path):
    write_llm(tmp_path, "llama")
    assert load_llm_directory(tmp_path).model.generation_config.eos_token_id == 2
    settings = {"eos_token_id": [7, 2], "do_sample": True, "temperature": 0.3}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    base = tiny_base()
    use_llm(base, tmp_path)
    assert base.llm.generation_config.eos_token_id == [7, 2]
    assert not base.llm.generation_config.do_sample
    assert base.end_token == 2
    base.llm.generation_config.eos_token_id = [7, 8]
    assert base.end_token == 7
    base.llm.generation_config.eos_token_id = None
    assert base.end_token == 2


def test_quantising_needs_its_library(checkpoints):
    with pytest.raises(
        PathWeaveError, match=r"bitsandbytes must be .* pip install 'pathweave\[quant"
    ):
        load_pretrained(checkpoints["blip2-opt"].directory, quantise="4bit")


@pytest.mark.parametrize(("bits", "flag"), [("8bit", "load_in_8bit"), ("4bit", "load_in_4bit")])
def test_quantising_is_done_by_transformers(checkpoints, monkeypatch, bits, flag):
    """The library is not installed here: what it would be asked for is what is tested."""
    asked, whole = {}, OPTForCausalLM.from_pretrained

    def from_pretrained(*args, quantization_config=None, device_map=None, **options):
        asked.setdefault("config", quantization_config)
        asked.setdefault("devices", device_map)
        return whole(*args, **options)

    monkeypatch.setattr(llms, "import_extra", lambda module, extra: (module, extra))
    monkeypatch.setattr(OPTForCausalLM, "from_pretrained", from_pretrained)
    base = load_pretrained(checkpoints["blip2-opt"].directory, quantise=bits)
    assert getattr(asked["config"], flag)
    assert asked["devices"].keys() == {""}
    # Quantised weights take other forms as they are used; the base stays the same.
    before = base.fingerprint()
    base.llm.model.decoder.layers[0].fc1.weight.data.zero_()
    assert base.fingerprint() == before
    assert before != load_pretrained(checkpoints["blip2-opt"].directory).fingerprint()


def edit(directory, **changes):
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def test_a_model_without_a_qformer_is_refused(tmp_path):
    write_llm(tmp_path, "llama")
    with pytest.raises(
        RecipeError,
        match=r"must hold an InstructBLIP or a BLIP-2, which have .* Q-Former.*, got 'llama'; name",
    ):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"got 'llava'; name one of these as base"):
        load_pretrained(tmp_path)


def test_an_encoder_decoder_is_refused(copy):
    edit(copy, text_config=T5Config(d_model=32, num_layers=1, num_heads=2).to_dict())
    with pytest.raises(RecipeError, match=r"must be causal \(decoder only\), got 't5'; choose"):
        load_pretrained(copy)


def test_a_model_whose_layers_look_up_the_words_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma3n_text", "hidden_size_per_layer_input": 8}),
        encoding="utf-8",
    )
    with pytest.raises(RecipeError, match=r"from embeddings alone, got 'gemma3n_text', whose"):
        load_llm(read_config(tmp_path), {}, tmp_path)


def test_another_activation_of_the_qformer_is_refused(copy):
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    edit(copy, qformer_config={**config["qformer_config"], "hidden_act": "relu"})
    with pytest.raises(RecipeError, match="must use gelu, got 'relu'"):
        load_pretrained(copy)


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "unheard_of"}', "{}"])
def test_a_broken_configuration_is_refused(copy, content):
    file = copy / "config.json"
    file.unlink() if content is None else file.write_text(content, encoding="utf-8")
    with pytest.raises(FetchError, match=r"must hold the config\.json of a model of transformers"):
        load_pretrained(copy)


@pytest.mark.parametrize("part", ["", "qformer_tokenizer"])
def test_a_missing_tokenizer_is_named(copy, part):
    (copy / part / "tokenizer.json").unlink()
    with pytest.raises(FetchError, match=rf"{part} must hold a tokenizer \(tokenizer\.json.*place"):
        load_pretrained(copy)


def test_a_damaged_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").write_text('{"cut', encoding="utf-8")
    with pytest.raises(
        FetchError, match=r"must hold a whole tokenizer, got .*; download its files"
    ):
        load_pretrained(copy)


def test_a_truncated_file_is_refused(copy):
    file = copy / "model.safetensors"
    data = file.read_bytes()
    for size in (0, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(
            FetchError, match=r"must be a whole file of weights, got .* MB .*partly"
        ):
            load_pretrained(copy)


def test_missing_shards_are_named(tmp_path):
    directory = write_published(tmp_path, "blip2-opt", max_shard_size="20KB").directory
    shards = sorted(directory.glob("model-*.safetensors"))
    shards[1].unlink()
    with pytest.raises(FetchError, match=rf"all {len(shards)} files .* no {shards[1].name};"):
        load_pretrained(directory)
    for shard in shards[2:]:
        shard.unlink()
    with pytest.raises(
        FetchError, match=r"got no model-0.*, model-0.*, model-0.* \.\.\.; download"
    ):
        load_pretrained(directory)
    (directory / "model.safetensors.index.json").write_text("[]", encoding="utf-8")
    with pytest.raises(FetchError, match=r"index\.json must list the shards .* download it again"):
        load_pretrained(directory)
    (directory / "model.safetensors.index.json").unlink()
    with pytest.raises(FetchError, match=r"must hold model\.safetensors or .*, got none; download"):
        load_pretrained(directory)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("language_model.model.decoder.layers.1.fc1.weight", r"every weight of its language .* no"),
        ("language_model.model.decoder.embed_tokens.weight", r"every weight of its language .* no"),
        (
            "qformer.encoder.layer.2.output_query.dense.bias",
            r"Q-Former's layers\.2\.query_ffn.*none",
        ),
        ("language_projection.weight", r"the projection's linear\.host\.weight .*got none"),
        ("query_tokens", r"must hold the tensor query_tokens, got none of that name"),
        ("vision_model.post_layernorm.bias", r"must hold the tensor vision_model\.post_layernorm"),
    ],
)
def test_a_missing_tensor_is_named(copy, name, message):
    state = load_file(copy / "model.safetensors")
    del state[name]
    save_file(state, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(FetchError, match=message):
        load_pretrained(copy)


@pytest.mark.parametrize(
    ("section", "field", "message"),
    [
        ("text_config", "ffn_dim", r"of the shapes that its config\.json says, got others"),
        ("qformer_config", "intermediate_size", r"Q-Former's .* of shape .*; config\.json and"),
        ("qformer_config", "vocab_size", r"Q-Former's words\.weight of shape .*, got \[261, 16\]"),
    ],
)
def test_weights_of_another_size_are_refused(copy, section, field, message):
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    edit(copy, **{section: {**config[section], field: 40}})
    with pytest.raises(FetchError, match=message):
        load_pretrained(copy)


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def test_a_pickle_that_would_run_code_is_refused(copy, capsys):
    (copy / "model.safetensors").unlink()
    torch.save({"query_tokens": Evil()}, copy / "pytorch_model.bin")
    with pytest.raises(FetchError, match=r"with tensors and plain values alone, got \S*print, w"):
        load_pretrained(copy)
    (copy / "pytorch_model.bin").write_bytes(b"damaged")
    with pytest.raises(FetchError, match=r"must be a whole file of weights"):
        load_pretrained(copy)
    torch.save([torch.ones(1)], copy / "pytorch_model.bin")
    with pytest.raises(FetchError, match=r"cannot be read \(a list in place of tensors by name\)"):
        load_pretrained(copy)
    assert "this ran" not in capsys.readouterr().out


def test_features_of_another_width_are_refused(checkpoints):
    model = load(checkpoints["blip2-opt"].directory)
    with pytest.raises(
        PathError, match=r"'image' must be given features of width 24, got 12; name"
    ):
        model.soft_tokens([Medium("image", torch.zeros(1, 3, 12))], [""])


def test_whether_a_tokenizer_starts_a_sequence():
    assert starts_with_bos(tokenizer("<s>"))
    assert not starts_with_bos(tokenizer())
    assert not starts_with_bos(tokenizer("[CLS]"))
    without = tokenizer("<s>")
    without.bos_token = None
    assert not starts_with_bos(without)
