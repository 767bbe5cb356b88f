"""One training step and two answers of a model of the paper's size, with random weights, on a CPU.

    python -m benchmarks.full_size_step [--out DIR]       (22 GB of memory; all is measured once)
    python -m benchmarks.full_size_step --small           (the same code, tiny)

Vicuna-7B's shape in bfloat16, EVA-CLIP's ViT-g/14 at 224 pixels in bfloat16, a Q-Former of 12
layers in float32 with a path for pictures and the paper's four paths. The one that reads pairs of
a picture and a depth map is learnt last here, so that the path that is trained is one that reads
the ViT. Weights are made in place: modules come from the meta device, get memory once in their own
type, and are filled with copies of one block of random numbers.
"""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    InstructBlipVisionConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from benchmarks.report import Figure, Report, options
from pathweave.encoders.eva_weights import VIT_G, empty_vision_model
from pathweave.estimate.costs import Memory
from pathweave.estimate.estimate import FLOAT32, MOMENTS
from pathweave.estimate.measure import Saved, weight_bytes
from pathweave.estimate.shapes import known_sizes
from pathweave.methods.settings import Training
from pathweave.model.base import Base, freeze, with_contiguous_head
from pathweave.model.generate import generate
from pathweave.model.paths import PathSpec
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt
from pathweave.nn import Projector, QFormer, QFormerConfig
from pathweave.train.schedule import make_optimizer

BLOCK = 4_194_301  # a prime, so that no row of a matrix repeats another
STD = 0.02
TOKENS = 8
QUESTION, ANSWER = "What is nearest to the viewer?", "A red armchair."
FIRST, NEWEST = "image", "depth"
VICUNA = "Salesforce/instructblip-vicuna-7b"
GIGA = 1e9


@dataclass(frozen=True)
class Sizes:
    """What is built.

    Attributes:
        llm: Configuration of the language model.
        vision: Sizes of the ViT.
        qformer: Sizes of the Q-Former.
        widths: Width of the features of each path, in the order of learning.
        queries: Query tokens of a path.
    """

    llm: dict[str, Any]
    vision: dict[str, Any]
    qformer: QFormerConfig
    widths: dict[str, int]
    queries: int = 32

    @classmethod
    def full(cls) -> "Sizes":
        """Return the sizes of the paper's model."""
        known = known_sizes()["bases"][VICUNA]
        widths = {FIRST: 1408, "video": 1408, "audio": 768, "point_cloud": 512, NEWEST: 1408}
        return cls(known["llm"], VIT_G, QFormerConfig(**known["qformer"]), widths)

    @classmethod
    def small(cls) -> "Sizes":
        """Return sizes for a test, with all the same parts."""
        return cls(
            llm={
                **known_sizes()["bases"][VICUNA]["llm"],
                "vocab_size": 300,
                "hidden_size": 64,
                "intermediate_size": 176,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
            },
            vision={
                "hidden_size": 24,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": 14,
                "image_size": 28,
            },
            qformer=QFormerConfig(
                dim=32, num_layers=2, num_heads=2, hidden_dim=64, encoder_width=24, vocab_size=300
            ),
            widths={FIRST: 24, "video": 24, "audio": 16, "point_cloud": 12, NEWEST: 24},
            queries=4,
        )


