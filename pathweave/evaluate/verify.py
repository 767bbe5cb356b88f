"""Proof that a path still computes what it computed when it was finished.

When a stage ends, a few inputs of its path are recorded with what the model made of them: the
tokens put into the language model, a hash of the logits that follow, the generated answer.
``verify_path`` computes them again. On the machine that recorded them they must be equal bit by
bit; elsewhere rounding may differ, so the largest difference is reported against a tolerance.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pathweave.bases.vision_llm import picture_kind
from pathweave.model.generate import generate
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Native, Prompt
from pathweave.runs.path_directory import describe_path, load_proof
from pathweave.runs.run_directory import RunDirectory
from pathweave.storage.atomic import recover_directory, sha256_bytes
from pathweave.storage.bundle import Bundle

PROOF_TOKENS = 8
TOLERANCE = 0.05
QUESTION = "What is the capital of France?"
BASE_LOGITS = "logits.safetensors"
BASE_PROOF = Bundle(
    "a proof of the base",
    "proof.json",
    (BASE_LOGITS,),
    frozenset({"answers", "machine"}),
    remedy="remove the directory; paths keep their own proofs",
)


@dataclass(frozen=True)
class Verdict:
    """Outcome for one path.

    Attributes:
        path: Name of the path.
        identical: Whether tokens, logits and answers are equal bit by bit.
        max_difference: Largest difference of a token's component, in units of the largest one.
        answers_equal: Whether the generated answers are equal.
        same_machine: Whether processor, threads and torch are those of the recording.
    """

    path: str
    identical: bool
    max_difference: float
    answers_equal: bool
    same_machine: bool

    @property
    def holds(self) -> bool:
        """Whether the proof holds: bit-identical, or within tolerance on another machine."""
        if self.same_machine:
            return self.identical
        return self.answers_equal and self.max_difference <= TOLERANCE


def record_proof(
    model: PathWeave, prompts: Sequence[Prompt]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and JSON values to keep with a path.

    Args:
        model: The model with the finished path.
        prompts: A few prompts, each with one medium of the path and then text.
    """
    media = [part for prompt in prompts for part in prompt if isinstance(part, Medium)]
    texts = [" ".join(part for part in prompt if isinstance(part, str)) for prompt in prompts]
    # Cached features are float16 already, so this loses nothing.
    tensors = {f"features_{i}": medium.features.half() for i, medium in enumerate(media)}
    soft, logits, answers = _compute(model, media[0].path, tensors, texts)
    tensors |= {f"tokens_{i}": tokens for i, tokens in enumerate(soft)}
    about = {"texts": texts, "logits": logits, "answers": answers, "machine": machine(model)}
    return tensors, about


def verify_path(
    model: PathWeave, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
) -> Verdict:
    """Compute a recorded proof again and compare."""
    soft, logits, answers = _compute(model, name, tensors, about["texts"])
    recorded = [tensors[f"tokens_{i}"] for i in range(len(soft))]
    pairs = [(a.float(), b.float()) for a, b in zip(soft, recorded, strict=True)]
    difference = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    equal = all(torch.equal(a, b) for a, b in zip(soft, recorded, strict=True))
    answers_equal = answers == about["answers"]
    identical = equal and answers_equal and logits == about["logits"]
    return Verdict(name, identical, difference, answers_equal, machine(model) == about["machine"])


def machine(model: PathWeave) -> dict[str, Any]:
    """Return what bit-identical arithmetic depends on."""
    return {
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": str(model.llm.dtype),
    }


