"""The training of a stage, one lesson at a time."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from pathweave.data.batches import Index, balanced, index_batches, share
from pathweave.display import Bar, Display
from pathweave.errors import RunError
from pathweave.methods.lesson import Lesson
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Prompt
from pathweave.train.checkpoint import load_checkpoint, save_checkpoint
from pathweave.train.log import RunLog
from pathweave.train.medium_use import MediumWatch
from pathweave.train.offload import moments_at_hand, put_away
from pathweave.train.processes import Processes
from pathweave.train.schedule import make_optimizer, set_learning_rate
from pathweave.train.stop import Interrupted, StopRequest
from pathweave.train.update_limit import limited_step


def train_stage(
    model: PathWeave,
    lesson: Lesson,
    checkpoint: Path,
    processes: Processes,
    log: RunLog,
    display: Display,
) -> float:
    """Train for all steps of a lesson, from its checkpoint if there is one.

    Args:
        model: The model.
        lesson: What is trained, on what and how.
        checkpoint: Directory of the running stage's state.
        processes: Those that train together.
        log: Where every step is recorded.
        display: Where progress is shown.

    Returns:
        Seconds of training, over all sessions.

    Raises:
        Interrupted: After a request to stop; the state is saved.
        RunError: If the batch is smaller than the number of processes, or the loss is not finite.
        DiskError: If a checkpoint cannot be written.
    """
    training, modules = lesson.training, lesson.trained
    if training.batch_size < processes.count:
        raise RunError(
            f"batch_size must be at least the number of processes, {processes.count}, "
            f"got {training.batch_size}; raise training.batch_size"
        )
    optimizer = make_optimizer(modules, training)
    state = load_checkpoint(checkpoint, modules, optimizer, lesson.name)
    first, seconds = (state["step"], state["seconds"]) if state else (0, 0.0)
    processes.start_alike(modules)
    if training.offload_optimizer:
        put_away(optimizer)
    model.train()
    bar = display.bar(f"train {lesson.name}", total=training.steps, done=first)
    watch = MediumWatch(lesson.name, training, log, display)
    began = time.perf_counter()
    with StopRequest() as stop:
        for step, batch in enumerate(_batches(lesson, first), start=first):
            tick = time.perf_counter()
            # Noise is a function of seed, step and process, so that a resumed run draws the same.
            torch.manual_seed(mixed_seed(lesson.seed, step, processes.index))
            lr = set_learning_rate(optimizer, step, training)
            loss, tokens, read = _accumulate(model, lesson, batch, processes)
            # Any process may be asked to stop.
            total, wants_stop = processes.add_up(
                [*modules.parameters()], [loss, float(stop.requested)]
            )
            norm = nn.utils.clip_grad_norm_(modules.parameters(), training.max_grad_norm)
            with moments_at_hand(optimizer, training.offload_optimizer):
                limited_step(optimizer, training.max_update_rms)
            optimizer.zero_grad(set_to_none=True)
            if lesson.after_step is not None:
                lesson.after_step(step + 1, lr)
            record = {"loss": total / tokens, "lr": lr, "grad_norm": norm.item()}
            record["padding"] = read["padding"] / max(read["tokens"], 1)
            record["samples_per_second"] = len(batch) / (time.perf_counter() - tick)
            _report(lesson.name, step, record, log, bar, watch.note)
            if watch.is_due(step):
                processes.alone(
                    partial(watch.look, model, step, *_drawn(lesson, batch[: training.micro_batch]))
                )
            done, ended = step + 1, step + 1 == training.steps
            if done % training.save_every == 0 or ended or wants_stop:
                spent = seconds + time.perf_counter() - began
                now = {"stage": lesson.name, "step": done, "seconds": spent}
                processes.alone(partial(save_checkpoint, checkpoint, modules, optimizer, now))
            if wants_stop and not ended:
                raise Interrupted(f"stopped in stage {lesson.name!r} after step {done}")
    bar.close()
    return seconds + time.perf_counter() - began


def _report(
    name: str,
    step: int,
    record: dict[str, float],
    log: RunLog,
    bar: Bar,
    use: str = "",
) -> None:
    """Log and show one step.

    Raises:
        RunError: If the loss is not finite.
    """
    loss = record["loss"]
    if not math.isfinite(loss):
        raise RunError(
            f"the loss must be finite, got {loss} at step {step} of stage {name!r}; lower "
            "training.lr, set training.max_update_rms to 1, or look at the data of this stage"
        )
    rounded = {name: float(f"{value:.6g}") for name, value in record.items()}
    log.event("step", stage=name, step=step + 1, **rounded)
    bar.advance(1, note=f"loss {loss:.3f}{use}  {record['samples_per_second']:.1f} samples/s")


def mixed_seed(*numbers: int) -> int:
    """Return a seed in [-2^63, 2^63) that depends on all of some numbers and on their order.

    It is the mix of xxHash (XXH64), as CPython 3.8 and later hash tuples of integers.

    Args:
        numbers: Each in [0, 2^61 - 1).

    Example:
        >>> mixed_seed(0, 1, 0)
        7619408953831620358
    """
    first, second, last = 11400714785074694791, 14029467366897019727, 2870177450012600261
    mix = last
    for number in numbers:
        mix = (mix + number * second) % 2**64
        mix = (mix << 31 | mix >> 33) % 2**64 * first % 2**64
    mix = (mix + (len(numbers) ^ last ^ 3527539)) % 2**64
    return mix - 2**64 if mix >= 2**63 else mix


def _batches(lesson: Lesson, first: int) -> Iterator[list[Index]]:
    """Return the batches of all steps from ``first`` on."""
    samples = [each.samples for each in lesson.sets]
    answers = [[chosen.answer(i) for i in range(len(chosen))] for chosen in samples]
    endless = index_batches(
        [balanced(*pair) for pair in zip(answers, [s.balance for s in lesson.sets], strict=True)],
        [each.weight for each in lesson.sets],
        lesson.training.batch_size,
        lesson.seed,
        lambda index: samples[index[0]].length(index[1]),
    )
    return islice(endless, first, lesson.training.steps)


def _drawn(lesson: Lesson, part: Sequence[Index]) -> tuple[list[Prompt], list[str]]:
    """Return the prompts and the answers of samples."""
    prompts = [lesson.sets[w].samples.prompt(i) for w, i in part]
    return prompts, [lesson.sets[w].samples.answer(i) for w, i in part]


def _accumulate(
    model: PathWeave,
    lesson: Lesson,
    batch: Sequence[Index],
    processes: Processes,
) -> tuple[float, int, Counter[str]]:
    """Add up this process's part of the gradient of the mean loss per answer token of a batch.

    Every process knows the whole batch, so the number of its answer tokens, by which the loss is
    divided, needs no communication.

    Returns:
        This process's summed loss, in nats, the number of answer tokens of the whole batch, and
        what this process's language model has read; see ``PathWeave.forward``.
    """
    read: Counter[str] = Counter()
    tokens = sum(len(model.answer_ids(lesson.sets[w].samples.answer(i))) for w, i in batch)
    mine, longest = share(batch, processes.index, processes.count), share(batch, 0, processes.count)
    size = lesson.training.micro_batch or len(longest)
    total = 0.0
    for start in range(0, len(longest), size):
        part = mine[start : start + size]
        if not (part or processes.shards):
            break
        # Layers in shares are put together as often in every process: an extra pass counts nothing.
        prompts, answers = _drawn(lesson, part or mine[:1])
        with processes.accelerator.autocast():
            loss, _ = model(prompts, answers, read)
            objective = loss * ((1 if part else 0) / tokens)
            if lesson.penalty is not None:
                objective = objective + lesson.penalty(prompts) * (len(part) / len(batch))
        if objective.requires_grad:  # a text on no path reaches nothing that is trained
            objective.backward()
        total += loss.item() if part else 0.0
    return total, tokens, read
