"""What the methods' own code computes (tests/golden/methods.npz), as tensors."""

from pathlib import Path

import numpy as np
import torch

METHODS = np.load(Path(__file__).parents[1] / "golden" / "methods.npz", allow_pickle=False)


def original(case):
    """Every value under "case/", by the rest of its name; scalars as numbers."""
    names = [name for name in METHODS.files if name.startswith(f"{case}/")]
    values = {name.removeprefix(f"{case}/"): METHODS[name] for name in names}
    return {name: torch.from_numpy(value) if value.ndim else value.item() for name, value in values.items()}


def rows(maps):
    """(B, F, H, W) -> (B H W, F), and (B, H, W) -> (B H W,): pixels as rows."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2) if maps.dim() == 4 else maps.flatten()


def assert_close(found, expected, tolerance=1e-9):
    """To `tolerance` of the largest value, where this is above 1."""
    found, expected = (torch.as_tensor(each, dtype=torch.float64).detach() for each in (found, expected))
    assert found.shape == expected.shape
    largest = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= tolerance * largest


def assert_gradients(value, case, name, **inputs):
    """The gradients of `value` by tensors are the original's `name`_grad, or `name`_grad_X for several. An
    input is a tensor and how its gradient becomes the shape of the original's."""
    gradients = torch.autograd.grad(
        value, [each for each, _ in inputs.values()], allow_unused=True, retain_graph=True
    )
    for (key, (tensor, shaped)), gradient in zip(inputs.items(), gradients, strict=True):
        expected = original(case)[f"{name}_grad{key and '_' + key}" if key != "only" else f"{name}_grad"]
        gradient = torch.zeros_like(tensor) if gradient is None else gradient
        assert_close(shaped(gradient), expected)
