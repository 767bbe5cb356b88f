"""Prefix cache: keys and values of what stands before the first medium of a prompt.

No trained parameter reaches those tokens, so their keys and values are constants: they need no
gradient, and prompts that begin alike share them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from pathweave.model.prompt import Ids

KeysAndValues = Float[Tensor, "layers two heads tokens head_dim"]
KEPT_TOKENS = 1024


class Prefixes:
    """Keys and values of prefixes under a frozen language model, the latest ones kept.

    A kept token costs ``2 * layers * kv_heads * head_dim`` values: 23 KB for the small base in
    bfloat16, 0.5 MB for a language model of seven billion parameters.

    Args:
        llm: The language model.
        kept_tokens: Tokens kept for later prompts, over all prefixes.

    Attributes:
        are_shareable: Whether every layer attends to everything before. In a batch of unequal
            prompts padding stands between a prefix and the rest: a sliding window would count it,
            and a recurrent state is no list of tokens.
        are_recurrent: Whether a layer keeps such a state.
    """

    def __init__(self, llm: PreTrainedModel, kept_tokens: int = KEPT_TOKENS) -> None:
        self._llm = llm
        layers = DynamicCache(config=llm.config).layers
        self.are_shareable = all(type(layer) is DynamicLayer for layer in layers)
        self.are_recurrent = any(isinstance(x, LinearAttentionCacheLayerMixin) for x in layers)
        self._kept_tokens = kept_tokens
        self._known: OrderedDict[Ids, KeysAndValues] = OrderedDict()

    def cache(
        self, prefixes: Sequence[Ids]
    ) -> tuple[DynamicCache | None, Int[Tensor, "batch prefix"]]:
        """Return a cache to go on from, one row per prefix, and which of its columns count (1).

        Rows are padded on the left. There is no cache if every prefix is empty.
        """
        device = self._llm.device
        length = max(map(len, prefixes))
        if length == 0:
            return None, torch.zeros(len(prefixes), 0, dtype=torch.long, device=device)
        distinct = list(dict.fromkeys(prefixes))
        read = self._read([ids for ids in distinct if ids])
        shape = next(iter(read.values()))
        empty = shape[..., :0, :]
        padded = torch.stack(
            [F.pad(read.get(ids, empty), (0, 0, length - len(ids), 0)) for ids in distinct]
        )
        rows = padded[torch.tensor([distinct.index(ids) for ids in prefixes], device=device)]
        counts = torch.tensor([len(ids) for ids in prefixes], device=device)
        mask = torch.arange(length, device=device) >= length - counts[:, None]
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(rows.permute(1, 2, 0, 3, 4, 5)):
            cache.update(keys, values, layer)
        return cache, mask.long()

    @torch.no_grad()
    def _read(self, prefixes: Sequence[Ids]) -> dict[Ids, KeysAndValues]:
        """Return keys and values of prefixes, computing those that are not kept."""
        found, device = {}, self._llm.device
        for ids in prefixes:
            known = self._known.get(ids)
            if known is None or known.device != device:
                # Each by itself, so that its values do not depend on its company, to the last bit.
                cache = DynamicCache()
                row = torch.tensor([ids], device=device)
                self._llm.base_model(input_ids=row, cache=cache, use_cache=True)
                layers = cast(list[DynamicLayer], cache.layers)
                pairs = [torch.cat([cast(Tensor, x.keys), cast(Tensor, x.values)]) for x in layers]
                known = torch.stack(pairs)
            found[ids] = self._known[ids] = known
            self._known.move_to_end(ids)
        while sum(map(len, self._known)) > self._kept_tokens:
            self._known.popitem(last=False)
        return found
