"""The originals' values in tests/golden: how their maps become rows, and how value and gradient are
compared."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "golden"
METHODS = np.load(FOLDER / "methods.npz", allow_pickle=False)
IMAGES = np.load(FOLDER / "images.npz", allow_pickle=False)


def golden(key, file=METHODS):
    return torch.from_numpy(file[key])


def rows(maps):
    """(B, F, H, W) -> (B H W, F); labels and clouds (B, H, W), (B, P, F) keep their last dimension."""
    if maps.dim() == 4:
        maps = maps.permute(0, 2, 3, 1)
    return maps.reshape(-1, maps.shape[-1]) if maps.is_floating_point() else maps.flatten()


def places(maps):
    """(B H W, 3): image, row and column of what `rows` gives."""
    batch, height, width = maps.shape[0], *maps.shape[-2:]
    return torch.cartesian_prod(torch.arange(batch), torch.arange(height), torch.arange(width))


def leaf(maps):
    """Rows that take a gradient."""
    return rows(maps).clone().requires_grad_()


def assert_original(value, key, gradients=None, file=METHODS, tolerance=1e-9):
    """The value, and its gradients: name in the file -> tensor."""
    expected = float(file[key])
    assert abs(value.item() - expected) <= tolerance * max(1, abs(expected)), key
    for name, tensor in (gradients or {}).items():
        wanted = golden(f"{key}_{name}", file)
        wanted = (rows(wanted) if wanted.dim() > 2 else wanted).reshape(tensor.shape)
        (gradient,) = torch.autograd.grad(value, tensor, retain_graph=True, allow_unused=True)
        gradient = torch.zeros_like(tensor) if gradient is None else gradient
        np.testing.assert_allclose(gradient.numpy(), wanted.numpy(), rtol=0, atol=tolerance, err_msg=key)


def step_of(channels, old_channels, **extra):
    return SimpleNamespace(index=1, channels=channels, old_channels=old_channels, **extra)


def cases(prefix):
    """The names in "prefix/name/..."."""
    return sorted({key.split("/")[1] for key in METHODS.files if key.startswith(f"{prefix}/")})
