from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from pathweave.errors import PathError, RunError
from pathweave.model.generate import generate
from pathweave.model.laid_out import pad
from pathweave.model.paths import PathSpec
from pathweave.model.prompt import Medium, Template, token_ids
from pathweave.model.rank import log_likelihoods
from pathweave.nn.hooked import carrying
from tests.published import tokenizer
from tests.tiny import FAMILIES, WIDTH, chain, medium, tiny_model


@pytest.fixture
def model():
    return tiny_model(*chain("sight", "sound", "range"))


def varied_prompts():
    """Prompts of unequal length: of one path and another, of several media, of text alone."""
    return [
        [medium("sound", seed=1), "What is it?"],
        ["Look here:", medium("range", units=2, tokens=3, seed=2), "and", medium("sight"), "Same?"],
        ["Say hello."],
        [medium("sight", tokens=1, seed=3)],
    ]


ANSWERS = ["a dog", "no, it is another", "hello", "b"]


def said(model, embeds):
    """The words among the embeddings of a prompt; what is no word is a bullet."""
    table = model.llm.get_input_embeddings().weight
    words = ""
    for row in embeds:
        found = (table == row).all(-1).nonzero()
        words += model.base.tokenizer.decode(found[0]) if len(found) else "*"
    return words


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers_on_the_assembled_sequence(family):
    model = tiny_model(*chain("sight", "sound", "range"), **FAMILIES[family])
    prompts = varied_prompts()
    rows, labels = [], []
    for before, answer in zip(model.embed_prompts(prompts), ANSWERS, strict=True):
        ids = torch.tensor([*model.base.tokenizer.encode(f" {answer}"), 0])
        rows.append(torch.cat([before, model.llm.get_input_embeddings()(ids)]))
        labels.append(torch.cat([torch.full((len(before),), -100), ids]))
    embeds, mask = pad(rows, side="right")
    labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    theirs = model.llm(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss
    loss, count = model(prompts, ANSWERS)
    assert count == sum(len(f" {answer}") + 1 for answer in ANSWERS)
    torch.testing.assert_close(loss / count, theirs, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_logits_are_made_at_the_tokens_of_the_answers_alone(model):
    shapes = []
    model.llm.get_output_embeddings().register_forward_hook(
        lambda _, args, logits: shapes.append(tuple(logits.shape))
    )
    _, count = model(varied_prompts(), ANSWERS)
    assert shapes == [(count, len(model.base.tokenizer))]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_embedded_by_the_module(family):
    """What the language model makes of embeddings is what it makes of the words themselves."""
    model = tiny_model(*chain("sight"), **FAMILIES[family])
    text = "Say hello. Answer:"
    [embeds] = model.embed_prompts([["Say hello."]])
    ids = torch.tensor([model.base.tokenizer.encode(text)])
    expected = model.llm(input_ids=ids).logits
    assert expected.std() > 0.01
    torch.testing.assert_close(model.llm(inputs_embeds=embeds[None]).logits, expected)


@torch.no_grad()
def test_the_loss_of_a_batch_is_the_sum_of_single_losses(model):
    prompts = varied_prompts()
    together, count = model(prompts, ANSWERS)
    single = [model([prompt], [answer]) for prompt, answer in zip(prompts, ANSWERS, strict=True)]
    torch.testing.assert_close(together, sum(loss for loss, _ in single), atol=1e-4, rtol=1e-5)
    assert count == sum(n for _, n in single)


@torch.no_grad()
def test_the_loss_needs_no_look_at_the_last_token(model):
    prompt, answer = varied_prompts()[0], "a dog"
    laid_out = model.lay_out([prompt])
    [row] = [prefix + rest for prefix, rest in laid_out.rows]
    said = model.answer_ids(answer)
    with carrying(laid_out.ride):
        logits = model.llm(input_ids=torch.tensor([[*row, *said]])).logits[0]
    expected = F.cross_entropy(logits[len(row) - 1 : -1], said, reduction="sum")
    torch.testing.assert_close(model([prompt], [answer])[0], expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_tokens_that_are_read_are_counted_and_padding_among_them(model):
    model.prefixes.are_shareable = False
    prompts = [["What is it?", medium("sound")], ["What is it?", medium("sound", units=2)]]
    answers = ["a dog", "a cat in a boat"]
    lengths = [
        model.length(prompt) + len(model.answer_ids(answer)) - 1
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    read = Counter()
    model(prompts, answers, read)
    assert read == {"tokens": 2 * max(lengths), "padding": max(lengths) - min(lengths)}


@torch.no_grad()
def test_each_unit_reads_the_instruction_of_its_own_medium(model):
    media = [medium("sound", units=3, seed=1), medium("sound", units=2, seed=2)]
    texts = ["What is it?", "Who speaks, and how loudly?"]
    together = model.soft_tokens(media, texts)
    for i in range(2):
        alone = model.soft_tokens([media[i]], [texts[i]])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-5)
    swapped = model.soft_tokens(media, texts[::-1])
    assert not torch.allclose(together[0], swapped[0], atol=1e-3)


@torch.no_grad()
def test_units_follow_each_other(model):
    whole = medium("sound", units=3)
    tokens = model.soft_tokens([whole], ["What?"])[0]
    assert tokens.shape == (9, 32)
    for i, unit in enumerate(whole.features):
        alone = model.soft_tokens([Medium("sound", unit[None])], ["What?"])[0]
        torch.testing.assert_close(tokens[3 * i : 3 * i + 3], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_words_stand_where_the_prompt_puts_them(model):
    model.cues["sight"] = ""
    texts = [said(model, embeds) for embeds in model.embed_prompts(varied_prompts())]
    assert texts == [
        "sound:*** What is it? Answer:",
        "Look here: range:****** and*** Same? Answer:",
        "Say hello. Answer:",
        "*** Answer:",
    ]
    several = model.embed_prompts([["One.", " Two. ", medium("sound"), "A", "b", medium("range")]])
    assert said(model, several[0]) == "One. Two. sound:*** A b range:*** Answer:"


@torch.no_grad()
def test_the_template_of_the_base_is_put_around(model):
    model.base.template = Template(bos=True, before="[user] ", after="\n[model]", end="[end]")
    prompts = [["Say hello."], [medium("sound"), "What?"]]
    texts = [said(model, embeds) for embeds in model.embed_prompts(prompts)]
    assert texts == [
        "<end>[user] Say hello.\n[model]",
        "<end>[user] sound:*** What?\n[model]",
    ]
    assert model.base.tokenizer.decode(model.answer_ids(" a dog ")) == " a dog[end]<end>"


@torch.no_grad()
def test_texts_may_be_sequences_of_their_own(model):
    model.base.template = Template(bos=True, separate=True, before="Hm.", after="?")
    model.cues["sound"] = " sound: "
    prompts = [
        [medium("sound"), medium("range"), " What is it "],
        ["See this", medium("sound"), "One.", "Two."],
        [medium("sound")],
        [],
    ]
    texts = [said(model, embeds) for embeds in model.embed_prompts(prompts)]
    assert texts == [
        "<end>Hm.<end> sound: ***<end>range:***<end>What is it?",
        "<end>Hm. See this<end> sound: ***<end>One. Two.?",
        "<end>Hm.<end> sound: ***<end>?",
        "<end>Hm.?",
    ]
    model.base.template = Template(separate=True)
    model.cues.clear()
    texts = [said(model, embeds) for embeds in model.embed_prompts(prompts[:3])]
    assert texts == ["******What is it", "See this***One. Two.", "***"]


@torch.no_grad()
def test_a_tokenizer_that_puts_a_space_before_every_text_puts_it_once(model):
    model.base.tokenizer = tokenizer(leading_space=True)
    decoded = model.base.tokenizer.decode
    ids = [token_ids(model.base.tokenizer, text) for text in ("What", " What")]
    assert [decoded(found) for found in ids] == [" What", " What"]
    assert decoded(model.answer_ids("a dog")[:-1]) == " a dog"


@torch.no_grad()
def test_a_base_without_text_takes_none():
    model = tiny_model(*chain("sight", "sound"), text=False)
    one, other = (model.soft_tokens([medium("sound")], [text])[0] for text in ("This?", "That?"))
    assert torch.equal(one, other)


@torch.no_grad()
def test_a_long_instruction_is_cut_to_what_the_qformer_can_read(model):
    long = "word " * 40
    found = model.soft_tokens([medium("sound")], [long])[0]
    assert torch.equal(found, model.soft_tokens([medium("sound")], [long[:64]])[0])


@torch.no_grad()
@pytest.mark.parametrize(("positions", "read"), [(64, 64), (128, 128), (300, 128)])
def test_the_qformer_reads_the_start_of_an_instruction(positions, read):
    """A word before the cut changes the tokens, one behind it does not."""
    model = tiny_model(*chain("sight", "sound"), max_positions=positions)
    long = "word " * 60
    changed = {at: long[:at] + "!" + long[at + 1 :] for at in (read - 2, read)}
    [whole], [before], [behind] = (
        model.soft_tokens([medium("sound")], [text])
        for text in (long, changed[read - 2], changed[read])
    )
    assert not torch.equal(whole, before)
    assert torch.equal(whole, behind)


@torch.no_grad()
def test_paths_may_differ_in_width_of_features(model):
    model.paths.expand(PathSpec("wide", encoder_width=2 * WIDTH, num_queries=3, rank=2))
    media = [medium("wide", width=2 * WIDTH), medium("sound")]
    texts = ["What?", "Who?"]
    together = model.soft_tokens(media, texts)
    for i in range(2):
        alone = model.soft_tokens([media[i]], [texts[i]])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-5)


def test_an_unknown_path_is_named_with_the_nearest(model):
    with pytest.raises(PathError, match=r"path must be one of .*'sonud'; did you mean 'sound'\?"):
        model([[medium("sonud"), "What?"]], ["a dog"])


def test_no_media_no_tokens(model):
    assert model.soft_tokens([], []) == []


def test_training_mode_is_for_what_is_trained(model):
    model.paths["range"].requires_grad_(True)
    model.train()
    assert model.training
    assert all(module.training for module in model.paths["range"].modules())
    for frozen in (model.llm, model.qformer, model.projector, model.paths["sound"]):
        assert not any(module.training for module in frozen.modules())
    model.projector.requires_grad_(True)
    model.train()
    assert model.projector.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_what_is_longer_than_the_language_model_reads_is_refused_by_name(model):
    limit = model.llm.config.max_position_embeddings = 64
    model.eval()
    sight = medium("sight")
    room = limit - len(model.embed_prompts([[sight, ""]])[0])
    fits, longer = [sight, "a" * (room - 10)], [sight, "a" * (room - 9)]
    model([fits], ["b" * 8])  # with a space and the end: 10 tokens
    generate(model, [fits], max_tokens=10)
    log_likelihoods(model, [fits], ["b" * 8])
    said = "must have at most 64 tokens, the context of the language model, got 55 and 10; shorten"
    with pytest.raises(RunError, match=said):
        model([longer], ["b" * 8])
    with pytest.raises(RunError, match=said):
        generate(model, [longer], max_tokens=10)
    with pytest.raises(RunError, match=said):
        log_likelihoods(model, [longer], ["b" * 8])
    assert model.misfit(fits, "b" * 8) is None
    assert "got 55 and 10" in model.misfit(longer, "b" * 8)


@pytest.mark.parametrize("prompt", [[], [""], [" "]])
def test_a_prompt_without_tokens_is_refused(model, prompt):
    model.base.template = Template()
    model.eval()
    said = "must put at least one token, of text or of a medium, before its answer, got none; give"
    # In company too: the rest of the batch would lend it its last position.
    for prompts in ([prompt], [["What?"], prompt], [[medium("sight"), "What?"], prompt]):
        with pytest.raises(RunError, match=said):
            model(prompts, ["a dog"] * len(prompts))
        with pytest.raises(RunError, match=said):
            generate(model, prompts, max_tokens=2)
        with pytest.raises(RunError, match=said):
            log_likelihoods(model, prompts, ["a dog"] * len(prompts))
    assert said in model.misfit(prompt, "a dog")
    model.base.template = Template(before="User:")
    model([prompt], ["a dog"])
    assert model.misfit(prompt, "a dog") is None
