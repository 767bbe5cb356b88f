"""Use of the medium: what blanking it, or showing another sample's, does to the loss."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from rich.markup import escape

from pathweave.display import Display
from pathweave.methods.settings import Training
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Prompt, blanked
from pathweave.train.log import RunLog

LOOKS = 3  # in a row, at which the medium must be unused before that is said
LEAST_USE = 0.02  # share of the loss that the right medium must take away
UNUSED = (
    "in stage {stage!r} the right medium lowers the loss by {share:.1%} alone ({loss:.3f}; "
    "{swapped:.3f} with that of another sample, {blank:.3f} with none): answers are learnt from "
    "the text. Look at whether files and answers belong together, at what the decoder makes of "
    "them, and at the learning rate"
)


@dataclass(frozen=True)
class MediumUse:
    """Loss of the same answers with three media, in nats per token of the answer.

    Attributes:
        loss: With their own media.
        blank: With features of zeros.
        swapped: With media of samples that have other answers, where there are any.
    """

    loss: float
    blank: float
    swapped: float

    @property
    def share(self) -> float:
        """Share of the loss that the right medium takes away, against another's; 0 of no loss."""
        return (self.swapped - self.loss) / self.swapped if self.swapped else 0.0

    @property
    def is_used(self) -> bool:
        """Whether the right medium lowers the loss by more than a trifle."""
        return self.share >= LEAST_USE

    def warning(self, stage: str) -> str:
        """Return what to tell of a medium that is not used."""
        return UNUSED.format(stage=stage, share=self.share, **asdict(self))


@torch.no_grad()
def medium_use(
    model: PathWeave, prompts: Sequence[Prompt], answers: Sequence[str]
) -> MediumUse | None:
    """Measure what media do to the loss, without noise; None where there are none to exchange.

    Args:
        model: The model.
        prompts: Prompts of some samples.
        answers: Their answers.
    """
    exchanged = [_with_media_of_another(prompts, answers, i) for i in range(len(prompts))]
    if all(other is prompt for other, prompt in zip(exchanged, prompts, strict=True)):
        return None
    was_training = model.training
    model.eval()
    losses = []
    for shown in (prompts, [blanked(prompt) for prompt in prompts], exchanged):
        loss, tokens = model(shown, answers)
        losses.append(loss.item() / tokens)
    model.train(was_training)
    return MediumUse(*losses)


class MediumWatch:
    """Looks at the use of the medium while a stage trains, and an alarm when there is none.

    Args:
        stage: Name of the stage.
        training: Its settings.
        log: Where every look is recorded.
        display: Where the alarm is shown.
    """

    def __init__(self, stage: str, training: Training, log: RunLog, display: Display) -> None:
        self._stage, self._training, self._log, self._display = stage, training, log, display
        self._looks: list[MediumUse] = []
        self._is_told = False

    @property
    def note(self) -> str:
        """The last look, for the progress bar; empty before the first."""
        return f" (without the medium {self._looks[-1].blank:.3f})" if self._looks else ""

    def is_due(self, step: int) -> bool:
        """Return whether there is to be a look after a step, counted from 0."""
        every = self._training.medium_every
        return every is not None and (step + 1) % every == 0

    def look(
        self, model: PathWeave, step: int, prompts: Sequence[Prompt], answers: Sequence[str]
    ) -> None:
        """Look, and tell if half the stage is over and the last looks found the medium unused."""
        use = medium_use(model, prompts, answers)
        if use is None:
            return
        self._looks.append(use)
        rounded = {field: float(f"{value:.6g}") for field, value in asdict(use).items()}
        self._log.event("medium_use", stage=self._stage, step=step + 1, **rounded)
        last = self._looks[-LOOKS:]
        is_late = 2 * (step + 1) >= self._training.steps
        if is_late and len(last) == LOOKS and not any(each.is_used for each in last):
            self._log.event("medium_unused", stage=self._stage, step=step + 1)
            if not self._is_told:
                self._display.say(f"[yellow]{escape(use.warning(self._stage))}[/]")
            self._is_told = True


def _with_media_of_another(prompts: Sequence[Prompt], answers: Sequence[str], index: int) -> Prompt:
    """Return a prompt with the media of the next sample that shows as many on the same paths."""

    def paths(prompt: Prompt) -> list[tuple[str, str | None]]:
        return [(piece.path, piece.modality) for piece in prompt if isinstance(piece, Medium)]

    own = prompts[index]
    others = [(index + step) % len(prompts) for step in range(1, len(prompts))]
    alike = [other for other in others if paths(own) and paths(prompts[other]) == paths(own)]
    if not alike:
        return own
    chosen = next((other for other in alike if answers[other] != answers[index]), alike[0])
    media = iter([piece for piece in prompts[chosen] if isinstance(piece, Medium)])
    return [next(media) if isinstance(piece, Medium) else piece for piece in own]
