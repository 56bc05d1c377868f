"""SDR's terms against the values of its code, and against the rows read in order, exact to 1e-9."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from baselines.sdr import SDR, TERMS, attraction, old_classes
from scannet_css.network import Output
from tests.baselines.originals import assert_original, cases, golden, leaf, places, rows, step_of

CASES = cases("sdr")


def at_features(maps, like):
    """Labels (B, H, W) at the size of the features, nearest."""
    every = maps.shape[-1] // like.shape[-1]
    return rows(maps[:, ::every, ::every])


def sdr(case):
    key = f"sdr/{case}"
    features, labels = golden(f"{key}/features"), golden(f"{key}/labels")
    small = at_features(labels, features)
    assert torch.equal(small, rows(golden(f"{key}/labels_small")))
    every = labels.shape[-1] // features.shape[-1]
    old = rows(golden(f"{key}/old_logits")[:, :, ::every, ::every])
    batch = SimpleNamespace(labels=small, coordinates=places(features), names=["image"] * len(features))
    X = leaf(features)
    logits = torch.zeros(len(X), 9, dtype=X.dtype)
    return step_of(9, 6, device=X.device), batch, Output(logits, X, []), Output(old, old, [])


def make(case, reading):
    method = SDR(reading=reading, **{f"{name}_weight": 1.0 for name in TERMS})
    names = ("prototypes", "counts")
    method.state = {name: golden(f"sdr/{case}/{name}_before") for name in names}
    method.before_batch(None)
    return method


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reading", ["rows", "published"])
def test_sdrs_terms_and_prototypes(case, reading):
    step, batch, new, old = sdr(case)
    method, suffix = make(case, reading), "" if reading == "published" else "_rowwise"
    terms = method.loss(step, batch, new, old)
    for name in TERMS:
        key = f"sdr/{case}/{name}" + ("" if name == "sparsity" else suffix)
        if name == "attraction" and suffix and case == "two_images":
            continue  # the file has it with the mixed prototypes; see below
        assert_original(terms[name], key, {"grad": new.features})
    method.updated(step)
    for name, expected in (("prototypes", f"prototypes{suffix}"), ("counts", "counts")):
        np.testing.assert_allclose(method.state[name], golden(f"sdr/{case}/{expected}"), rtol=0, atol=1e-12)
    assert (method.state["prototypes"][0] == 0).all()


@pytest.mark.parametrize("case", CASES)
def test_attraction_to_given_prototypes(case):
    _, batch, new, _ = sdr(case)
    value = attraction(new.features, batch.labels, golden(f"sdr/{case}/prototypes"), divides_in_between=False)
    assert_original(value, f"sdr/{case}/attraction_rowwise", {"grad": new.features})


def test_only_background_that_the_teacher_takes_for_a_class_is_matched():
    labels = torch.tensor([0, 0, 7, 255])
    old = torch.nn.functional.one_hot(torch.tensor([2, 0, 2, 2]), 6).double()
    assert old_classes(labels, old).tolist() == [2, 255, 255, 255]
