"""What follows a convolution's sum, where no kernel of an engine does it on the way."""

from torch import Tensor


def finished(
    out: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """relu(out + bias (Cout,) + residual (M, Cout)), in the memory of `out` (M, Cout)."""
    if bias is not None:
        out = out.add_(bias)
    if residual is not None:
        out = out.add_(residual)
    return out.relu_() if relu else out
