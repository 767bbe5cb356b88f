r"""Elastic weight consolidation (arXiv 1612.00796) on the connector.

The penalty is $\frac{\lambda}{2} \sum_j F_j (\theta_j - \theta^*_j)^2$ around the weights before
the stage. $F$ is the sum over finished stages of the diagonal of the empirical Fisher information,
each scaled to a mean of 1 over the connector, so that the strength means the same in every stage.
"""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from pathweave.methods.averaging import clone, move_towards, proximal_step
from pathweave.methods.lesson import Lessons, Method, StageContext, WeightedSet
from pathweave.methods.path import WHOLE_CONNECTOR, connector_weights, tune_connector
from pathweave.methods.replay_buffer import replay_buffer
from pathweave.methods.settings import Positive, Settings, Strength
from pathweave.model.pathweave import PathWeave


class Ewc(Settings):
    """Elastic weight consolidation."""

    strength: Strength = Field(
        10000.0,
        description="Pull towards the weights before the stage, per unit of learning rate, at a "
        "weight of mean Fisher information.",
    )
    samples: Positive = Field(
        64, description="Training samples of a finished stage that its information is measured on."
    )


def learn(context: StageContext, options: Ewc) -> Lessons:
    """Tune the connector, and pull what mattered to earlier stages back at every step."""
    trained = tune_connector(context)
    weights = connector_weights(context.model)
    start = clone(weights)
    # When the next stage begins and not when one ends: so the stage that makes the base, which is
    # the same for all methods, has nothing to measure.
    if context.earlier:
        samples = replay_buffer(context, context.earlier[-1], options.samples)
        last = fisher(context.model, weights, samples)
        for name, information in last.items():
            before = context.method_state.get(name, torch.zeros(()))
            context.method_state[name] = information + before.to(information.device)

    def after_step(step: int, lr: float) -> None:
        strength, known = options.strength * lr, context.method_state
        if known:
            back = {name: proximal_step(strength * f) for name, f in known.items()}
            move_towards(weights, start, back)

    yield context.lesson(trained, after_step=after_step)


METHOD = Method(learn, Ewc, trains=WHOLE_CONNECTOR, shares=True, replays=True)


def fisher(
    model: PathWeave, weights: Mapping[str, nn.Parameter], sets: Sequence[WeightedSet]
) -> dict[str, Tensor]:
    """Return the mean squared gradient of the log-likelihood of each answer, scaled to mean 1.

    Args:
        model: The model, in whose paths the samples are read; it is put into evaluation mode.
        weights: Parameters that require gradients.
        sets: Samples; how they are drawn does not count.
    """
    model.eval()
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for each in sets:
        for i in range(len(each.samples)):
            prompt, answer = each.samples.prompt(i), each.samples.answer(i)
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
