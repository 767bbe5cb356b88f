"""One stage: one modality is learnt from its own data alone."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pathweave.data.batches import Index, balanced, index_batches, share
from pathweave.display import Bar, Display
from pathweave.errors import RunError
from pathweave.methods.lesson import Source
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.recipe.schema import Training
from pathweave.train.checkpoint import load_checkpoint, save_checkpoint
from pathweave.train.log import RunLog
from pathweave.train.schedule import make_optimizer, set_learning_rate
from pathweave.train.stop import Interrupted, StopRequest
from pathweave.train.update_limit import limit_updates


@dataclass(frozen=True)
class Stage:
    """What one stage is given.

    Attributes:
        name: Modality.
        training: Settings.
        sets: What is learnt from.
        seed: Seed of the order of samples and of noise.
        checkpoint: Directory of the running stage's state.
        penalty: Added to the loss: a mean over the prompts it is given, which are part of a batch.
        after_step: Called after each step with the number of steps done and the learning rate.
    """

    name: str
    training: Training
    sets: Sequence[Source]
    seed: int
    checkpoint: Path
    penalty: Callable[[Sequence[Prompt]], Tensor] | None = None
    after_step: Callable[[int, float], None] | None = None

    def batches(self, first: int) -> Iterator[list[Index]]:
        """Return the batches of all steps from ``first`` on."""
        endless = index_batches(
            [_round(source) for source in self.sets],
            [source.weight for source in self.sets],
            self.training.batch_size,
            self.seed,
            lambda index: self.sets[index[0]].samples.length(index[1]),
        )
        return islice(endless, first, self.training.steps)


def _round(source: Source) -> list[int]:
    """Return the samples of one round over a source."""
    samples = source.samples
    return balanced([samples.answer(i) for i in range(len(samples))], source.balance)


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
    training = stage.training
    if training.batch_size < accelerator.num_processes:
        raise RunError(
            f"batch_size must be at least the number of processes, {accelerator.num_processes}, "
            f"got {training.batch_size}; raise training.batch_size"
        )
    optimizer = make_optimizer(modules, training)
    state = load_checkpoint(stage.checkpoint, modules, optimizer, stage.name)
    first, seconds = (state["step"], state["seconds"]) if state else (0, 0.0)
    learner = accelerator.prepare_model(model)
    model.train()
    bar = display.bar(f"train {stage.name}", total=training.steps, done=first)
    began = time.perf_counter()
    with StopRequest() as stop:
        for step, batch in enumerate(stage.batches(first), start=first):
            tick = time.perf_counter()
            _seed(stage.seed, step, accelerator.process_index)
            lr = set_learning_rate(optimizer, step, training)
            loss, tokens = _accumulate(model, learner, stage, batch, accelerator)
            norm = nn.utils.clip_grad_norm_(modules.parameters(), training.max_grad_norm)
            if training.max_update_rms is not None:
                limit_updates(optimizer, training.max_update_rms)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if stage.after_step is not None:
                stage.after_step(step + 1, lr)
            total, wants_stop = _agree(accelerator, loss, stop.requested)
            rate = len(batch) / (time.perf_counter() - tick)
            record = {"loss": total / tokens, "lr": lr, "grad_norm": norm.item()}
            _report(stage, step, record, rate, log, bar)
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


def _agree(accelerator: Accelerator, loss: float, stop: bool) -> tuple[float, bool]:
    """Return the loss summed over processes, and whether any of them is to stop."""
    both = torch.tensor([loss, float(stop)], device=accelerator.device)
    total, wanted = accelerator.reduce(both, reduction="sum").tolist()
    return total, wanted > 0


def _report(
    stage: Stage, step: int, record: dict[str, float], rate: float, log: RunLog, bar: Bar
) -> None:
    """Log and show one step.

    Raises:
        RunError: If the loss is not finite.
    """
    loss = record["loss"]
    if not math.isfinite(loss):
        raise RunError(
            f"the loss must be finite, got {loss} at step {step} of stage {stage.name!r}; lower "
            "training.lr, set training.max_update_rms to 1, or look at the data of this stage"
        )
    rounded = {name: float(f"{value:.6g}") for name, value in record.items()}
    log.event("step", stage=stage.name, step=step + 1, **rounded, samples_per_second=round(rate, 2))
    bar.advance(1, note=f"loss {loss:.3f}  {rate:.1f} samples/s")


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
    tokens = sum(len(model.answer_ids(stage.sets[w].samples.answer(i))) for w, i in batch)
    mine = share(batch, accelerator.process_index, accelerator.num_processes)
    size = stage.training.micro_batch or len(mine)
    total = 0.0
    for start in range(0, len(mine), size):
        part = mine[start : start + size]
        last = start + size >= len(mine)
        prompts = [stage.sets[w].samples.prompt(i) for w, i in part]
        answers = [stage.sets[w].samples.answer(i) for w, i in part]
        with nullcontext() if last else accelerator.no_sync(learner):
            loss, _ = learner(prompts, answers)
            # Gradients are averaged over processes; the mean loss is a sum over them.
            objective = loss * (accelerator.num_processes / tokens)
            if stage.penalty is not None:
                share_of_batch = len(part) / len(batch) * accelerator.num_processes
                objective = objective + stage.penalty(prompts) * share_of_batch
            accelerator.backward(objective)
        total += loss.item()
    return total, tokens
