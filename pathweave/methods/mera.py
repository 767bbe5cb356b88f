r"""MERA: merge, then realign (arXiv 2503.07663).

The connector, which all modalities share, takes the place of that paper's language model, and what
each path has for itself that of its connectors. With the i-th modality the connector becomes
$\theta \leftarrow \frac{i-1}{i} \theta_{before} + \frac{1}{i} \theta_{tuned}$; then the paths' own
parts are tuned on a few samples of every modality, while the connector rests.
"""

from collections.abc import Iterator

from pathweave.methods.lesson import Lesson, Task
from pathweave.methods.shared import (
    buffer,
    connector_weights,
    copied,
    mixture,
    move_towards,
    trainable,
    tune_connector,
)
from pathweave.model.base import freeze


def learn(task: Task) -> Iterator[Lesson]:
    """Tune the connector, merge it with what it was, and realign all paths with it."""
    options = task.recipe.method.mera
    assert options is not None  # the recipe fills it in
    model, learnt = task.model, (*task.earlier, task.name)
    trained = tune_connector(task)
    weights = connector_weights(model)
    start = copied(weights)
    yield Lesson(trained, task.sets(task.name))
    if not task.earlier:
        return
    move_towards(weights, start, 1 - 1 / len(learnt))
    freeze(model)
    yield Lesson(
        trainable({f"path/{name}": model.paths[name] for name in learnt}),
        mixture(*(buffer(task, name, options.samples) for name in learnt)),
        task.training.model_copy(
            update={"steps": options.steps, "lr": options.lr or task.training.lr}
        ),
        name="realign",
    )
