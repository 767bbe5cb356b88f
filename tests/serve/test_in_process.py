import asyncio
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathweave.errors import PathError, RunError
from pathweave.model.generate import generate
from pathweave.model.rank import log_likelihoods
from pathweave.serve import in_process
from pathweave.serve.engine import Asked, EngineError, OverloadError, whole
from pathweave.serve.in_process import InProcess
from pathweave.serve.one_thread import Row
from tests.tiny import FAMILIES, chain, medium, tiny_model

LONG = 3 * in_process.SLICE


class Loop(asyncio.AbstractEventLoop):
    """A loop that does at once what it is told."""

    def is_closed(self):
        return False

    def call_soon_threadsafe(self, put, what):
        put(what)


@pytest.fixture(scope="module")
def model():
    return tiny_model(*chain("sight", "sound", "range"))


@pytest.fixture(scope="module", params=["llama", "gemma3", "hosts inside"])
def any_model(request):
    """Models whose rows are held, some that are read again, and one with hosts inside."""
    is_inside = request.param == "hosts inside"
    inside = {"sites": ("llm/*",)} if is_inside else {}
    family = {} if is_inside else FAMILIES[request.param]
    return tiny_model(*chain("sight", "sound", "range", **inside), **family)


def prompts(count):
    kinds = (("sight", 1), ("sound", 1), ("range", 2))
    mixed = [
        [medium(kinds[i % 3][0], units=kinds[i % 3][1], seed=i), "What is it? " * (i % 4 + 1)]
        for i in range(count)
    ]
    return [*mixed[:-2], ["Say hello."], [*mixed[0], *mixed[1]]]


def run(model, work, **options):
    """Run ``work(engine)`` and close the engine, whatever happens."""

    async def main():
        engine = InProcess(model, **options)
        try:
            return await asyncio.wait_for(work(engine), timeout=60)
        finally:
            await engine.close()

    return asyncio.run(main())


def ask_all(asked):
    return lambda engine: asyncio.gather(*(whole(engine.stream(one)) for one in asked))


def test_many_callers_get_the_answers_they_would_get_alone(any_model):
    """Lengths differ, so batches end, are cut for newcomers and go on in other company."""
    asked = [
        Asked(prompt, LONG if i % 5 == 0 else i % 7 + 1) for i, prompt in enumerate(prompts(24))
    ]
    model = any_model
    answers = run(model, ask_all(asked), max_batch=5)
    alone = [generate(model, [one.prompt], one.max_tokens)[0] for one in asked]
    assert [answer.text for answer in answers] == alone
    assert len(set(alone)) > 5
    for one, answer in zip(asked, answers, strict=True):
        assert answer.finish == ("length" if answer.tokens == one.max_tokens else "stop")
        assert answer.prompt_tokens == model.length(one.prompt)


@pytest.mark.parametrize("is_held", [True, False])
def test_newcomers_are_let_in_before_a_long_answer_has_ended(is_held):
    """At once where what was read is held, and as many as there is room for; after a slice of steps
    elsewhere."""
    order = []

    async def work(engine):
        async def ask(name, asked):
            async for piece in engine.stream(asked):
                if name == "long" and piece.tokens == 1:
                    short = Asked(["Say hello."], 2)
                    late.extend(asyncio.create_task(ask("short", short)) for _ in range(3))
            order.append((name, engine.steps))

        late = []
        await ask("long", Asked(prompts(3)[0], LONG))
        await asyncio.gather(*late)

    speaking = tiny_model(*chain("sight"))
    speaking.llm.generation_config.eos_token_id = None
    speaking.prefixes.are_shareable = is_held
    run(speaking, work, max_batch=2)
    names = [name for name, _ in order]
    assert names.index("long") == 3 if is_held else names[0] == "short"
    assert (order[0][1] < in_process.SLICE) == is_held


def test_a_caller_who_leaves_ends_the_work_for_him_and_for_nobody_else(model):
    async def work(engine):
        async def leave():
            pieces = engine.stream(Asked(prompts(3)[0], LONG))
            await anext(pieces)
            await pieces.aclose()

        other = asyncio.create_task(whole(engine.stream(Asked(prompts(4)[1], 6))))
        await asyncio.gather(*(leave() for _ in range(4)))
        return await other, await engine.call(lambda: engine.steps)

    answer, steps = run(model, work)
    assert answer.text == generate(model, [prompts(4)[1]], 6)[0]
    assert steps < LONG


def test_one_caller_too_many_is_refused(model):
    async def work(engine):
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()
        held = asyncio.create_task(
            engine.call(lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result())
        )
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(whole(engine.stream(Asked(["hi"], 1)))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match="at most 2 callers may wait"):
            await whole(engine.stream(Asked(["hi"], 1)))
        gate.set()
        await held
        return await asyncio.gather(*waiting)

    assert len(run(model, work, max_waiting=2)) == 2


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        ([medium("smell"), "What?"], PathError, "smell"),
        (["x" * 5000], RunError, "the context of the language model"),
    ],
)
def test_a_prompt_that_cannot_be_answered_fails_alone(model, prompt, error, said):
    async def work(engine):
        asked = [Asked(prompts(3)[0], 4), Asked(prompt, 4), Asked(["Say hello."], 4)]
        waiting = [whole(engine.stream(one)) for one in asked]
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, failed, last = run(model, work)
    assert [first.text, last.text] == [
        generate(model, [prompt], 4)[0] for prompt in (prompts(3)[0], ["Say hello."])
    ]
    assert isinstance(failed, error)
    assert said in str(failed)


