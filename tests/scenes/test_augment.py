"""Augmentations: what they may change, how far, and that the generator alone decides."""

import math

import pytest
import torch

from scannet_css.scenes import augment as a


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def distances(points):
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.fixture
def points():
    return torch.rand(500, 3, generator=generator(9)) * torch.tensor([5.0, 4.0, 2.5])


@pytest.fixture
def colours():
    return torch.rand(500, 3, generator=generator(8)) * 200 + 20


def test_same_generator_same_scene_and_other_generator_another(points, colours):
    first = a.augment(points, points, colours, generator(3), with_elastic=True)
    again = a.augment(points, points, colours, generator(3), with_elastic=True)
    other = a.augment(points, points, colours, generator(4), with_elastic=True)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert (first[0] - other[0]).abs().max() > 0.1


@pytest.mark.parametrize("function", [a.rotate, a.flip, a.translate])
def test_rigid_motions_keep_distances(points, function):
    moved = function(points, generator(1))
    assert torch.allclose(distances(moved), distances(points), atol=1e-4)


def test_normals_turn_with_the_points_but_do_not_move(points, colours):
    directions = torch.nn.functional.normalize(points - points.mean(0), dim=1)
    moved, turned, _ = a.augment(points, directions, colours, generator(6), with_elastic=False)
    expected = torch.nn.functional.normalize(moved - moved.mean(0), dim=1)
    assert torch.allclose(turned, expected, atol=1e-4)
    assert not torch.allclose(turned, directions, atol=0.1)


def test_rotation_tilts_at_most_as_far_as_told():
    up = torch.tensor([[0.0, 0.0, 1.0]])
    tilts = [math.acos(min(1.0, a.rotate(up, generator(seed), tilt=0.05)[0, 2].item())) for seed in range(50)]
    assert max(tilts) <= 0.05 * math.sqrt(2) + 1e-4 and max(tilts) > 0.02
    east = torch.tensor([[1.0, 0.0, 0.0]])
    directions = torch.cat([a.rotate(east, generator(seed)) for seed in range(200)])
    assert directions[:, :2].mean(0).norm() < 0.15  # every angle about z occurs


def test_scale_is_one_factor_within_bounds(points):
    for seed in range(20):
        factor = a.scale(points, generator(seed)) / points
        assert factor.min() >= 0.9 and factor.max() <= 1.1
        assert factor.max() - factor.min() < 1e-5


def test_elastic_is_smooth_and_of_the_stated_size(points):
    shift = a.elastic(points, generator(2), granularity=0.8, magnitude=1.6) - points
    assert 0.05 < shift.std() < 1.6
    near = points + 0.005
    pair = torch.cat([points, near])
    moved = a.elastic(pair, generator(2), 0.8, 1.6) - pair
    assert (moved[:500] - moved[500:]).norm(dim=1).max() < 0.1


@pytest.mark.parametrize("function", [a.auto_contrast, a.translate_colours, a.jitter_colours])
def test_colours_stay_in_range_and_change(colours, function):
    results = [function(colours, generator(seed)) for seed in range(30)]
    assert all(result.min() >= 0 and result.max() <= 255 for result in results)
    assert any(not torch.equal(result, colours) for result in results)


def test_auto_contrast_blends_towards_the_full_range(colours):
    result = a.auto_contrast(colours, generator(0), probability=1.0)
    spread, before = result.amax(0) - result.amin(0), colours.amax(0) - colours.amin(0)
    assert (spread > before).all() and (spread <= 255.01).all()


def test_one_point_survives():
    point, colour = torch.zeros(1, 3), torch.full((1, 3), 100.0)
    moved, turned, recoloured = a.augment(point, point + 1, colour, generator(5), with_elastic=True)
    assert moved.shape == turned.shape == recoloured.shape == (1, 3)
    assert moved.abs().max() < 6  # one translation and two bounded displacements
