"""Conversations are laid out as transformers lays them out, with media of paths in their places."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, PreTrainedTokenizerFast

from pathweave.errors import RecipeError, RequestError
from pathweave.model.chat import PLACE, Native, Turn, lay_out_chats
from pathweave.model.prompt import Medium
from tests.published import tokenizer as published_tokenizer
from tests.tiny import byte_tokenizer, medium
from tests.vision_llms import (
    BOS,
    EOS,
    FAMILIES,
    WITH_PROCESSOR,
    picture,
    tokenizer_of,
    write_processor,
)

# The processor of PaliGemma turns tensors to arrays in a way that numpy is about to forbid.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CUES = {"sound": "audio:"}
SOUND = medium("sound")


WORDS_ALONE = (
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
LIST_AS_IT_IS = WORDS_ALONE.replace("+ m['content']", "~ m['content']")


def fresh_processor(name):
    with TemporaryDirectory() as directory:
        write_processor(directory, name)
        return AutoProcessor.from_pretrained(directory)


processor_of = cache(fresh_processor)


@pytest.fixture(params=WITH_PROCESSOR)
def name(request):
    return request.param


@pytest.fixture
def processor(name):
    return processor_of(name)


def pictures(*sizes):
    return [Native("image", picture(*size, seed=i)) for i, size in enumerate(sizes)]


def message(role, *pieces):
    parts = [
        {"type": "text", "text": p} if isinstance(p, str) else {"type": p.kind, p.kind: p.data}
        for p in pieces
    ]
    return {"role": role, "content": parts}


def theirs(processor, *chats):
    """What transformers makes of chats by itself, without padding."""
    read = processor.apply_chat_template(
        list(chats),
        chat_template=getattr(processor, "tokenizer", processor).chat_template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "right"},
    )
    read.pop("labels", None)
    return dict(read)


def assert_equal(ours, read):
    """A batch of rows without media of paths is what transformers made of it."""
    mask = read.pop("attention_mask").bool()
    assert [row[0] for row in ours.rows] == [
        tuple(ids[kept].tolist()) for ids, kept in zip(read["input_ids"], mask, strict=True)
    ]
    assert all(len(row) == 1 for row in ours.rows)
    for along in ours.alongside:
        assert {"input_ids", *along, *ours.inputs} == read.keys()
    for name in ours.alongside[0]:
        for row, values, kept in zip(ours.alongside, read[name], mask, strict=True):
            assert torch.equal(row[name], values[kept])
    for name, tensor in ours.inputs.items():
        assert torch.equal(tensor, read[name]), name


ONE = pictures((32, 32))
TWO = [*pictures((32, 32), (64, 32))]
CHATS = {
    "words": [message("user", "What is it?")],
    "a picture": [message("user", *ONE, "What is it?")],
    "two pictures": [message("user", TWO[0], "Is it", TWO[1], "or not?")],
    "turns": [
        message("user", *ONE, "What is it?"),
        message("assistant", "A picture of noise."),
        message("user", "Really?"),
    ],
}


def prompt_of(chat):
    prompt = []
    for turn in chat:
        prompt.append(Turn(turn["role"]))
        prompt += [
            p["text"] if p["type"] == "text" else Native(p["type"], p[p["type"]])
            for p in turn["content"]
        ]
    return prompt


@pytest.mark.parametrize("kind", CHATS)
def test_a_prompt_without_foreign_media_is_what_transformers_makes_of_it(processor, name, kind):
    if name == "paligemma" and kind == "words":
        pytest.skip("its processor refuses what has no picture")
    chat = CHATS[kind]
    ours = lay_out_chats([prompt_of(chat)], processor, CUES)
    assert_equal(ours, theirs(processor, chat))


def test_in_a_batch_a_prompt_is_what_it_is_alone(processor, name):
    chats = [CHATS[kind] for kind in ("a picture", "two pictures", "words", "turns")]
    if name == "paligemma":  # its processor refuses what has no picture
        chats.pop(2)
    if name == "mllama":  # all prompts have as many
        chats = [CHATS["a picture"], CHATS["turns"]]
    ours = lay_out_chats([prompt_of(chat) for chat in chats], processor, CUES)
    assert_equal(ours, theirs(processor, *chats))
    for i, chat in enumerate(chats):
        alone = lay_out_chats([prompt_of(chat)], processor, CUES)
        assert ours.rows[i] == alone.rows[0]
        assert ours.alongside[i].keys() >= alone.alongside[0].keys()
        for key, tensor in alone.alongside[0].items():
            assert torch.equal(ours.alongside[i][key], tensor)


def test_a_prompt_without_pictures_is_the_same_beside_one_with_pictures(processor, name):
    prompts = [["Is it", SOUND, "or not?"], [*ONE, "What?"], ["What is it?"]]
    if name == "mllama":
        two = [*TWO, "Which?"]
        for batch in (prompts, prompts[:2], prompts[1:], [prompts[1], two]):
            with pytest.raises(RequestError, match=r"got .* ask prompts with more or fewer media"):
                lay_out_chats(batch, processor, CUES)
        return
    together = lay_out_chats(prompts, processor, CUES)
    for i in (0, 2):
        alone = lay_out_chats([prompts[i]], processor, CUES)
        assert same_row(together.rows[i], alone.rows[0])
        length = len(together.rows[i][0]) if i == 2 else sum(map(entries, together.rows[i]))
        for tensor in together.alongside[i].values():
            assert len(tensor) == length
            assert not tensor.any()


def entries(piece):
    return 1 if isinstance(piece, Medium) else len(piece)


def same_row(a, b):
    """Whether two rows have the same ids and the very same media."""
    return len(a) == len(b) and all(
        x is y if isinstance(x, Medium) else x == y for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("alone", [True, False])
def test_a_foreign_medium_leaves_the_words_beside_it_as_they_are(name, alone):
    """With the tokenizer alone, and with the processor where there is one."""
    family = FAMILIES[name]
    if alone:
        reader = tokenizer = tokenizer_of(family)
        tokenizer.chat_template = family.template
    elif family.has_processor:
        reader = processor_of(name)
        tokenizer = reader.tokenizer
    else:
        pytest.skip(f"needs {family.needs}")
    other = medium("range", seed=1)
    row = lay_out_chats([["Hear", SOUND, other, "How far?"]], reader, CUES).rows[0]
    text = tokenizer.apply_chat_template(
        [message("user", "Hear audio:@ @ How far?")],
        chat_template=family.template,
        add_generation_prompt=True,
        tokenize=False,
    )
    words = [tuple(tokenizer.encode(part, add_special_tokens=False)) for part in text.split("@")]
    bos = tokenizer.bos_token_id
    if not alone and family.adds_bos and words[0][0] != bos:
        words[0] = (bos, *words[0])
    assert same_row(row, [words[0], SOUND, words[1], other, words[2]])


def test_media_of_both_kinds_may_stand_in_one_prompt(processor):
    row = lay_out_chats([[*ONE, "Hear", SOUND, "Which?"]], processor, CUES)
    plain = lay_out_chats([[*ONE, "Hear audio: Which?"]], processor, CUES)
    before, sound, after = row.rows[0]
    assert sound is SOUND
    assert (*before, *after) == plain.rows[0][0]
    for name, tensor in row.alongside[0].items():
        at = len(before)
        without = torch.cat([tensor[:at], tensor[at + 1 :]])
        assert torch.equal(without, plain.alongside[0][name])
        assert torch.equal(tensor[at], tensor[at + 1])
    for name, tensor in row.inputs.items():
        assert torch.equal(tensor, plain.inputs[name])


@pytest.mark.parametrize("name", ["llava", "gemma3", "idefics3", "aya_vision"])
def test_a_system_text_and_several_turns_are_laid_out(name):
    processor = processor_of(name)
    chat = [
        message("system", "Be brief."),
        message("user", "What is it?"),
        message("assistant", "A bell."),
        message("user", "How far?"),
    ]
    ours = lay_out_chats([prompt_of(chat)], processor, CUES)
    assert_equal(ours, theirs(processor, chat))
    prompt = prompt_of(chat)
    prompt.insert(3, SOUND)
    with_sound = lay_out_chats([prompt], processor, CUES).rows[0]
    assert with_sound[1] is SOUND
    said = processor.tokenizer.decode([*with_sound[0], *with_sound[2]])
    assert all(
        words in said for words in ("Be brief.", "audio: What is it?", "A bell.", "How far?")
    )


RESERVED = ("<image>", PLACE, EOS, BOS, "<end_of_utterance>", "<fake_token_around_image>")


@settings(max_examples=30)
@given(st.lists(st.sampled_from([*RESERVED, "a", "<", " ", "é", "\n", PLACE[:4]]), max_size=6))
def test_the_name_of_a_special_token_is_plain_text(parts):
    """It says the same letters to the language model, and takes no place from a medium."""
    processor = processor_of("idefics3")
    tokenizer = processor.tokenizer
    text = "".join(parts)
    ours = lay_out_chats([[text, SOUND], [*ONE, text], [text]], processor, CUES)
    empty = lay_out_chats([["", SOUND], [*ONE, ""], [""]], processor, CUES)
    special = set(tokenizer.all_special_ids) | {len(tokenizer)}
    for row, other in zip(ours.rows, empty.rows, strict=True):
        assert [x for x in row if isinstance(x, Medium)] == [
            x for x in other if isinstance(x, Medium)
        ]
        ids, others = ([i for x in r if isinstance(x, tuple) for i in x] for r in (row, other))
        assert [i for i in ids if i in special] == [i for i in others if i in special]
        assert text in tokenizer.decode([i for i in ids if i not in special])


def test_a_cue_cannot_be_a_special_token_either():
    processor = processor_of("llava")
    row = lay_out_chats([[SOUND, "What?"]], processor, {"sound": "<image>"}).rows[0]
    assert processor.image_token_id not in row[0]
    assert processor.tokenizer.decode(row[0]).endswith("<image>")


def test_a_special_token_of_one_letter_is_refused():
    tokenizer = tokenizer_of(FAMILIES["llava_onevision"])
    tokenizer.add_tokens(["@"], special_tokens=True)
    tokenizer.chat_template = FAMILIES["llava_onevision"].template
    with pytest.raises(RequestError, match=r"no special token of the base .* got '@'; leave it"):
        lay_out_chats([["a@b"]], tokenizer, CUES)


def test_one_space_stands_after_a_medium_where_the_tokenizer_puts_one_itself():
    tokenizer = published_tokenizer("<s>", leading_space=True)
    tokenizer.chat_template = WORDS_ALONE
    before, sound, after = lay_out_chats([["a <s> b", SOUND, "what?"]], tokenizer, CUES).rows[0]
    assert sound is SOUND
    said = tokenizer.decode(before), tokenizer.decode(after)
    assert said == (" [user]a <s> b audio:", " what?[assistant]")
    assert tokenizer.bos_token_id not in before


def test_base_and_tokenizer_stay_as_they_are():
    processor = processor_of("llava")
    tokenizer = processor.tokenizer

    def state():
        settings = tokenizer.padding_side, tokenizer.pad_token, list(tokenizer.model_input_names)
        return dict(tokenizer.get_vocab()), settings, dict(vars(processor))

    before = state()
    lay_out_chats([[*ONE, "What is", SOUND]], processor, CUES)
    assert PLACE not in tokenizer.get_vocab()
    assert processor.tokenizer is tokenizer
    assert state() == before


def test_a_tokenizer_may_have_no_padding_and_know_the_token_of_places():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer().backend_tokenizer)
    tokenizer.add_tokens([PLACE], special_tokens=True)
    tokenizer.chat_template = WORDS_ALONE
    assert tokenizer.pad_token is None
    rows = lay_out_chats([["a", SOUND, PLACE], ["b"]], tokenizer, CUES).rows
    assert [isinstance(piece, Medium) for piece in rows[0]] == [False, True, False]
    assert [tokenizer.decode(rows[0][i]) for i in (0, 2)] == [
        "[user]a audio:",
        f" {PLACE}[assistant]",
    ]
    assert tokenizer.decode(rows[1][0]) == "[user]b[assistant]"


def test_threads_may_lay_out_at_once():
    processor = processor_of("idefics3")
    jobs = [
        [[*ONE, "a" * i, SOUND], ["b" * (20 - i), "<image>"]] if i % 2 else [["c" * i]]
        for i in range(16)
    ]
    alone = [lay_out_chats(job, processor, CUES) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda job: lay_out_chats(job, processor, CUES), jobs))
    for a, b in zip(alone, found, strict=True):
        assert all(map(same_row, a.rows, b.rows))


@pytest.mark.parametrize("template", [WORDS_ALONE, LIST_AS_IT_IS])
@pytest.mark.parametrize("with_processor", [True, False])
def test_a_template_may_take_words_alone(template, with_processor):
    reader = fresh_processor("llava") if with_processor else byte_tokenizer()
    tokenizer = getattr(reader, "tokenizer", reader)
    reader.chat_template = template
    prompt = [Turn("system"), "Be brief.", Turn("user"), "Hear", SOUND, "What?"]
    before, sound, after = lay_out_chats([prompt], reader, CUES).rows[0]
    assert sound is SOUND
    said = tokenizer.decode(before), tokenizer.decode(after)
    assert said[0].removeprefix(BOS) == "[system]Be brief.[user]Hear audio:"
    assert said[1] == " What?[assistant]"


@pytest.mark.parametrize("with_processor", [True, False])
def test_a_base_without_a_chat_template_is_refused(with_processor):
    reader = fresh_processor("llava") if with_processor else byte_tokenizer()
    if with_processor:
        reader.chat_template = reader.tokenizer.chat_template = None
    with pytest.raises(RecipeError, match=r"must have a chat template .* got a .*; place its"):
        lay_out_chats([["Hello"]], reader, CUES)


@pytest.mark.parametrize(
    ("name", "prompt", "error"),
    [
        (
            "paligemma",
            [Turn("system"), "Be brief.", Turn("user"), "a"],
            "System role not supported",
        ),
        ("gemma3", [Turn("user"), "a", Turn("user"), "b"], "roles must alternate"),
        ("llava", [Turn("user"), "a", Turn("assistant"), "b"], "got a turn of the assistant at"),
        ("llava", [Native("smell", 1), "a"], "got 'smell' for LlavaProcessor; choose another"),
        (
            "llava",
            [Native("image", 1), "a"],
            r"one that LlavaProcessor reads, got '.*'; give media",
        ),
    ],
)
def test_what_a_base_does_not_take_is_refused(name, prompt, error):
    with pytest.raises(RequestError, match=error):
        lay_out_chats([prompt], processor_of(name), CUES)


def test_a_base_that_reads_text_alone_is_given_no_medium_of_its_own():
    tokenizer = tokenizer_of(FAMILIES["llava"])
    tokenizer.chat_template = FAMILIES["llava"].template
    with pytest.raises(RequestError, match=r"got 'image' for TokenizersBackend; choose"):
        lay_out_chats([[*ONE, "a"]], tokenizer, CUES)


class FullTokenizer(PreTrainedTokenizerFast):
    def add_tokens(self, new_tokens, special_tokens=False):
        raise NotImplementedError("the vocabulary is fixed")


def test_a_tokenizer_without_room_is_refused():
    tokenizer = FullTokenizer(tokenizer_object=byte_tokenizer().backend_tokenizer)
    tokenizer.chat_template = WORDS_ALONE
    with pytest.raises(RecipeError, match=r"take one more special token, got a FullTokenizer that"):
        lay_out_chats([["a"]], tokenizer, CUES)


@pytest.mark.parametrize("words", ["", "{{ messages[1]['content'] }}"])
def test_a_template_that_leaves_words_out_is_refused(words):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "Hello{{ messages[0]['role'] }}" + words
    with pytest.raises(RecipeError, match="must say the words of a conversation, got one that"):
        lay_out_chats([[Turn("system"), "Be brief.", Turn("user"), "What?"]], tokenizer, CUES)


def test_a_template_that_leaves_out_a_medium_is_refused():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] + messages[-1]['content'] }}"
    prompt = [Turn("user"), "a", Turn("assistant"), SOUND, Turn("user"), "b"]
    with pytest.raises(RequestError, match="keep every medium of a path, got 0 of 1 in place"):
        lay_out_chats([prompt], tokenizer, CUES)


def test_without_prompts_there_is_nothing():
    laid = lay_out_chats([], processor_of("llava"), CUES)
    assert (laid.rows, laid.alongside, laid.inputs) == ([], [], {})