class Stopwatch:
    """Seconds and peak memory, by phase and part."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.peaks: dict[str, int] = {}
        self._phase = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase as a whole; what none of its parts took is called the rest."""
        self._phase = name
        began = time.perf_counter()
        yield
        parts = self.seconds[name]
        parts["rest"] = time.perf_counter() - began - sum(parts.values())
        self.peaks[name] = peak_memory()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the running phase; several times add up."""
        began = time.perf_counter()
        yield
        self.seconds[self._phase][name] += time.perf_counter() - began

    def watch(self, module: nn.Module, name: Callable[[dict[str, Any]], str]) -> None:
        """Time every forward pass of a module as the part that ``name`` makes of its arguments."""
        began: list[float] = []

        def start(*_: object) -> None:
            began.append(time.perf_counter())

        def stop(_: nn.Module, __: object, arguments: dict[str, Any], ___: object) -> None:
            part = name(arguments)
            self.seconds[self._phase][part] += time.perf_counter() - began.pop()

        module.register_forward_pre_hook(start)
        module.register_forward_hook(stop, with_kwargs=True)


def reads_or_writes(arguments: dict[str, Any]) -> str:
    """Name a pass through the language model: words before the medium, the rest, a new token."""
    ids = arguments.get("input_ids")
    if ids is not None and ids.shape[1] == 1:
        return "llm, one token each"
    is_before = arguments.get("position_ids") is None
    return "llm, before the medium" if is_before else "llm, whole sequence"


def materialise(module: nn.Module, device: str = "cpu") -> None:
    """Give a module from the meta device memory, once, and fill its weights in place."""
    module.to_empty(device=device)
    size = min(BLOCK, max(p.numel() for p in module.parameters()))
    block = torch.randn(size).to(device) * STD
    with torch.no_grad():
        for index, (name, parameter) in enumerate(module.named_parameters()):
            flat = parameter.view(-1)
            if parameter.ndim == 1:
                flat.fill_(float("norm" in name and name.endswith("weight")))
                continue
            shifted = block.roll(index).to(parameter.dtype)
            for start in range(0, len(flat), len(block)):
                part = flat[start : start + len(block)]
                part.copy_(shifted[: len(part)])
    freeze(module)


def build_llm(config: LlamaConfig, device: str = "cpu") -> PreTrainedModel:
    """Return a language model in bfloat16 with random weights, made in place."""
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    materialise(llm, device)
    # Its frequencies are no weights: they are computed, not filled.
    llm.model.rotary_emb = type(llm.model.rotary_emb)(config).to(device)
    return with_contiguous_head(llm)


def build_tower(sizes: Sizes, device: str = "cpu") -> nn.Module:
    """Return a ViT in bfloat16 with random weights, made in place."""
    tower = empty_vision_model(InstructBlipVisionConfig(**sizes.vision)).bfloat16()
    materialise(tower, device)
    return tower


def build_model(sizes: Sizes, device: str = "cpu") -> PathWeave:
    """Return the model with all paths; the newest alone requires gradients."""
    config = LlamaConfig(**{k: v for k, v in sizes.llm.items() if k != "model_type"})
    llm = build_llm(config, device)
    with torch.device("meta"):
        qformer = QFormer(sizes.qformer)
        projector = Projector(sizes.qformer.dim, config.hidden_size)
    materialise(qformer, device)
    materialise(projector, device)
    tokenizer = byte_tokenizer()
    model = PathWeave(
        Base("vicuna-7b-shaped", llm, tokenizer, qformer, projector, text_tokenizer=tokenizer),
        cues={name: f"{name}:" for name in sizes.widths},
    )
    adapted = [name for name in sizes.widths if name != FIRST]
    for name, width in sizes.widths.items():
        spec = PathSpec(
            name,
            width,
            sizes.queries,
            predecessors=() if name == FIRST else tuple(adapted[: adapted.index(name)]),
            rank=0 if name == FIRST else 8,
            gate="noisy_softmax",
            plain_sites=("projector",),
        )
        path = model.paths.expand(spec)
        for parameter in path.experts.parameters():
            nn.init.normal_(parameter, std=STD)
    freeze(model.to(device))
    model.paths[NEWEST].requires_grad_(True)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte: lengths matter here, words do not."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "<unk>": 1, "</s>": 2, **{c: i + 3 for i, c in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@torch.no_grad()
def encode(tower: nn.Module, frames: int, size: int) -> Tensor:
    """Return the features of random pictures: [frames, tokens, width]."""
    device = next(tower.parameters()).device
    pixels = torch.randn(frames, 3, size, size).to(device, torch.bfloat16)
    return tower(pixels).last_hidden_state.float()


def expectation(model: PathWeave, tower: nn.Module, kept: int) -> Memory:
    """Return the memory of the training step that shapes tell."""
    trained = count(model.paths[NEWEST])
    return Memory(
        llm=weight_bytes(model.llm),
        encoder=weight_bytes(tower),
        connector=weight_bytes(model.qformer, model.projector, model.paths),
        gradients=trained * FLOAT32,
        optimizer=trained * FLOAT32 * MOMENTS,
        activations=kept,
    )


def run(sizes: Sizes) -> list[Figure]:
    """Build, train one step, answer twice; return parameters, memory, time and loss."""
    before, watch = peak_memory(), Stopwatch()
    torch.manual_seed(0)
    with watch.phase("build"):
        with watch.part("encoder"):
            tower = build_tower(sizes)
        with watch.part("model"):
            model = build_model(sizes)
    watch.watch(model.qformer, lambda _: "connector")
    watch.watch(model.projector, lambda _: "connector")
    watch.watch(model.llm.base_model, reads_or_writes)
    watch.watch(model.llm.get_output_embeddings(), lambda _: "llm, head")
    size = sizes.vision["image_size"]
    with watch.phase("training step"):
        with watch.part("encoder"):
            pair = encode(tower, 2, size)
        loss, kept = train_step(model, [Medium(NEWEST, pair), QUESTION], watch)
    for name, frames in ((FIRST, 1), (NEWEST, 2)):
        with watch.phase(f"answer, {name}"):
            with watch.part("encoder"):
                features = encode(tower, frames, size)
            asked: Prompt = [Medium(name, features), QUESTION]
            generate(model, [asked], max_tokens=TOKENS, min_tokens=TOKENS)
    parts = {
        "language model": count(model.llm),
        "encoder": count(tower),
        "Q-Former and projector": count(model.qformer) + count(model.projector),
        "paths": count(model.paths),
        "trained": count(model.paths[NEWEST]),
    }
    peaks = {"before building": before, **watch.peaks}
    expected = expectation(model, tower, kept)
    shapes = {**vars(expected), "all": expected.total}
    figures = [Figure(f"parameters, {part}", n / GIGA, "G") for part, n in parts.items()]
    figures += [Figure(f"peak, {phase}", n / GIGA, "GB") for phase, n in peaks.items()]
    figures += [Figure(f"from shapes, {part}", n / GIGA, "GB") for part, n in shapes.items() if n]
    for phase, seconds in watch.seconds.items():
        figures.append(Figure(phase, sum(seconds.values()), "s"))
        figures += [Figure(f"{phase}: {part}", took, "s") for part, took in seconds.items()]
    return [*figures, Figure("loss of the training step", loss, "nats a token")]


def train_step(
    model: PathWeave, prompt: Sequence[str | Medium], watch: Stopwatch
) -> tuple[float, int]:
    """Train the newest path on one sample; return the loss a token and the bytes autograd kept."""
    modules = nn.ModuleDict({"path": model.paths[NEWEST]})
    optimizer = make_optimizer(modules, Training())
    model.train()
    with Saved(model) as saved:
        loss, tokens = model([prompt], [ANSWER])
    kept = saved.num_bytes
    del saved  # it holds what it has seen
    with watch.part("backward"):
        (loss / tokens).backward()
    with watch.part("optimiser"):
        optimizer.step()
    check_gradients(model)
    optimizer.zero_grad(set_to_none=True)
    model.eval()
    return loss.item() / tokens, kept


def check_gradients(model: PathWeave) -> None:
    """Fail unless the newest path, and it alone, has a finite gradient everywhere."""
    own = {id(p) for p in model.paths[NEWEST].parameters()}
    found = {id(p) for p in model.parameters() if p.grad is not None}
    assert found == own, f"{len(found ^ own)} parameters differ"
    assert all(p.grad.isfinite().all() for p in model.paths[NEWEST].parameters())  # type: ignore[union-attr]


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    given = options(__doc__).parse_args(words)
    question = "What do one step and two answers take at full size?"
    report = Report("full_size_step", question, {"tokens of an answer": TOKENS})
    report.figures += run(Sizes.small() if given.small else Sizes.full())
    report.finish(given.out)


if __name__ == "__main__":
    main()
