"""Candidate answers ranked by likelihood; the prompt is computed once for all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pathweave.model.laid_out import pad
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.nn.hooked import carrying


@torch.no_grad()
def log_likelihoods(
    model: PathWeave, prompts: Sequence[Prompt], choices: Sequence[str]
) -> Float[Tensor, "prompts choices"]:
    """Return the log-likelihood of each choice as the whole answer to each prompt, in nats.

    The end of the answer counts too, so that "a shirt" is not favoured over "a shirt dress" for
    being its beginning. No normalisation by length.

    Args:
        model: The model; call ``model.eval()`` first.
        prompts: Text and encoded media.
        choices: Candidate answers, the same for all prompts.

    Raises:
        RunError: If a prompt with a choice is longer than the language model's context.
    """
    if model.prefixes.are_recurrent or model.base.native:
        # A recurrent state cannot be repeated for the choices, and what a model keeps of media that
        # it reads by itself is its own affair: each choice is read with its whole prompt.
        pairs = [[-model([prompt], [choice])[0] for choice in choices] for prompt in prompts]
        return torch.stack([torch.stack(row) for row in pairs])
    ids = [model.answer_ids(choice) for choice in choices]
    prefilled = model.prefill(prompts, [max(map(len, ids))] * len(prompts))
    rows, mask = pad(prefilled.remainder, side="left")
    inputs = prefilled.decoder_inputs(mask.to(model.device))
    mask, positions = inputs["attention_mask"], inputs["position_ids"]
    answers = pad_sequence(ids, batch_first=True).to(model.device)
    counts = pad_sequence([torch.ones_like(i) for i in ids], batch_first=True).to(model.device)
    answers = answers.repeat(len(prompts), 1)
    counts = counts.repeat(len(prompts), 1)
    start = positions[:, -1:].repeat_interleave(len(choices), dim=0) + 1
    with carrying(prefilled.laid_out.ride):
        rows = rows.to(model.device)
        prefix = model.llm(input_ids=rows, **{**inputs, "use_cache": True}, logits_to_keep=1)
        cache = prefix.cache
        cache.batch_repeat_interleave(len(choices))
        following = model.llm(
            input_ids=answers[:, :-1],
            attention_mask=torch.cat(
                [mask.repeat_interleave(len(choices), dim=0), counts[:, :-1]], dim=1
            ),
            position_ids=start + torch.arange(answers.shape[1] - 1, device=answers.device),
            cache=cache,
        )
    first = prefix.logits.repeat_interleave(len(choices), dim=0)
    logits = torch.cat([first, following.logits], dim=1).float()
    chosen = logits.log_softmax(-1).gather(2, answers[..., None])[..., 0]
    return (chosen * counts).sum(1).view(len(prompts), len(choices))
