"""What is not finite is refused before the weights move, and the loss term that it comes from is named."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from scannet_css.methods.method import LossTerms

MOST_SKIPS = 10  # updates in a row that float16's loss scale may skip until it fits


class NotFinite(Exception):
    """A loss term, or the gradient, is not finite."""

    def __init__(self, message: str, is_gradient: bool = False) -> None:
        super().__init__(message)
        self.is_gradient = is_gradient


class FiniteGuard:
    """Looks at the numbers of every update of a step."""

    def __init__(self) -> None:
        self._skips = 0  # in a row

    def check(
        self, mine: dict[str, Tensor], whole: dict[str, Tensor], norm: Tensor, may_skip: bool
    ) -> dict[str, float]:
        """The whole batch's loss terms and "gradient_norm" as numbers; all of them, and those of `mine`, this
        process' share, in one wait for the GPU.

        `may_skip`: the loss is scaled, so a gradient may overflow a few times until the scale fits. Raises
        NotFinite.
        """
        numbers = torch.stack([*whole.values(), norm.double(), *mine.values()]).tolist()
        values = dict(zip([*whole, "gradient_norm"], numbers, strict=False))
        for name, value in [*zip(mine, numbers[len(values) :], strict=True), *values.items()]:
            if not math.isfinite(value) and name != "gradient_norm":
                raise NotFinite(f"loss term {name!r} is {value}")
        if math.isfinite(values["gradient_norm"]):
            self._skips = 0
        elif may_skip and self._skips < MOST_SKIPS:
            self._skips += 1  # the loss was scaled up too far: the scaler skips this update and scales less
        else:
            raise NotFinite(f"gradient norm is {values['gradient_norm']}", is_gradient=True)
        return values


def terms_with_a_bad_gradient(parts: Iterable[LossTerms], parameters: Sequence[Tensor]) -> list[str]:
    """Names of the terms whose gradient by the parameters is not finite, in any part of the batch."""
    names: list[str] = []
    for terms in parts:
        for name, term in terms.items():
            if name not in names and term.requires_grad:
                gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
                if not all(g is None or bool(g.isfinite().all()) for g in gradients):
                    names.append(name)
    return names
