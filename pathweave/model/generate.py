"""Answers to prompts, in batches that may mix paths."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from pathweave.model.pathweave import PathWeave, pad
from pathweave.model.prompt import Prompt
from pathweave.nn.hooked import carrying


@torch.no_grad()
def generate(
    model: PathWeave,
    prompts: Sequence[Prompt],
    max_tokens: int = 32,
    beams: int = 1,
    min_tokens: int = 0,
    length_penalty: float = 1.0,
    repetition_penalty: float = 1.0,
) -> list[str]:
    """Return the most likely answer to each prompt, by greedy or beam search.

    Args:
        model: The model; call ``model.eval()`` first.
        prompts: Text and encoded media.
        max_tokens: Longest answer, in tokens.
        beams: Beams of the search; 1 is greedy.
        min_tokens: Shortest answer, in tokens.
        length_penalty: Power of its length by which a beam's log-likelihood is divided.
        repetition_penalty: Positive logits of tokens that are in the answer already are divided by
            it, negative ones multiplied; 1 changes nothing.

    Raises:
        PathError: If a medium names a path that the model does not have.
        RunError: If a prompt and ``max_tokens`` more are longer than the language model's context.
    """
    if not prompts:
        return []
    prefilled = model.prefill(prompts, max_tokens)
    ids, mask = pad(prefilled.remainder, side="left")
    mask = torch.cat([prefilled.mask, mask.to(model.device)], dim=1)
    # What the cache holds is cut off again.
    ids = F.pad(ids, (mask.shape[1] - ids.shape[1], 0)).to(model.device)
    if prefilled.cache is not None:
        prefilled.cache.batch_repeat_interleave(beams)
    tokenizer = model.base.tokenizer
    penalties = (
        [RepetitionPenaltyLogitsProcessor(repetition_penalty, prompt_ignore_length=ids.shape[1])]
        if repetition_penalty != 1
        else []
    )
    with carrying(prefilled.laid_out.ride):
        whole = model.llm.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            cache=prefilled.cache,
            max_new_tokens=max_tokens,
            min_new_tokens=min_tokens or None,
            num_beams=beams,
            length_penalty=length_penalty,
            logits_processor=LogitsProcessorList(penalties),
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else None,
            **prefilled.laid_out.beside("left", model.device, model.base.after_prompt),
        )
    ids = whole[:, ids.shape[1] :]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    end = model.base.template.end.strip()
    return [text.split(end)[0].strip() if end else text.strip() for text in texts]
