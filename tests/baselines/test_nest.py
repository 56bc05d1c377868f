"""NeST: similarity, transformed rows and their balance are the original's; a step starts from them."""

import torch

import baselines  # noqa: F401  registers the methods
from baselines.nest import TransformedRows, sums_of_similarity
from scannet_css.methods.losses import unbiased_cross_entropy
from scannet_css.methods.method import find_method
from tests.baselines.original_values import assert_close, assert_gradients, original, rows
from tests.baselines.toy import at_step_1, forward


def transformed(values):
    return TransformedRows(values["old_weight"], values["old_bias"], values["similarity"])


def test_similarity_of_new_classes_to_old_ones_is_the_originals():
    values, sums, counts = original("nest"), 0, 0
    for number in range(2):
        maps = (values[f"{name}{number}"] for name in ("features", "old_logits"))
        labels = rows(values[f"labels{number}"])
        found = sums_of_similarity(*map(rows, maps), values["old_weight"], labels, 5, 7)
        sums, counts = sums + found["sums"], counts + found["counts"]
    similarity = sums / counts[:, None, None]
    assert_close(similarity, values["similarity"])
    made = TransformedRows(values["old_weight"], values["old_bias"], similarity)
    assert_close(made.M, values["start_M"])
    assert_close(made.P, values["start_P"])
    assert_close(made.bias, values["old_bias"][:1].repeat(2))


def test_tuned_rows_are_the_originals():
    values = original("nest")
    made = transformed(values)
    names = {
        "M": "tuned_M",
        "P": "tuned_P",
        "bias": "tuned_bias",
        "background_factor": "tuned_background_M",
        "background_scale": "tuned_background_P",
    }
    with torch.no_grad():
        for mine, theirs in names.items():
            parameter = getattr(made, mine)
            parameter.copy_(values[theirs].view_as(parameter))
    logits = made(rows(values["features0"]))
    assert_close(logits, rows(values["warm_logits0"]))
    square = logits.square().mean()
    assert_close(square, values["warm_square"])
    shaped = {
        "Mx": (made.M, lambda gradient: gradient),
        "Px": (made.P, lambda gradient: gradient),
        "bias": (made.bias, lambda gradient: gradient),
        "mbg": (made.background_factor, lambda gradient: gradient[None]),
        "pbg": (made.background_scale, lambda gradient: gradient[None]),
    }
    assert_gradients(square, "nest", "warm_square", **shaped)
    weight, bias = made.balanced()
    assert_close(weight, values["final_weight"])
    assert_close(bias, values["final_bias"])


def test_a_step_starts_with_tuned_rows_and_old_ones_as_they_were():
    method = find_method("nest")(tuning_epochs=3)
    step = at_step_1(method, move=0.0)
    mine, old = step.network.final, step.teacher.final
    torch.testing.assert_close(mine.kernel[:, 1:4], old.kernel[:, 1:])
    torch.testing.assert_close(mine.bias[:, :4], old.bias)
    assert mine.kernel[:, 0].norm().item() - old.kernel[:, 0].norm().item() < 1e-5
    torch.testing.assert_close(
        mine.kernel[:, 4:].norm(dim=0).mean(), old.kernel.norm(dim=0).mean(), rtol=1e-5, atol=0
    )
    assert not torch.equal(mine.kernel[:, 4], mine.kernel[:, 5])


def test_tuning_lowers_the_loss_that_it_is_tuned_by():
    losses = {}
    for epochs in (1, 30):
        method = find_method("nest")(tuning_epochs=epochs)
        step = at_step_1(method, move=0.0)
        (batch,) = step.batches
        new, _ = forward(step, batch)
        losses[epochs] = unbiased_cross_entropy(new.logits, batch.labels, 4).item()
    assert losses[30] < losses[1]