@torch.no_grad()
def _compute(
    model: PathWeave, name: str, tensors: Mapping[str, Tensor], texts: Sequence[str]
) -> tuple[list[Tensor], list[str], list[str]]:
    """Return soft tokens, hashes of the logits after each prompt, and the answers."""
    model.eval()
    model.paths.forget_fused()  # a proof trusts nothing that was computed before
    media = [Medium(name, tensors[f"features_{i}"].float()) for i in range(len(texts))]
    prompts: list[Prompt] = [[medium, text] for medium, text in zip(media, texts, strict=True)]
    soft = model.soft_tokens(media, texts)
    logits = model.logits_after(prompts)
    hashes = [sha256_bytes(row.numpy(force=True).tobytes()) for row in logits]
    # What was recorded comes from a file, hence to the CPU.
    return [tokens.cpu() for tokens in soft], hashes, generate(model, prompts, PROOF_TOKENS)


def record_base(model: PathWeave, run: RunDirectory) -> None:
    """Keep with a run what its base makes of text, and of a picture if it reads them by itself.

    Raises:
        DiskError: If it cannot be written.
    """
    logits, answers = _compute_base(model)
    tensors = {str(i): row.cpu() for i, row in enumerate(logits)}
    about = {"answers": answers, "machine": machine(model)}
    BASE_PROOF.write(run.base_proof, {BASE_LOGITS: tensors}, about)


def verify_base(model: PathWeave, run: RunDirectory) -> list[Verdict]:
    """Compute again what was kept of the base, and compare; nothing if nothing was kept."""
    if not recover_directory(run.base_proof):
        return []
    about, tensors = BASE_PROOF.read(run.base_proof), BASE_PROOF.load(run.base_proof, BASE_LOGITS)
    logits, answers = _compute_base(model)
    pairs = [(row.cpu(), tensors[str(i)]) for i, row in enumerate(logits)]
    difference = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    equal = answers == about["answers"]
    identical = equal and all(torch.equal(a, b) for a, b in pairs)
    here = machine(model) == about["machine"]
    return [Verdict("base", identical, difference, equal, here)]


@torch.no_grad()
def _compute_base(model: PathWeave) -> tuple[list[Tensor], list[str]]:
    """Return the logits after each of a few prompts of no path, and the answers."""
    model.eval()
    asked: list[Prompt] = [[QUESTION]]
    if (kind := picture_kind(model.base.native)) is not None:
        noise = torch.randint(256, (64, 64, 3), generator=torch.Generator().manual_seed(0))
        picture = Image.fromarray(noise.byte().numpy())
        asked.append([Native(kind, picture), "What is it?"])
    # Each by itself: some bases read one number of pictures at a time.
    logits = [model.logits_after([prompt])[0] for prompt in asked]
    return logits, [generate(model, [prompt], PROOF_TOKENS)[0] for prompt in asked]


def recorded_answers(run: RunDirectory, names: Sequence[str]) -> list[tuple[Prompt, str]]:
    """Return prompts whose answers, of ``PROOF_TOKENS`` tokens, are kept with a run.

    Where stages have changed the connector, of the paths only the newest answers as it did.

    Args:
        run: The run.
        names: Its paths that are loaded, in the order in which they were learnt.
    """
    found: list[tuple[Prompt, str]] = []
    if recover_directory(run.base_proof):
        answers = BASE_PROOF.read(run.base_proof)["answers"]
        found += [([QUESTION], answers[0])]
    kept = [name for name in names if run.path(name).exists()]
    changed = run.newest_connector(kept) is not None
    for name in kept[-1:] if changed else kept:
        tensors, proof = load_proof(run.path(name)), describe_path(run.path(name)).get("proof")
        if not tensors or not proof:
            continue
        for i, answer in enumerate(proof["answers"]):
            features = tensors[f"features_{i}"].float()
            found.append(([Medium(name, features), proof["texts"][i]], answer))
    return found


def verify_run(model: PathWeave, run: RunDirectory, names: list[str]) -> list[Verdict]:
    """Verify saved paths of a run against the proofs kept with them."""
    verdicts = []
    for name in names:
        if not run.path(name).exists():
            continue  # it came with the base
        tensors, about = load_proof(run.path(name)), describe_path(run.path(name)).get("proof")
        if tensors and about:
            verdicts.append(verify_path(model, name, tensors, about))
    return verdicts
