"""Learning without forgetting (arXiv 1606.09282), on the tokens that the connector makes.

What is kept is what the connector of the stage before makes of the new media: at every step both
connectors read them with the new path (its queries start as those of the path before), and the mean
squared difference of their tokens, relative to the old ones' mean square, is added to the loss.
"""

import copy
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from pathweave.methods.lesson import Lessons, Method, StageContext
from pathweave.methods.path import WHOLE_CONNECTOR, tune_connector
from pathweave.methods.settings import Settings, Strength
from pathweave.model.base import freeze
from pathweave.model.prompt import Medium, Prompt, instruction


class Lwf(Settings):
    """Learning without forgetting."""

    weight: Strength = Field(
        10.0, description="Weight of the distance to the old connector's tokens, in the loss."
    )


def learn(context: StageContext, options: Lwf) -> Lessons:
    """Tune the connector near the tokens of a copy of what it was."""
    model = context.model
    old_qformer, old_projector = copy.deepcopy(model.qformer), copy.deepcopy(model.projector)
    freeze(old_qformer)
    freeze(old_projector)
    trained = tune_connector(context)

    def penalty(prompts: Sequence[Prompt]) -> Tensor:
        read = [(m, instruction(p)) for p in prompts for m in p if isinstance(m, Medium)]
        if not read:  # texts alone
            return torch.zeros((), device=model.device)
        media, texts = [medium for medium, _ in read], [text for _, text in read]
        with torch.no_grad():
            before = model.connect(media, texts, old_qformer, old_projector)
        now = model.connect(media, texts, model.qformer, model.projector)
        distances = [
            (new.float() - old.float()).square().mean() / old.float().square().mean()
            for new, old in zip(now, before, strict=True)
        ]
        return options.weight * torch.stack(distances).mean()

    yield context.lesson(trained, penalty=penalty)


METHOD = Method(learn, Lwf, trains=WHOLE_CONNECTOR, shares=True)
