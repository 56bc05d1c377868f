"""DKD, SSUL, LwF-MC and ILT against the values of their code, exact to 1e-9."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines.dkd import DKD, binary_of_channels
from baselines.ilt import ILT
from baselines.lwf_mc import LwFMC
from baselines.ssul import SSUL, confident_labels
from scannet_css.methods.losses import binary_cross_entropy
from scannet_css.network import Output, grow
from scannet_css.network.minkunet import Level
from tests.baselines.originals import assert_original, golden, leaf, places, rows, step_of


def classifier(weight, bias):
    """Our kernel (F, C) and bias (1, C), and the leaves (C, F), (C,) of the original."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    return SimpleNamespace(kernel=weight.T, bias=bias[None]), weight, bias


def dkd(case):
    key = f"dkd/{case}"
    features = golden(f"{key}/features").clone().requires_grad_()
    final, weight, bias = classifier(golden(f"{key}/weight"), golden(f"{key}/bias"))
    logits = features @ final.kernel + final.bias
    leaves = {"grad_X": features, "grad_W": weight, "grad_B": bias}
    batch = SimpleNamespace(labels=golden(f"{key}/labels"))
    return batch, Output(logits, features, []), final, leaves


TERMS = {"ce": ("mbce", 1), "old": ("kd", 5), "positive": ("dkd_pos", 5), "negative": ("dkd_neg", 5)}


@pytest.mark.parametrize("case", ["two_heads", "three_heads"])
def test_dkds_terms(case):
    batch, new, final, leaves = dkd(case)
    features, weight, bias = (golden(f"dkd/{case}/old_{name}") for name in ("features", "weight", "bias"))
    theirs, _, _ = classifier(weight, bias)
    old = Output((features @ theirs.kernel + theirs.bias).detach(), features, [])
    np.testing.assert_allclose(new.logits.detach(), golden(f"dkd/{case}/logits"), rtol=0, atol=1e-12)
    step = step_of(new.logits.shape[1], old.logits.shape[1])
    step.network, step.teacher = SimpleNamespace(final=final), SimpleNamespace(final=theirs)
    terms = DKD().loss(step, batch, new, old)
    for name, (original, factor) in TERMS.items():
        assert_original(terms[name] / factor, f"dkd/{case}/{original}", leaves)
    assert_original(terms["background"], f"dkd/{case}/ac", leaves)
    assert_original(sum(terms.values()), f"dkd/{case}/total", leaves)


@pytest.mark.parametrize("case", ["two_heads", "three_heads"])
def test_dkds_decision_and_start(case):
    _, new, final, _ = dkd(case)
    answer = DKD().predict(new).argmax(1)
    assert torch.equal(answer, golden(f"dkd/{case}/decision"))
    assert (answer == 0).any() == (case == "two_heads") and (answer > 0).any()
    old_channels = len(golden(f"dkd/{case}/old_bias"))
    kernel, bias = final.kernel[:, :old_channels], final.bias[:, :old_channels]
    network = SimpleNamespace(
        final=SimpleNamespace(
            kernel=torch.nn.Parameter(kernel.detach().clone()),
            bias=torch.nn.Parameter(bias.detach().clone()),
            out_channels=old_channels,
        )
    )
    grow(network, new.logits.shape[1] - old_channels, DKD.head_start)
    assert torch.equal(network.final.kernel.T, golden(f"dkd/{case}/init_weight"))
    assert torch.equal(network.final.bias[0], golden(f"dkd/{case}/init_bias"))


def test_dkds_step_0():
    batch, new, final, leaves = dkd("step0")
    step = step_of(new.logits.shape[1], 1, network=SimpleNamespace(final=final))
    assert_original(sum(DKD().base_loss(step, batch, new).values()), "dkd/step0/total", leaves)
    assert torch.equal(DKD().base_predict(new), DKD().predict(new))


@pytest.mark.parametrize("case", ["two_heads", "three_heads"])
def test_dkds_positives_counted_twice(case):
    batch, new, _, _ = dkd(case)
    channels = range(len(golden(f"dkd/{case}/old_bias")), new.logits.shape[1])
    value = binary_of_channels(new.logits, batch.labels, channels, positives=2.0)
    assert_original(value, f"dkd/{case}/mbce_pos_weight2")


def test_ssul():
    key = "ssul/no_unknown"
    new = golden(f"{key}/new_logits").clone().requires_grad_()
    old = golden(f"{key}/old_logits")
    batch = SimpleNamespace(labels=golden(f"{key}/labels"))
    output = Output(new, new, [])
    assert torch.equal(confident_labels(batch.labels, old, 0.7), golden(f"{key}/pseudo_labels"))
    value = SSUL().classification(step_of(9, 7), batch, output, Output(old, old, []))
    assert_original(value, f"{key}/loss", {"grad": new})
    assert torch.equal(SSUL().predict(output).argmax(1), golden(f"{key}/decision"))


def test_ssul_with_unknown():
    """Channels unknown, background, classes: which pseudo-labels and loss there would be with a detector."""
    key = "ssul/unknown"
    new = golden(f"{key}/new_logits").clone().requires_grad_()
    labels = confident_labels(golden(f"{key}/labels"), golden(f"{key}/old_logits"), 0.7, first_class=2)
    assert torch.equal(labels, golden(f"{key}/pseudo_labels"))
    assert_original(binary_cross_entropy(new, labels), f"{key}/loss", {"grad": new})


def ilt_outputs():
    made = []
    for kind, make in (("new", leaf), ("old", rows)):
        features = golden(f"ilt/{kind}_features")
        level = Level(places(features), make(features), 1)
        made.append(Output(make(golden(f"ilt/{kind}_logits")), level.features, [level]))
    batch = SimpleNamespace(labels=rows(golden("ilt/labels")))
    return step_of(9, 6), batch, *made


def test_ilt():
    step, batch, new, old = ilt_outputs()
    terms = ILT(weight=1.0, feature_weight=1.0).loss(step, batch, new, old)
    assert_original(terms["lwf"], "ilt/kd", {"grad": new.logits})
    assert_original(terms["ilt"], "ilt/features", {"grad": new.levels[0].features})


def test_lwf_mc():
    step, batch, new, old = ilt_outputs()
    terms = LwFMC().loss(step, batch, new, old)
    assert_original(terms["ce"], "lwf_mc/bce", {"grad": new.logits})
    assert_original(terms["lwf-mc"], "lwf_mc/kd", {"grad": new.logits})