def test_a_batch_that_fails_is_decoded_one_by_one(model, monkeypatch):
    real = in_process.begin

    def only_one(model, prompts, *args, **options):
        if len(prompts) > 1 or "poison" in prompts[0]:
            raise MemoryError("too much")
        return real(model, prompts, *args, **options)

    monkeypatch.setattr(in_process, "begin", only_one)

    async def work(engine):
        asked = [Asked(["poison"], 2), *(Asked(prompt, 3) for prompt in prompts(5))]
        waiting = [whole(engine.stream(one)) for one in asked]
        return await asyncio.gather(*waiting, return_exceptions=True)

    failed, *answers = run(model, work)
    assert isinstance(failed, EngineError)
    assert "MemoryError: too much" in str(failed)
    assert [a.text for a in answers] == [generate(model, [p], 3)[0] for p in prompts(5)]


def test_an_answer_that_is_whole_is_not_computed_on(model, monkeypatch):
    sizes, real = [], in_process.go_on
    monkeypatch.setattr(
        in_process,
        "go_on",
        lambda m, held, *rest: (sizes.append(len(held.paths)), real(m, held, *rest)),
    )

    async def work(engine):
        gate = asyncio.create_task(engine.call(lambda: time.sleep(0.2)))
        await asyncio.sleep(0.05)
        answers = [whole(engine.stream(Asked(["Say hello."], count))) for count in (9, 1, 4)]
        return await asyncio.gather(gate, *answers)

    _, *answers = run(model, work)
    assert [answer.tokens for answer in answers] == [9, 1, 4]
    assert sizes == [2, 1]


def test_what_was_held_is_forgotten_when_a_step_fails_halfway(monkeypatch):
    failed, real = [], in_process.go_on
    speaking = tiny_model(*chain("sight", "sound", "range"))
    speaking.llm.generation_config.eos_token_id = None
    first, *others = [Asked(prompt, LONG) for prompt in prompts(5)]

    def fail_once(model, held, *rest):
        if len(held.paths) == 5 and not failed:
            failed.append(True)
            held.mask = held.mask[:, 1:]
            raise MemoryError("too much")
        real(model, held, *rest)

    monkeypatch.setattr(in_process, "go_on", fail_once)

    async def work(engine):
        begun = asyncio.create_task(whole(engine.stream(first)))
        while engine.steps < 2:
            await asyncio.sleep(0)
        return await asyncio.gather(begun, *(whole(engine.stream(one)) for one in others))

    answers = run(speaking, work)
    assert failed
    alone = [generate(speaking, [one.prompt], LONG)[0] for one in (first, *others)]
    assert [answer.text for answer in answers] == alone


def test_draws_depend_on_the_seed_and_not_on_the_company(model):
    one = Asked(prompts(3)[0], 8, temperature=1.5, seed=7)
    others = [Asked(prompt, 8, temperature=1.0, seed=i) for i, prompt in enumerate(prompts(6))]
    [alone] = run(model, ask_all([one]))
    together = run(model, ask_all([*others, one, Asked(one.prompt, 8, 1.5, seed=8)]))
    assert alone.text == together[-2].text
    assert alone.text != together[-1].text


@pytest.mark.parametrize(("temperature", "top_p"), [(1e-4, 1.0), (2.0, 1e-6)])
def test_a_cold_draw_or_a_small_nucleus_is_the_likeliest_token(model, temperature, top_p):
    asked = [Asked(prompt, 6, temperature, top_p, seed=1) for prompt in prompts(4)]
    answers = run(model, ask_all(asked))
    assert [a.text for a in answers] == [generate(model, [p], 6)[0] for p in prompts(4)]


def test_draws_have_the_probabilities_of_the_nucleus():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log() * 2
    row = Row(Asked([], temperature=2.0, top_p=0.9, seed=0), Loop())
    drawn = [int(in_process._drawn(logits, row).argmax()) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / len(drawn)
    assert shares[3] == 0
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert torch.allclose(shares, expected, atol=0.03)


@given(st.lists(st.sampled_from("ab \n"), max_size=12), st.text("ab", min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_pieces_of_a_text_make_the_text_up_to_the_stop_word(letters, stop):
    """What is handed on is never taken back, and never part of a stop word."""

    row = Row(Asked([], stop=(stop,)), Loop())
    text = ""
    for letter in letters:
        text += letter
        if stop in text:
            break
        row.say(text.strip(), (stop,))
    row.finish("stop", text.split(stop)[0].strip())
    pieces = [row.pieces.get_nowait() for _ in range(row.pieces.qsize())]
    assert "".join(piece.text for piece in pieces) == text.split(stop)[0].strip()


def test_choices_are_ranked_in_turn(model):
    async def work(engine):
        answers = [whole(engine.stream(Asked(prompt, 5))) for prompt in prompts(4)]
        *_, ranked = await asyncio.gather(*answers, engine.rank(prompts(3)[0], ["yes", "no"]))
        return ranked

    expected = log_likelihoods(model, [prompts(3)[0]], ["yes", "no"])[0].tolist()
    assert run(model, work) == pytest.approx(expected, rel=1e-5)


def test_callers_are_told_when_the_engine_closes(model):
    async def work(engine):
        endless = [asyncio.create_task(whole(engine.stream(Asked(["hi"], LONG)))) for _ in range(9)]
        await asyncio.sleep(0.2)
        await engine.close()
        with pytest.raises(EngineError, match="shutting down"):
            await whole(engine.stream(Asked(["hi"], 1)))
        return await asyncio.gather(*endless, return_exceptions=True)

    for answer in run(model, work, max_batch=2):
        assert isinstance(answer, EngineError) or answer.finish
