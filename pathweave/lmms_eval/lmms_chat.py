"""Model of lmms-eval: an assistant over a run answers the messages of its tasks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.api.model import lmms

from pathweave.display import Display
from pathweave.errors import RequestError
from pathweave.runs.assistant import load


class LmmsChat(lmms):
    """A run as a chat model, ``--model pathweave --model_args run=DIR``.

    Args:
        run: Directory of a finished run.
        batch_size: Questions at once.
        device: Where the model is; None leaves it where it was loaded.
        max_batch_size: Not used; lmms-eval gives it to every model.

    Raises:
        PathWeaveError: If the directory is no run, or the batch size no number from 1.
    """

    is_simple = False

    def __init__(
        self,
        run: str,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise RequestError(
                f"batch_size must be a number from 1, got {batch_size!r}; give --batch_size 16"
            )
        self.batch_size = int(batch_size)
        self.assistant = load(run)
        if device is not None:
            self.assistant.model.to(device)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the answer to each request of a task, greedily or by beam search.

        Raises:
            PathWeaveError: If a message is malformed, a medium is of no path of the run or cannot
                be decoded, or a task wants answers to be sampled.
        """
        alike: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[2], sort_keys=True), []).append(index)
        answers: dict[int, str] = {}
        with Display() as display:
            bar = display.bar("lmms-eval", total=len(requests))
            for members in alike.values():
                wanted = requests[members[0]].args[2]
                _check_greedy(wanted)
                for start in range(0, len(members), self.batch_size):
                    batch = members[start : start + self.batch_size]
                    found = self.assistant.ask(
                        [self._turns(requests[index]) for index in batch],
                        max_tokens=wanted.get("max_new_tokens", 32),
                        beams=wanted.get("num_beams", 1),
                    )
                    answers |= zip(batch, (_until(text, wanted) for text in found), strict=True)
                    bar.advance(len(batch))
        return [answers[index] for index in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: lmms-eval gives messages to tasks of ``generate_until`` alone.

        Raises:
            RequestError: Always.
        """
        raise RequestError(
            "a task for a chat model must have output_type generate_until, got loglikelihood; rank "
            "choices with the metric ranking of pathweave evaluate"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse tasks that ask again in answer to an answer.

        Raises:
            RequestError: Always.
        """
        raise RequestError(
            "a task must have output_type generate_until, got generate_until_multi_round; choose "
            "another task"
        )

    def _turns(self, request: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        """Return the messages of a request as an assistant takes them, media as they are given."""
        _, to_messages, _, doc_id, task, split = request.args
        turns = to_messages(self.task_dict[task][split][doc_id])
        return [
            {**turn, "content": [_part(part) for part in turn["content"]]}
            if isinstance(turn["content"], list)
            else turn
            for turn in turns
        ]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part with the medium under the name that an assistant knows it by."""
    if "url" not in part:
        return dict(part)
    rest = {key: value for key, value in part.items() if key != "url"}
    medium = part["url"]
    if isinstance(medium, str):
        return {**rest, "path": medium}
    if isinstance(medium, Mapping) and "array" in medium:
        return {**rest, "data": medium["array"], "rate": medium["sampling_rate"]}
    return {**rest, "data": medium}


def _check_greedy(wanted: Mapping[str, Any]) -> None:
    if wanted.get("do_sample") or (wanted.get("temperature") or 0) > 0:
        raise RequestError(
            "a task must want the likeliest answer, got one that samples; give --gen_kwargs "
            "do_sample=False,temperature=0"
        )


def _until(text: str, wanted: Mapping[str, Any]) -> str:
    """Return an answer as far as the first of the texts at which a task stops."""
    stops = wanted.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text
