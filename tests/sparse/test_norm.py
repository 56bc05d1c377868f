"""Batch normalisation in training on the CPU against torch's in float64."""

import pytest
import torch

from scannet_css.sparse import BatchNorm, SparseTensor


def sparse_tensor(features):
    rows = torch.arange(len(features))
    return SparseTensor(features, torch.stack([rows * 0, rows % 300, rows // 300, rows * 0], dim=1))


def trained(dtype, features, gradient, momentum=0.1):
    """Output, gradients and running statistics after a training step of torch's own layer in `dtype`."""
    features = features.to(dtype).detach().requires_grad_()
    layer = torch.nn.BatchNorm1d(features.shape[1], momentum=momentum).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, features.shape[1]))
        layer.bias.copy_(torch.linspace(-1, 1, features.shape[1]))
    return layer, features, gradient.to(dtype)


@pytest.mark.parametrize(("rows", "channels"), [(2, 3), (999, 1), (5000, 96), (60_000, 32)])
def test_output_gradients_and_running_statistics_are_those_of_float64(rows, channels):
    torch.manual_seed(0)
    features, gradient = torch.randn(rows, channels) * 3 + 20, torch.randn(rows, channels)
    reference, exact, exact_gradient = trained(torch.float64, features, gradient)
    out = reference(exact)
    expected = torch.autograd.grad(out, [exact, reference.weight, reference.bias], exact_gradient)

    layer = BatchNorm(channels)
    layer.bn, inputs, gradient = trained(torch.float32, features, gradient)
    actual = layer(sparse_tensor(inputs)).features
    grads = torch.autograd.grad(actual, [inputs, layer.bn.weight, layer.bn.bias], gradient)
    assert (actual - out).abs().max() < 5e-6 * out.abs().max()
    for one, other in zip(grads, expected, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max().clamp(min=1e-2)
    for name in ("running_mean", "running_var"):
        one, other = getattr(layer.bn, name), getattr(reference, name)
        assert (one - other).abs().max() < 2e-6 * other.abs().max()
    assert layer.bn.num_batches_tracked == 1


def test_the_number_of_threads_hardly_matters():
    torch.manual_seed(0)
    x = sparse_tensor(torch.randn(80_000, 48) + 5)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            results.append(BatchNorm(48)(x).features.detach())
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert (results[0] - other).abs().max() < 1e-6 * results[0].abs().max()


def test_float64_gradients_are_right():
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    layer = BatchNorm(3).double()
    assert torch.autograd.gradcheck(lambda features: layer(sparse_tensor(features)).features, x)
