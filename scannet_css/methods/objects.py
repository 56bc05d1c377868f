"""Objects cut out of scenes, and put onto the floor of others."""

import math
from typing import Any

import torch
from torch import Generator, Tensor

from scannet_css.scenes import Scene

PARTS = ("points", "normals", "colours")
FLOOR = 0.2  # metres: what lies no higher above the lowest points is floor
LARGEST = 2.5  # metres: a longer or wider instance is no object that stands on a floor
TRIES = 50  # places that are looked at for an object
Object = dict[str, Any]  # "class": its name, and PARTS: (P, 3) each, feet at 0, centre above the origin


def objects_of(scene: Scene, label: int, name: str, least: int) -> list[Object]:
    """The instances of a class with at least `least` vertices labelled `label` and at most LARGEST long and
    wide, those of most vertices first."""
    of_class = (scene.labels == label) & (scene.instances >= 0)
    ids, counts = torch.unique(scene.instances[of_class], return_counts=True)
    order = sorted(range(len(ids)), key=lambda i: (-int(counts[i]), int(ids[i])))
    found = []
    for i in order:
        if counts[i] < least:
            break
        rows = of_class & (scene.instances == ids[i])
        points = scene.points[rows]
        low, high = points.amin(0), points.amax(0)
        if (high - low)[:2].amax() > LARGEST:
            continue
        origin = torch.stack([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
        found.append(
            {
                "class": name,
                "points": points - origin,
                "normals": scene.normals[rows].clone(),
                "colours": scene.colours[rows].clone(),
            }
        )
    return found


def pasted(
    tensors: dict[str, Tensor], objects: list[Object], labels: list[int], square: float, generator: Generator
) -> tuple[dict[str, Tensor], int]:
    """A scene's points, normals, colours and labels with the objects on free floor, turned at random about
    the vertical, their points labelled by `labels`; and how many found a place. square: see FreeFloor."""
    device = tensors["points"].device
    floor = FreeFloor(tensors["points"], square)
    placed = 0
    for each, label in zip(objects, labels, strict=True):
        angle = 2 * math.pi * torch.rand(1, generator=generator).item()
        turn = torch.tensor(
            [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
        )
        points, normals = each["points"] @ turn.T, each["normals"] @ turn.T
        place = floor.place_for(points, generator)
        if place is None:
            continue
        placed += 1
        parts = {"points": points + place, "normals": normals, "colours": each["colours"]}
        more = {name: part.to(tensors[name].dtype).to(device) for name, part in parts.items()}
        more["labels"] = torch.full((len(points),), label, dtype=tensors["labels"].dtype, device=device)
        tensors = {
            **tensors,
            **{name: torch.cat([tensors[name], part]) for name, part in more.items()},
        }
    return tensors, placed


class FreeFloor:
    """The squares of a scene's floor with nothing above them. points (P, 3) and `square`, the side of one, in
    metres: a few times the distance of points, so that a floor has some in every square."""

    def __init__(self, points: Tensor, square: float) -> None:
        self.square = square
        points = points.detach().cpu()
        lowest = points[:, 2].topk(1 + (len(points) - 1) // 100, largest=False, sorted=False)
        self.height = lowest.values.amax().item()  # meshes have strays below the floor
        self.origin = points[:, :2].amin(0)
        cells = ((points[:, :2] - self.origin) / square).long()
        shape = (cells.amax(0) + 1).tolist()
        low = points[:, 2] <= self.height + FLOOR
        self.ceiling = torch.full(shape, math.inf)  # the lowest thing above the floor
        flat = cells[:, 0] * shape[1] + cells[:, 1]
        self.ceiling.view(-1).scatter_reduce_(0, flat[~low], points[~low, 2], "amin")
        self.is_floor = torch.zeros(shape, dtype=torch.bool)
        self.is_floor.view(-1)[flat[low]] = True

    def place_for(self, points: Tensor, generator: Generator) -> Tensor | None:
        """What moves an object (P, 3) to a place where it stands on floor and touches nothing, which is then
        taken; None where TRIES places at random have no room."""
        squares = self.is_floor.nonzero()
        if not len(squares):
            return None
        for number in torch.randint(len(squares), (TRIES,), generator=generator).tolist():
            target = self.origin + (squares[number] + 0.5) * self.square
            cells = torch.unique(((points[:, :2] + target - self.origin) / self.square).floor().long(), dim=0)
            if (cells < 0).any() or (cells >= torch.tensor(self.is_floor.shape)).any():
                continue
            x, y = cells.T
            top = self.height + points[:, 2].max()
            if self.is_floor[x, y].all() and (self.ceiling[x, y] > top).all():
                self.is_floor[x, y] = False
                return torch.cat([target, torch.tensor([self.height])])
        return None
