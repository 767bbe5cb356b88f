"""One stage: one modality is learnt from its own data alone."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from pathweave.config import Training
from pathweave.data.batches import Index, index_batches, share
from pathweave.data.examples import Examples
from pathweave.errors import RunError
from pathweave.model import PathWeave
from pathweave.train.checkpoint import load_checkpoint, save_checkpoint
from pathweave.train.log import Display, RunLog
from pathweave.train.schedule import make_optimizer, set_learning_rate
from pathweave.train.stop import Interrupted, StopRequest


@dataclass(frozen=True)
class Stage:
    """What one stage is given.

    Attributes:
        name: Modality.
        training: Settings.
        sets: What is learnt from, with the relative weight of each set.
        seed: Seed of the order of samples and of noise.
        checkpoint: Directory of the running stage's state.
    """

    name: str
    training: Training
    sets: Sequence[tuple[Examples, float]]
    seed: int
    checkpoint: Path

    def length(self, index: Index) -> int:
        """Return the length of a sample, for batching."""
        which, sample = index
        return self.sets[which][0].length(sample)


def train_stage(
    model: PathWeave,
    modules: nn.ModuleDict,
    stage: Stage,
    accelerator: Accelerator,
    log: RunLog,
    display: Display,
) -> float:
    """Train ``modules`` for all steps of the stage, from its checkpoint if there is one.

    Args:
        model: The model.
        modules: What the stage trains; everything else is frozen.
        stage: Data and settings.
        accelerator: Processes and devices.
        log: Where every step is recorded.
        display: Where progress is shown.

    Returns:
        Seconds of training, over all sessions.

    Raises:
        Interrupted: After a request to stop; the state is saved.
        RunError: If the batch is smaller than the number of processes, or the loss is not finite.
        DiskError: If a checkpoint cannot be written.
    """
    training, world = stage.training, accelerator.num_processes
    if training.batch_size < world:
        raise RunError(
            f"batch_size must be at least {world} (processes), got {training.batch_size}"
        )
    optimizer = make_optimizer(modules, training)
    state = load_checkpoint(stage.checkpoint, modules, optimizer, stage.name)
    first, seconds = (state["step"], state["seconds"]) if state else (0, 0.0)
    learner = accelerator.prepare_model(model)
    model.train()
    batches = index_batches(
        [len(examples) for examples, _ in stage.sets],
        [weight for _, weight in stage.sets],
        training.batch_size,
        stage.seed,
        stage.length,
    )
    bar = display.bar(f"train {stage.name}", total=training.steps, done=first)
    began = time.perf_counter()
    with StopRequest() as stop:
        for step, batch in enumerate(islice(batches, first, training.steps), start=first):
            tick = time.perf_counter()
            _seed(stage.seed, step, accelerator.process_index)
            lr = set_learning_rate(optimizer, step, training)
            loss, tokens = _accumulate(model, learner, stage, batch, accelerator)
            norm = nn.utils.clip_grad_norm_(modules.parameters(), training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            # One number for all processes: they must agree on the loss and on when to stop.
            both = torch.tensor([loss, float(stop.requested)], device=accelerator.device)
            total, wants_stop = accelerator.reduce(both, reduction="sum").tolist()
            mean = total / tokens
            if not mean < float("inf"):
                raise RunError(
                    f"the loss must be finite, got {mean} at step {step} of {stage.name!r}; lower "
                    "training.lr or look at the data of this stage"
                )
            rate = len(batch) / (time.perf_counter() - tick)
            log.event(
                "step",
                stage=stage.name,
                step=step + 1,
                loss=round(mean, 6),
                lr=lr,
                grad_norm=round(norm.item(), 4),
                samples_per_second=round(rate, 2),
            )
            bar.advance(1, note=f"loss {mean:.3f}  {rate:.1f} samples/s")
            done, ended = step + 1, step + 1 == training.steps
            if done % training.save_every == 0 or ended or wants_stop:
                elapsed = seconds + time.perf_counter() - began
                if accelerator.is_main_process:
                    now = {"stage": stage.name, "step": done, "seconds": elapsed}
                    save_checkpoint(stage.checkpoint, modules, optimizer, now)
                accelerator.wait_for_everyone()
            if wants_stop and not ended:
                raise Interrupted(f"stopped in stage {stage.name!r} after step {done}")
    bar.close()
    return seconds + time.perf_counter() - began


def _seed(seed: int, step: int, process: int) -> None:
    """Make noise a function of seed, step and process, so that a resumed run draws the same."""
    torch.manual_seed(hash((seed, step, process)))


def _accumulate(
    model: PathWeave,
    learner: nn.Module,
    stage: Stage,
    batch: Sequence[Index],
    accelerator: Accelerator,
) -> tuple[float, int]:
    """Add up the gradient of the mean loss per answer token over a global batch.

    Every process knows the whole batch, so the number of its answer tokens, by which the loss is
    divided, needs no communication.

    Returns:
        This process's summed loss, in nats, and the number of answer tokens of the whole batch.
    """
    tokens = sum(len(model.answer_ids(stage.sets[w][0].answer(i))) for w, i in batch)
    mine = share(batch, accelerator.process_index, accelerator.num_processes)
    size = stage.training.micro_batch or len(mine)
    total = 0.0
    for start in range(0, len(mine), size):
        part = mine[start : start + size]
        last = start + size >= len(mine)
        prompts = [stage.sets[w][0].prompt(i) for w, i in part]
        answers = [stage.sets[w][0].answer(i) for w, i in part]
        with nullcontext() if last else accelerator.no_sync(learner):
            loss, _ = learner(prompts, answers)
            # Gradients are averaged over processes; the mean loss is a sum over them.
            accelerator.backward(loss * (accelerator.num_processes / tokens))
        total += loss.item()
    return total, tokens
