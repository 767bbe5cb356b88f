"""The processes of a run: what they add up, who waits for whom, a language model in shares.

Every process knows the whole batch and learns from its share of it. What a run trains is small, so
its gradients are added up in one piece after the backward pass; nothing is wrapped, and a process
whose share reaches no trained parameter adds nothing. Whole batches of a test set are shared out,
so that answers are those of one process to the last bit. Only the first process writes.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from pathweave.data.examples import Examples
from pathweave.errors import RecipeError, RunError
from pathweave.model.llm_hosts import decoder_layers
from pathweave.model.pathweave import PathWeave
from pathweave.storage.atomic import sha256_bytes

Given = TypeVar("Given")
Found = TypeVar("Found")
# Processes wait while another one works, however long that takes.
PATIENCE = timedelta(days=1)
DONE, FAILED = -1, -2  # what the first process tells the others, beside numbers of layers


class Processes:
    """The processes of a run; a single one waits for nobody and adds up nothing.

    Args:
        accelerator: Started by ``accelerate launch``, ``torchrun`` or neither.

    Attributes:
        accelerator: The same.
        count: Number of processes.
        index: Number of this one, from 0.
        is_first: Whether it is the one that writes.
        shards: Whether each holds a share of the language model's layers in place of all, as asked
            for by ``accelerate launch --use_fsdp``.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.count, self.index = accelerator.num_processes, accelerator.process_index
        self.is_first = accelerator.is_main_process
        self.shards = self.count > 1 and parse_flag_from_env("ACCELERATE_USE_FSDP")
        # Over gloo, which notices at once if a process has ended, and lets a GPU rest meanwhile.
        self._patient = dist.new_group(backend="gloo", timeout=PATIENCE) if self.count > 1 else None
        self._layers: list[FSDPModule] = []
        self._leads = False

    def alone(self, task: Callable[[], object]) -> None:
        """Let the first process do something, while the others wait and lend it their shares.

        Args:
            task: What only the first process does. It may call the model in any way.

        Raises:
            RunError: On the others, if it fails.
        """
        if self.count == 1:
            task()
        elif not self.is_first:
            self._follow()
        else:
            self._leads, told = True, FAILED
            try:
                task()
                told = DONE
            finally:
                self._leads = False
                with (
                    contextlib.suppress(RuntimeError)
                    if told == FAILED
                    else contextlib.nullcontext()
                ):
                    self._tell(told)

    def _follow(self) -> None:
        while (told := self._tell(DONE)) >= 0:
            self._layers[told].unshard()
            self._layers[told].reshard()
        if told == FAILED:
            raise RunError(
                "the first process must go on, got an error in it; see its message, then run the "
                "same command again"
            )

    def _tell(self, number: int) -> int:
        """Return on all processes the number that the first one gives."""
        told = torch.tensor([number], device="cpu")
        dist.broadcast(told, src=0, group=self._patient)
        return int(told)

    def gathered(self, own: Found) -> list[Found]:
        """Return on all processes what each of them has, in their order."""
        if self.count == 1:
            return [own]
        found = [own] * self.count
        dist.all_gather_object(found, own, self._patient)
        return found

    def spread(self, do: Callable[[Given], Found], tasks: Sequence[Given]) -> Iterator[Found]:
        """Yield on all processes what tasks give, in their order; each process does every n-th.

        With a language model in shares the first process does them all, and the others lend it
        theirs: each pass takes all of them anyway.
        """
        own: list[Found] = []

        def take(place: int) -> None:
            own[:] = map(do, tasks[place : place + 1])

        for start in range(0, len(tasks), 1 if self.shards else self.count):
            if self.shards:
                self.alone(partial(take, start))
            else:
                take(start + self.index)
            for found in self.gathered(own):
                yield from found

    def check_same(self, value: str, rule: str, remedy: str) -> None:
        """Refuse to go on if processes differ in something.

        Args:
            value: What must be the same in all.
            rule: What must be: the start of the message.
            remedy: What to do otherwise: its end.

        Raises:
            RunError: On all processes, if they differ.
        """
        if self.count == 1:
            return
        number = int(sha256_bytes(value.encode())[:15], 16)
        extremes = torch.tensor([number, -number], device="cpu")
        dist.all_reduce(extremes, dist.ReduceOp.MAX, self._patient)
        if extremes[0] != -extremes[1]:
            raise RunError(f"{rule}, got others in another of {self.count} processes; {remedy}")

    def encode(self, examples: Examples, advance: Callable[[int], None]) -> None:
        """Compute the features of a data set, each process those of its share, until all are there.

        Args:
            examples: The samples.
            advance: See ``Examples.encode``.
        """
        examples.encode(advance, self.index, self.count)
        self.alone(lambda: None)

    def check_samples(self, examples: Examples) -> None:
        """Refuse to go on if processes have other usable samples.

        Raises:
            RunError: On all processes, if they have.
        """
        if self.count > 1:
            usable = [examples.sample(index).id for index in range(len(examples))]
            rule = f"all processes must read the same samples of {examples.manifest.path}"
            self.check_same(json.dumps(usable), rule, "give each all of its files")

    @torch.no_grad()
    def start_alike(self, modules: nn.Module) -> None:
        """Give all processes the tensors of the first one."""
        if self.count > 1:
            for tensor in modules.state_dict().values():
                dist.broadcast(tensor, src=0)

    @torch.no_grad()
    def add_up(self, parameters: Sequence[nn.Parameter], numbers: Sequence[float]) -> list[float]:
        """Sum gradients over all processes, in place, and return the sums of numbers.

        A parameter has a gradient afterwards if it had one in any process.
        """
        if self.count == 1:
            return list(numbers)
        given = [float(p.grad is not None) for p in parameters]
        rest = torch.tensor([*given, *numbers], device=self.accelerator.device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), rest])
        dist.all_reduce(flat)
        *sums, rest = flat.split([*(p.numel() for p in parameters), len(rest)])
        reached, totals = rest.split([len(given), len(numbers)])
        for parameter, total, has_one in zip(parameters, sums, reached.tolist(), strict=True):
            summed = total.view_as(parameter).to(parameter.dtype)
            parameter.grad = summed if has_one else None
        return cast(list[float], totals.tolist())

    def shard(self, model: PathWeave) -> None:
        """Leave each process a share of every layer of the language model, if that is asked for.

        A layer is put together for the time in which it computes. Paths, connector, embeddings and
        head stay whole. It is done before the model goes to its device, layer by layer, so that no
        device ever holds all of it.

        Raises:
            RecipeError: If the language model is quantised, or its layers cannot be shared out.
        """
        if not self.shards:
            return
        if model.base.llm_identity is not None:
            raise RecipeError(
                "a language model in shares must not be quantised, got quantise in the recipe; "
                "leave it out, or start the processes without FSDP"
            )
        model.base.sample_llm()
        # Of the prompts of a process depends how often it would read what they begin with.
        model.prefixes.are_shareable = False
        mesh = init_device_mesh(self.accelerator.device.type, (self.count,))
        for number, layer in enumerate(decoder_layers(model.llm)):
            # Each by itself: what the first process computes alone would upset a common order.
            try:
                made = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            except (ValueError, NotImplementedError) as error:
                raise RecipeError(
                    f"layers of a language model must be such that FSDP can share them out, got "
                    f"{type(layer).__name__}: {error}; start the processes without FSDP"
                ) from error
            self._layers.append(made)
            layer.register_forward_pre_hook(self._leading(number), prepend=True)
        # A share of a batch without media goes backwards through all layers too: others need them.
        model.llm.enable_input_require_grads()

    def _leading(self, number: int) -> Callable[[nn.Module, object], None]:
        def lead(_: nn.Module, __: object) -> None:
            if self._leads:
                self._tell(number)

        return lead


@contextlib.contextmanager
def lost_processes() -> Iterator[None]:
    """Tell in one line that another process has ended or no longer answers.

    Raises:
        RunError: If that is so.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RunError(
            "all processes of a run must stay to its end, got one that has ended or does not "
            f"answer ({' '.join(str(error).split())[:100]}); look at what the others say, then run "
            "the same command again"
        ) from error
