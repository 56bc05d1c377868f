"""Metrics against torchmetrics and against the rules of ScanNet's official evaluation, on random points."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import JaccardIndex, MulticlassJaccardIndex

from scannet_css.classes import CLASSES, IGNORE, NYU40_IDS
from scannet_css.metrics import accumulate, class_ious, summarise
from scannet_css.protocols import load_protocol
from scannet_css.raw.scannet_labels import labels_by_id


def random_points(seed: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Truth with 255 in it and prediction of some thousand points in 2 to 21 channels, some of which lack
    truth, prediction, or both; predictions are right about every second time."""
    generator = np.random.default_rng(seed)
    channels = int(generator.integers(2, 22))
    truth, prediction = (
        generator.choice(
            generator.choice(channels, generator.integers(1, channels + 1), replace=False),
            int(2000 + seed),
        )
        for _ in range(2)
    )
    prediction = np.where(generator.random(len(truth)) < 0.5, truth, prediction)
    truth[generator.random(len(truth)) < 0.2] = IGNORE
    return torch.from_numpy(truth), torch.from_numpy(prediction), channels


@pytest.mark.parametrize("seed", range(60))
def test_class_ious_and_their_means_are_those_of_torchmetrics(seed):
    truth, prediction, channels = random_points(seed)
    matrix = accumulate(None, truth, prediction, channels)
    present = ((matrix.sum(0) + matrix.sum(1)) > 0).numpy()

    per_class = MulticlassJaccardIndex(channels, average=None, ignore_index=IGNORE)(prediction, truth)
    ours = class_ious(matrix)
    assert (~np.isnan(ours) == present).all()
    assert ours[present] == pytest.approx(per_class.numpy()[present], abs=1e-6)

    numbers = summarise([matrix], base_classes=channels // 2)
    macro = JaccardIndex("multiclass", num_classes=channels, average="macro", ignore_index=IGNORE)
    assert numbers["all_with_bg"] == pytest.approx(100 * macro(prediction, truth).item(), abs=1e-4)
    split = channels // 2 + 1
    for name, rows in (("old", slice(1, split)), ("new", slice(split, None)), ("all", slice(1, None))):
        theirs = per_class[rows][torch.from_numpy(present[rows])]
        expected = None if len(theirs) == 0 else pytest.approx(100 * theirs.mean().item(), abs=1e-4)
        assert numbers[name] == expected


def test_batches_add_up_as_those_of_torchmetrics():
    theirs, ours = MulticlassJaccardIndex(21, average=None, ignore_index=IGNORE), None
    for seed in range(100):
        truth, prediction, channels = random_points(seed)
        theirs.update(prediction, truth)
        matrix = torch.nn.functional.pad(
            accumulate(None, truth, prediction, channels), (0, 21 - channels) * 2
        )
        ours = matrix if ours is None else ours + matrix
    assert ours.tolist() == theirs.confmat.tolist()
    assert class_ious(ours) == pytest.approx(theirs.compute().numpy(), abs=1e-6)


def official_counts(truth: list[int], prediction: list[int]) -> dict[int, tuple[int, int]]:
    """TP and TP + FP + FN of every class by the rules of ScanNet's benchmark, point by point: NYU40 ids,
    truth outside the 20 classes is passed over, and an answer outside them is only a miss."""
    hits, missed, wrong = (dict.fromkeys(NYU40_IDS, 0) for _ in range(3))
    for true, answer in zip(truth, prediction, strict=True):
        if true not in NYU40_IDS:
            continue
        if answer == true:
            hits[true] += 1
            continue
        missed[true] += 1
        if answer in NYU40_IDS:
            wrong[answer] += 1
    return {number: (hits[number], hits[number] + wrong[number] + missed[number]) for number in NYU40_IDS}


@pytest.mark.parametrize("name", ["scannet/s1-15-5", "scannet/lgkd-14-5"])
@pytest.mark.parametrize("seed", range(50))
def test_class_ious_are_those_of_the_official_rules(name, seed):
    """In s1-15-5 background is no answer after the last step. In lgkd-14-5 it is one: what is submitted as
    an id outside of the 20 classes is our column 0, and the true background is one of the official classes,
    whose points can be mistaken for others'."""
    protocol, generator = load_protocol(name), np.random.default_rng(seed)
    last = len(protocol.steps) - 1
    channels, names = protocol.channels(last), protocol.channel_names(last)
    ids = np.array([*range(41), 50, 149])
    truth = generator.choice(generator.choice(ids, generator.integers(5, 44), replace=False), 3000)
    prediction = generator.integers(0 if protocol.predicts_background(last) else 1, channels, 3000)
    labels = torch.from_numpy(labels_by_id(truth.astype(np.int32))[0]).long()
    true_channel = protocol.evaluation_table(last, CLASSES)[labels].numpy()
    is_right = (true_channel > 0) & (true_channel < channels) & (generator.random(3000) < 0.6)
    prediction[is_right] = true_channel[is_right]

    ours = accumulate(None, torch.from_numpy(true_channel), torch.from_numpy(prediction), channels).numpy()
    outside = generator.choice([0, 13, 40, 255])  # whatever stands for "none of the 20"
    id_of_channel = np.array([outside] + [NYU40_IDS[CLASSES.index(name)] for name in names[1:]])
    official = official_counts(truth.tolist(), id_of_channel[prediction].tolist())
    for channel in range(1, channels):
        hit = ours[channel, channel]
        union = ours[channel].sum() + ours[:, channel].sum() - hit
        assert (hit, union) == official[id_of_channel[channel]]
        iou = class_ious(ours)[channel]
        assert np.isnan(iou) if union == 0 else iou == hit / union
    if protocol.predicts_background(last):
        assert ours[1:, 0].sum() > 0  # background was answered where one of the classes is true
