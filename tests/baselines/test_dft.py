"""DFT*: outputs of all classes from step 0 on, of which a step trains its own and those to come."""

import torch
import torch.nn.functional as F

import baselines  # noqa: F401  registers the methods
from scannet_css.methods.method import find_method
from scannet_css.network import grow
from scannet_css.network.head import reserve_outputs
from tests.baselines.toy import (
    MANIFEST,
    PROTOCOL,
    STEP_LABELS,
    at_step_1,
    descend,
    forward,
    toy_batch,
    toy_network,
)


def test_outputs_to_come_are_taken_over_in_order():
    network = toy_network()
    reserve_outputs(network, 3)
    with torch.no_grad():
        network.reserve.bias += torch.arange(3.0)
    kernel, bias = network.reserve.kernel.detach().clone(), network.reserve.bias.detach().clone()
    old = network.final.kernel.detach().clone()
    grow(network, 2, "reserved")
    assert torch.equal(network.final.kernel, torch.cat([old, kernel[:, :2]], 1))
    assert torch.equal(network.final.bias[:, 4:], bias[:, :2])
    assert torch.equal(network.reserve.kernel, kernel[:, 2:])
    grow(network, 1, "reserved")
    assert torch.equal(network.final.kernel[:, 4:], kernel) and network.reserve.kernel.shape[1] == 0


def test_cross_entropy_goes_over_the_classes_to_come():
    method = find_method("dft")()
    batch = toy_batch(STEP_LABELS)
    step = at_step_1(method, batch)
    new, old = forward(step, batch)
    to_come = new.features @ step.network.reserve.kernel + step.network.reserve.bias
    assert to_come.shape[1] == 1  # desk
    expected = F.cross_entropy(torch.cat([new.logits, to_come], 1), batch.labels, ignore_index=255)
    torch.testing.assert_close(method.loss(step, batch, new, old)["ce"], expected)


def test_a_step_moves_the_outputs_of_its_classes_and_of_later_ones_alone():
    method = find_method("dft")()
    step = at_step_1(method, move=0.0)
    before = {name: value.clone() for name, value in step.network.state_dict().items()}
    descend(method, step, 2)
    for name, value in step.network.state_dict().items():
        if name.startswith("final."):
            assert torch.equal(value[:, :4], before[name][:, :4])
            assert not torch.equal(value[:, 4:], before[name][:, 4:])
        else:
            assert torch.equal(value, before[name]) == (not name.startswith("reserve.")), name


def test_its_step_0_depends_on_the_number_of_classes_to_come():
    method = find_method("dft")()
    method.check(PROTOCOL, MANIFEST)
    assert method.base == "reserve of 3" and find_method("dft").base == "reserve"
