"""PathWeave: a base and its paths, from features and text to tokens.

Everything here takes the path of each medium from the prompt itself; a batch and a prompt may mix
them. Encoders are outside: they are frozen, so their features are computed once (``data.cache``).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby, islice
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.errors import RunError
from pathweave.model.base import Base
from pathweave.model.chat import LaidOutChats, lay_out_chats
from pathweave.model.laid_out import LaidOut, Prefilled, context_of, pad, too_long
from pathweave.model.llm_hosts import PREFIX, llm_linears, recomputed, tail_linears
from pathweave.model.paths import Paths, matches
from pathweave.model.prefix_cache import Prefixes
from pathweave.model.prompt import Medium, Prompt, instruction, lay_out, token_ids
from pathweave.model.soft_vocabulary import Ride, first_soft_id, hook_embeddings
from pathweave.nn import Mixture, Projector, QFormer, woven_sites
from pathweave.nn.hooked import Carried, carrying

MAX_TEXT = 128  # tokens of the instruction that the Q-Former reads
# The first token of an answer is predicted from the one before it.
EMPTY_PROMPT = (
    "a prompt must put at least one token, of text or of a medium, before its answer, got none; "
    "give it a text or a medium"
)


class PathWeave(nn.Module):
    """A frozen base and any number of paths, first those that the base was pretrained with.

    Args:
        base: Language model, Q-Former and projector.
        cues: Words put before the tokens of a medium, by modality or else path.

    Attributes:
        checkpointing: Whether training computes what the language model's layers made once more
            in the backward pass, instead of keeping it.

    Example:
        ``model([["What is it?", Medium("audio", features)]], ["a dog"])`` gives the loss,
        ``model.generate(prompts)`` (in ``evaluate.generate``) the answers.
    """

    def __init__(self, base: Base, cues: dict[str, str] | None = None):
        super().__init__()
        self.base = base
        self.llm = base.llm
        self.qformer = base.qformer
        self.projector = base.projector
        self.cues = dict(cues or {})
        self.prefixes = Prefixes(self.llm)
        if base.native:  # some let words read ahead, or place them by what stands before
            self.prefixes.are_shareable = False
        self.tail = base.tail
        hook_embeddings(self.llm)
        self._first_soft_id = first_soft_id(self.llm, len(base.tokenizer))
        self.checkpointing = False
        woven = woven_sites(self.qformer) | woven_sites(self.projector)
        # A path draws its adapters in this order: those of feed-forward blocks last.
        sites = sorted(woven, key=lambda site: not matches(site, ("*",)))
        hosts = {s: (woven[s].host.in_features, woven[s].host.out_features) for s in sites}
        shape = self.qformer.shape
        parts = dict(base.connector.items())
        foreign = llm_linears(self.llm) | tail_linears(base.tail)
        self.paths = Paths(shape.dim, shape.encoder_width, hosts, parts, foreign)
        for ready in base.ready_paths:
            self.paths.expand(ready.spec).load_state_dict(dict(ready.state))

    @property
    def _recomputes(self) -> bool:
        return self.checkpointing and self.training and torch.is_grad_enabled()

    @property
    def device(self) -> torch.device:
        """Device of the connector."""
        return self.projector.linear.host.weight.device

    def train(self, mode: bool = True) -> "PathWeave":
        """Set the mode of what is being trained; frozen parts stay in evaluation mode."""
        super().train(False)
        for module in (self.qformer, self.projector, *self.paths):
            if any(p.requires_grad for p in module.parameters()):
                module.train(mode)
        self.training = mode
        return self

    def forward(
        self, prompts: Sequence[Prompt], answers: Sequence[str], read: Counter[str] | None = None
    ) -> tuple[Float[Tensor, ""], int]:
        """Return the summed negative log-likelihood of the answers, in nats, and their tokens.

        Args:
            prompts: Text and encoded media.
            answers: What is to be said.
            read: Counts the ``tokens`` that the language model reads, without shared prefixes, and
                how many of them are ``padding``.
        """
        said = [self.answer_ids(answer) for answer in answers]
        counts = [len(answer) for answer in said]
        prefilled = self.prefill(prompts, counts)
        before, ride = prefilled.remainder, prefilled.laid_out.ride
        # Nothing is predicted from the last token, so it is not read.
        rows = [torch.cat([row, answer[:-1]]) for row, answer in zip(before, said, strict=True)]
        ids, mask = pad(rows, side="right")
        if read is not None:
            read.update(tokens=ids.numel(), padding=ids.numel() - sum(map(len, rows)))
        # Position t predicts token t + 1. Logits are as wide as the vocabulary, so they are made
        # only where needed; by the model's own forward pass, as some models scale or cap what their
        # output embeddings give. Where that is, the lengths tell: no tensor's values are asked.
        wanted = torch.zeros(ids.shape, dtype=torch.bool, device="cpu")
        for row, start, count in zip(wanted, map(len, before), counts, strict=True):
            row[start - 1 : start - 1 + count] = True
        ride.known = ids
        inputs = prefilled.decoder_inputs(mask.to(self.device))
        more = [count - 1 for count in counts]
        inputs |= prefilled.laid_out.beside("right", self.device, self.base.after_prompt, more)
        again = recomputed(self.llm) if self._recomputes else nullcontext()
        with carrying(ride), again:
            ids = ids.to(self.device)
            logits = self.llm(input_ids=ids, logits_to_keep=wanted, **inputs).logits
        labels = torch.cat(said).to(self.device)
        return F.cross_entropy(logits.float(), labels, reduction="sum"), sum(counts)

    def answer_ids(self, answer: str) -> Int[Tensor, " answer"]:
        """Return the tokens of an answer, closed by the end-of-sequence token, on the host."""
        space = "" if self.base.template.chat else " "  # a chat template brings its own
        text = f"{space}{answer.strip()}{self.base.template.end}"
        # Where a template marks the turns, the name of a special token is plain text.
        ids = token_ids(self.base.tokenizer, text, spelled=self.base.template.chat is not None)
        return torch.tensor([*ids, self.base.end_token], device="cpu")

    def prefill(self, prompts: Sequence[Prompt], answers: Sequence[int] = ()) -> Prefilled:
        """Return prompts up to their answers, with what precedes the first media already read.

        Args:
            prompts: Text and encoded media.
            answers: For each the most tokens that its answer may have; () counts none.

        Raises:
            RunError: If the language model cannot read so many tokens, or a prompt has none.
        """
        laid_out = self.lay_out(prompts)
        rows = laid_out.rows
        # A layer that is computed again would put its keys into the cache twice.
        if not self.prefixes.are_shareable or self._recomputes:
            rows = [((), prefix + rest) for prefix, rest in rows]
        context = context_of(self.llm.config)
        for (prefix, rest), answer in zip(rows, answers or [0] * len(rows), strict=True):
            if not rest:
                raise RunError(EMPTY_PROMPT)
            if problem := too_long(len(prefix) + len(rest), answer, context):
                raise RunError(problem)
        cache, mask = self.prefixes.cache([prefix for prefix, _ in rows])
        remainder = [torch.tensor(rest, device="cpu") for _, rest in rows]
        return Prefilled(cache, mask, remainder, laid_out, by_itself=bool(self.base.native))

    def length(self, prompt: Prompt) -> int:
        """Return the number of tokens of a prompt, with the words around it."""
        return sum(
            self.tokens_of(piece) if isinstance(piece, Medium) else len(piece)
            for piece in self._pieces([prompt]).rows[0]
        )

    def tokens_of(self, medium: Medium) -> int:
        """Return the number of tokens that the connector makes of a medium."""
        return len(medium.features) * self.paths[medium.path].spec.num_queries

    def misfit(self, prompt: Prompt, answer: str | int) -> str | None:
        """Return why the language model cannot read a prompt and its answer, else None.

        Args:
            prompt: Text and encoded media.
            answer: The answer, or the number of its tokens.
        """
        length = self.length(prompt)
        if not length:
            return EMPTY_PROMPT
        count = answer if isinstance(answer, int) else len(self.answer_ids(answer))
        return too_long(length, count, context_of(self.llm.config))

    def embed_prompts(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "tokens out"]]:
        """Return each prompt as a sequence in the language model's embedding space."""
        laid_out = self.lay_out(prompts)
        embed = self.llm.get_input_embeddings()
        rows = [torch.tensor([prefix + rest], device=self.device) for prefix, rest in laid_out.rows]
        with carrying(laid_out.ride):
            return [embed(row)[0] for row in rows]

    @torch.no_grad()
    def logits_after(
        self,
        prompts: Sequence[Prompt],
        mixtures: Mapping[str, Mapping[str, Mixture]] | None = None,
    ) -> Float[Tensor, "prompts words"]:
        """Return the logits of the first token of the answer to each prompt, in float32.

        Args:
            prompts: Text and encoded media.
            mixtures: See ``lay_out``.
        """
        laid_out = self.lay_out(prompts, mixtures)
        rows = [torch.tensor(prefix + rest, device=self.device) for prefix, rest in laid_out.rows]
        ids, mask = pad(rows, side="left")
        beside = laid_out.beside("left", self.device, self.base.after_prompt)
        with carrying(laid_out.ride):
            made = self.llm(input_ids=ids, attention_mask=mask, logits_to_keep=1, **beside)
        return made.logits[:, -1].float()

    def lay_out(
        self,
        prompts: Sequence[Prompt],
        mixtures: Mapping[str, Mapping[str, Mixture]] | None = None,
    ) -> LaidOut:
        """Return prompts as ids, and the media that stand behind some of them.

        Args:
            prompts: Text and encoded media.
            mixtures: Fused experts of the paths, where they are not those of ``paths.mixtures``.
        """
        read = self._pieces(prompts)
        layouts = read.rows
        media = [
            (piece, instruction(prompt))
            for prompt, pieces in zip(prompts, layouts, strict=True)
            for piece in pieces
            if isinstance(piece, Medium)
        ]
        names = list(dict.fromkeys(medium.path for medium, _ in media))
        mixtures = mixtures or {name: self.paths.mixtures(name) for name in names}
        # One pass of the connector over the media of all prompts, in their order.
        soft = self.soft_tokens([m for m, _ in media], [text for _, text in media], mixtures)
        ids = iter(range(self._first_soft_id, self._first_soft_id + sum(map(len, soft))))
        counts = iter(map(len, soft))
        rows, whole = [], any(self.paths[name].spec.scope == "prompt" for name in names)
        alongside = []
        for pieces, marks in zip(layouts, read.alongside, strict=True):
            first = next((i for i, piece in enumerate(pieces) if isinstance(piece, Medium)), 0)
            row = [
                tuple(islice(ids, next(counts))) if isinstance(piece, Medium) else piece
                for piece in pieces
            ]
            # What a path corrects from the first token on is no prefix that prompts could share.
            first = 0 if whole else first
            rows.append((sum(row[:first], ()), sum(row[first:], ())))
            widths = [
                width
                for piece, tokens in zip(pieces, row, strict=True)
                for width in ([len(tokens)] if isinstance(piece, Medium) else [1] * len(piece))
            ]
            times = torch.tensor(widths, device="cpu")
            alongside.append({n: mark.repeat_interleave(times, dim=0) for n, mark in marks.items()})
        vectors = torch.cat(soft) if soft else torch.empty(0, 0, device=self.device)
        path_of = [
            i for (m, _), t in zip(media, soft, strict=True) for i in [names.index(m.path)] * len(t)
        ]
        ride = self._ride(vectors, path_of, {name: mixtures[name] for name in names})
        return LaidOut(rows, ride, alongside, read.inputs)

    def ride_on(self, paths: Sequence[str | None]) -> Ride:
        """Return what a pass carries that reads no media, and whose rows have read some before.

        Args:
            paths: For each row the path that its next token takes inside the language model.
        """
        names = list(dict.fromkeys(name for name in paths if name is not None))
        mixtures = {name: self.paths.mixtures(name) for name in names}
        # One token of a medium stands for all that a row has read.
        taken = [names.index(name) if name else 0 for name in paths] if names else []
        ride = self._ride(torch.empty(0, 0, device=self.device), taken, mixtures)
        if names:
            ride.take_up([name is not None for name in paths])
        return ride

    def _ride(
        self,
        vectors: Float[Tensor, "soft dim"],
        path_of: Sequence[int],
        mixtures: Mapping[str, Mapping[str, Mixture]],
    ) -> Ride:
        inside = [{s: m for s, m in of.items() if s.startswith(PREFIX)} for of in mixtures.values()]
        scopes = [self.paths[name].spec.scope for name in mixtures]
        return Ride(self._first_soft_id, vectors, path_of, inside, scopes, list(mixtures))

    def _pieces(self, prompts: Sequence[Prompt]) -> LaidOutChats:
        """Return prompts as ids and media, in the words of the base or in its chat template."""
        base = self.base
        if base.reader is not None:
            return lay_out_chats(prompts, base.reader, self.cues)
        rows = [lay_out(prompt, base.tokenizer, base.template, self.cues) for prompt in prompts]
        return LaidOutChats(rows, [{} for _ in rows], {})

    def soft_tokens(
        self,
        media: Sequence[Medium],
        texts: Sequence[str],
        mixtures: Mapping[str, Mapping[str, Mixture]] | None = None,
    ) -> list[Float[Tensor, "tokens out"]]:
        """Return the tokens that the connector makes of each medium.

        All paths that share the connector take one pass together; one that has parts of its own
        takes one with those.

        Args:
            media: Encoded media, of any mixture of paths.
            texts: The instruction that the Q-Former reads beside each medium.
            mixtures: Fused experts of the paths, if they are known already.

        Raises:
            PathError: If a medium names a path that the model does not have.
        """
        # A path with parts of its own is an owner; None stands for the shared connector.
        soft: dict[int, Tensor] = {}
        owners = [m.path if self.paths[m.path].own else None for m in media]
        for owner in dict.fromkeys(owners):
            chosen = [i for i, of in enumerate(owners) if of == owner]
            own = {} if owner is None else dict(self.paths[owner].own.items())
            tokens = self.connect(
                [media[i] for i in chosen],
                [texts[i] for i in chosen],
                cast(QFormer, own.get("qformer", self.qformer)),
                cast(Projector, own.get("projector", self.projector)),
                mixtures,
            )
            soft |= zip(chosen, tokens, strict=True)
        return [soft[i] for i in range(len(media))]

    def connect(
        self,
        media: Sequence[Medium],
        texts: Sequence[str],
        qformer: QFormer,
        projector: Projector,
        mixtures: Mapping[str, Mapping[str, Mixture]] | None = None,
    ) -> list[Float[Tensor, "tokens out"]]:
        """Return the tokens that a Q-Former and a projector make of each medium with its path."""
        # The Q-Former reads a row per unit (frame or window). A route wants one run of rows a path,
        # in the order of the paths: so media are sorted by path, and put back at the end. The
        # units of a medium stay together, and each reads the instruction of its medium.
        known = self.paths.names
        order = sorted(range(len(media)), key=lambda i: known.index(media[i].path))
        units = [len(media[i].features) for i in order]
        rows = [i for i, count in zip(order, units, strict=True) for _ in range(count)]
        names = [media[i].path for i in rows]
        features, feature_mask = self._project([media[i] for i in order])
        text, text_mask = self._qformer_text([texts[i] for i in rows])
        route = self.paths.route(names, mixtures)
        queries = torch.stack([self.paths[name].queries for name in names])
        queries = qformer(queries, features, route, feature_mask, text, text_mask)
        tokens = projector(queries, route).to(self.llm.dtype)
        if self.tail is not None:
            with carrying(Carried(route)):
                tokens = self.tail(tokens)
        by_medium = dict(zip(order, tokens.split(units), strict=True))
        return [by_medium[i].flatten(0, 1) for i in range(len(media))]

    def _project(
        self, media: Sequence[Medium]
    ) -> tuple[Float[Tensor, "batch tokens width"], Bool[Tensor, "batch tokens"] | None]:
        """Normalise and project features, sorted by path; pad to a common number of tokens."""
        projected: list[Tensor] = []
        for name, group in groupby(media, key=lambda medium: medium.path):
            rows = [row for medium in group for row in medium.features.to(self.device)]
            projected.extend(self.paths[name].project(rows))
        features, mask = pad(projected, side="right")
        return features, None if mask.all() else mask.bool()

    def _qformer_text(
        self, texts: Sequence[str]
    ) -> tuple[Int[Tensor, "batch text"] | None, Bool[Tensor, "batch text"] | None]:
        if self.base.text_tokenizer is None:
            return None, None
        encoded = self.base.text_tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=min(MAX_TEXT, self.qformer.shape.max_positions),
            return_tensors="pt",
        )
        mask = encoded["attention_mask"].to(self.device).bool()
        return encoded["input_ids"].to(self.device), None if mask.all() else mask
