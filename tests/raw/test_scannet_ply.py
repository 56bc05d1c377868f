"""Whatever plyfile writes with fixed-size vertices and triangles is read as it was written."""

import random

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from scannet_css.raw.scannet_ply import ply_bytes, read_ply

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")


def random_table(dice, rows, names):
    """A structured array of random bits, in random types."""
    fields = [(name, dice.choice(TYPES)) for name in names]
    itemsize = np.dtype(fields).itemsize
    return np.frombuffer(dice.randbytes(rows * itemsize), fields, rows)


@pytest.mark.parametrize("seed", range(40))
def test_against_plyfile(tmp_path, seed):
    dice = random.Random(seed)
    names = dice.sample(["x", "y", "z", "red", "alpha", "label", "nx", "quality_1"], dice.randint(1, 8))
    tables = {
        name: random_table(dice, dice.randrange(50), names)
        for name in dice.sample(["vertex", "edge", "camera"], 2)
    }
    elements = [PlyElement.describe(table, name) for name, table in tables.items()]
    faces = np.zeros(dice.randrange(50), [("vertex_indices", dice.choice(TYPES[:6]), (3,)), ("flags", "u1")])
    faces["vertex_indices"] = np.arange(faces["vertex_indices"].size).reshape(-1, 3)
    elements.insert(dice.randrange(3), PlyElement.describe(faces, "face", len_types={"vertex_indices": "u1"}))
    path = tmp_path / "mesh.ply"
    comments = ["element vertex 7", ""] if seed % 2 else []
    PlyData(elements, byte_order=dice.choice("<>"), comments=comments, obj_info=["end"]).write(str(path))

    found = read_ply(path)
    assert list(found) == [element.name for element in elements]
    for name, table in tables.items():
        assert found[name].dtype.names == table.dtype.names and len(found[name]) == len(table)
        for field in table.dtype.names:  # bits, not values: NaN is among them
            assert found[name][field].astype(table[field].dtype).tobytes() == table[field].tobytes()
    assert np.array_equal(found["face"]["vertex_indices"], faces["vertex_indices"])
    assert (found["face"]["vertex_indices length"] == 3).all() and not found["face"]["flags"].any()

    again = tmp_path / "again.ply"
    again.write_bytes(ply_bytes(found, ["element vertex 7"]))
    written = read_ply(again)
    for name, array in found.items():
        assert written[name].dtype.names == array.dtype.names
        for field in array.dtype.names:
            assert written[name][field].astype(array[field].dtype).tobytes() == array[field].tobytes()
    theirs = PlyData.read(str(again))
    assert theirs.comments == ["element vertex 7"] and len(theirs["face"]) == len(faces)
