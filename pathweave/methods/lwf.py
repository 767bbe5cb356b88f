"""Learning without forgetting (arXiv 1606.09282), on the tokens that the connector makes.

What is kept is what the connector of the stage before makes of the new media: at every step both
connectors read them with the new path (its queries start as those of the path before), and the mean
squared difference of their tokens, relative to the old ones' mean square, is added to the loss.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import tune_connector
from pathweave.model.base import freeze
from pathweave.model.prompt import Medium, Prompt, instruction


def learn(task: Task) -> Iterator[Lesson]:
    """Tune the connector near the tokens of a copy of what it was."""
    options = task.recipe.method.lwf
    assert options is not None  # the recipe fills it in
    model = task.model
    old_qformer, old_projector = copy.deepcopy(model.qformer), copy.deepcopy(model.projector)
    freeze(old_qformer)
    freeze(old_projector)
    trained = tune_connector(task)

    def penalty(prompts: Sequence[Prompt]) -> Tensor:
        read = [(m, instruction(p)) for p in prompts for m in p if isinstance(m, Medium)]
        media, texts = [medium for medium, _ in read], [text for _, text in read]
        with torch.no_grad():
            before = model.connect(media, texts, old_qformer, old_projector)
        now = model.connect(media, texts, model.qformer, model.projector)
        distances = [
            (new.float() - old.float()).square().mean() / old.float().square().mean()
            for new, old in zip(now, before, strict=True)
        ]
        return options.weight * torch.stack(distances).mean()

    yield Lesson(trained, task.sets(task.name), penalty=penalty)
