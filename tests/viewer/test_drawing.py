import numpy as np

from scannet_css.viewer.drawing import render


def square(z: float, up: bool) -> tuple[np.ndarray, np.ndarray]:
    points = np.array([[0, 0, z], [2, 0, z], [2, 2, z], [0, 2, z]], dtype=float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    return points, faces if up else faces[:, ::-1]


def test_nearest_surface_wins_and_ceilings_vanish():
    floor, faces = square(0.0, True)
    shelf, shelf_faces = square(1.0, True)
    ceiling, ceiling_faces = square(2.0, False)
    points = np.concatenate([floor, shelf, ceiling])
    colours = np.repeat(np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8), 4, axis=0)
    picture = render(
        points, colours, (120, 90), 20, 80, np.concatenate([faces, shelf_faces + 4, ceiling_faces + 8])
    )
    assert picture.shape == (90, 120, 3) and picture.dtype == np.uint8
    middle = picture[40:50, 55:65].reshape(-1, 3)
    assert (middle[:, 1] > 150).all() and (middle[:, [0, 2]] == 0).all()
    assert not ((picture[..., 2] > 100) & (picture[..., 0] < 100)).any()
    assert (picture[0] == 255).all() or (picture[:, 0] == 255).all()


def test_points_alone_are_drawn_without_gaps_and_without_the_ceiling():
    side = np.linspace(0, 2, 60)
    x, y = (value.ravel() for value in np.meshgrid(side, side))
    floor = np.stack([x, y, np.zeros_like(x)], axis=1)
    points = np.concatenate([floor, floor + (0, 0, 2.5)])
    colours = np.repeat(np.array([[200, 10, 10], [10, 10, 200]], dtype=np.uint8), len(floor), axis=0)
    picture = render(points, colours, (100, 100), 0, 90)
    assert (picture[20:80, 20:80] == (200, 10, 10)).all()


def test_nothing_to_draw_is_a_blank_picture():
    blank = render(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.uint8), (8, 6))
    assert (blank == 255).all() and blank.shape == (6, 8, 3)
