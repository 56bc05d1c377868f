"""Whatever plyfile writes with fixed-size vertices and triangles is read as it was written."""

import io
import random

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from scannet_css.raw.ply_files import ply_bytes, read_ply, read_scan_ply

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

    found = read_scan_ply(path)
    anybodys = read_ply(path)
    assert list(found) == [element.name for element in elements] == [one.name for one in anybodys.elements]
    for name, table in tables.items():
        assert found[name].dtype.names == table.dtype.names and len(found[name]) == len(table)
        for field in table.dtype.names:  # bits, not values: NaN is among them
            for array in (found[name], anybodys[name].data):
                assert array[field].astype(table[field].dtype).tobytes() == table[field].tobytes()
    assert np.array_equal(found["face"]["vertex_indices"], faces["vertex_indices"])
    assert (found["face"]["vertex_indices length"] == 3).all() and not found["face"]["flags"].any()

    for table in tables.values():
        again = tmp_path / "again.ply"
        again.write_bytes(ply_bytes(table, faces["vertex_indices"], ["element vertex 7"]))
        written, theirs = read_scan_ply(again), PlyData.read(str(again))
        assert theirs.comments == ["element vertex 7"] and theirs.byte_order == "<"
        for field in table.dtype.names:
            for array in (written["vertex"], theirs["vertex"].data):
                assert array[field].astype(table[field].dtype).tobytes() == table[field].tobytes()
        corners = [written["face"]["vertex_indices"], list(map(list, theirs["face"].data["vertex_indices"]))]
        for one in corners:
            assert np.array_equal(np.reshape(one, (-1, 3)), faces["vertex_indices"].astype(np.int32))
    alone = PlyData.read(io.BytesIO(ply_bytes(table)))
    assert [one.name for one in alone.elements] == ["vertex"] and len(alone["vertex"].data) == len(table)
