r"""Elastic weight consolidation (arXiv 1612.00796) on the connector.

The penalty is $\frac{\lambda}{2} \sum_j F_j (\theta_j - \theta^*_j)^2$ around the weights before
the stage. $F$ is the sum over finished stages of the diagonal of the empirical Fisher information,
each scaled to a mean of 1 over the connector, so that the strength means the same in every stage.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pathweave.methods.lesson import Lesson, Source, Task
from pathweave.methods.shared import (
    buffer,
    connector_weights,
    copied,
    move_towards,
    pulled,
    tune_connector,
)
from pathweave.model.pathweave import PathWeave


def learn(task: Task) -> Iterator[Lesson]:
    """Tune the connector, and pull what mattered to earlier stages back at every step."""
    options = task.recipe.method.ewc
    assert options is not None  # the recipe fills it in
    trained = tune_connector(task)
    weights = connector_weights(task.model)
    start = copied(weights)
    # When the next stage begins and not when one ends: so the stage that makes the base, which is
    # the same for all methods, has nothing to measure.
    if task.earlier:
        last = fisher(task.model, weights, buffer(task, task.earlier[-1], options.samples))
        for name, information in last.items():
            before = task.carried.get(name, torch.zeros(()))
            task.carried[name] = information + before.to(information.device)

    def after_step(step: int, lr: float) -> None:
        back = {name: pulled(options.strength * lr * f) for name, f in task.carried.items()}
        if back:
            move_towards(weights, start, back)

    yield Lesson(trained, task.sets(task.name), after_step=after_step)


def fisher(
    model: PathWeave, weights: Mapping[str, nn.Parameter], sets: Sequence[Source]
) -> dict[str, Tensor]:
    """Return the mean squared gradient of the log-likelihood of each answer, scaled to mean 1.

    Args:
        model: The model, in whose paths the samples are read; it is put into evaluation mode.
        weights: Parameters that require gradients.
        sets: Samples; how they are drawn does not count.
    """
    model.eval()
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for source in sets:
        for i in range(len(source.samples)):
            prompt, answer = source.samples.prompt(i), source.samples.answer(i)
            loss, _ = model([prompt], [answer])
            gradients = torch.autograd.grad(loss, [*weights.values()], allow_unused=True)
            for square, gradient in zip(squares.values(), gradients, strict=True):
                if gradient is not None:
                    square.addcmul_(gradient, gradient)
    if not any(len(source.samples) for source in sets):
        return squares
    count = sum(square.numel() for square in squares.values())
    mean = sum(square.sum().item() for square in squares.values()) / count
    return {name: square / mean for name, square in squares.items()} if mean else squares
