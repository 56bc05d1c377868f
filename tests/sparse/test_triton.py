"""The Triton engine without a GPU: its plans, and its kernels under Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scannet_css.sparse.engines import triton_engine, triton_plan
from scannet_css.sparse.maps import CoordinateManager

HERE = Path(__file__).parent
NEEDS_TRITON = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
CPU = torch.device("cpu")


@NEEDS_TRITON
def test_the_kernels_under_the_interpreter():
    """All of triton_cases.py. A process of its own: triton decides at import whether it interprets."""
    command = [sys.executable, "-m", "pytest", HERE / "triton_cases.py", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_it_says_why_it_cannot_run(dtype, monkeypatch):
    monkeypatch.setattr(triton_engine, "_is_interpreted", lambda: False)
    assert triton_engine.unavailable(CPU, dtype)
    monkeypatch.setattr(triton_engine, "triton", None)
    assert triton_engine.unavailable(CPU, dtype) == "triton cannot be imported"


@pytest.fixture(params=["3", "5", "down", "up", "strided", "one voxel"])
def kernel_map(request):
    generator = torch.Generator().manual_seed(0)
    cells = torch.cartesian_prod(torch.tensor([0, 2, 3]), *[torch.arange(-4, 5)] * 3)
    manager = CoordinateManager(cells[torch.randperm(len(cells), generator=generator)[:400]])
    return {
        "3": lambda: manager.map(1, 3, 1),
        "5": lambda: manager.map(1, 5, 1),
        "down": lambda: manager.map(1, 2, 2),
        "up": lambda: manager.map(1, 2, 2).reverse,
        "strided": lambda: manager.map(1, 3, 2),
        "one voxel": lambda: CoordinateManager(cells[:1]).map(1, 3, 1),
    }[request.param]()


@pytest.mark.parametrize("block_rows", [16, 64])
def test_tiles_hold_the_whole_map_once(kernel_map, block_rows, monkeypatch):
    monkeypatch.setattr(triton_plan, "GROUP_ROWS", 100)
    tiles = triton_plan.tiles(kernel_map, block_rows)
    rows = tiles.rows.view(-1).long()
    assert torch.equal(rows[: kernel_map.outputs].sort().values, torch.arange(kernel_map.outputs))
    assert (rows[kernel_map.outputs :] == -1).all()
    group = torch.searchsorted(kernel_map.output_scenes, kernel_map.output_scenes) // 100
    assert (group[rows[: kernel_map.outputs]].diff() <= 0).all()

    table = torch.full_like(kernel_map.table, -1)
    for tile, count in enumerate(tiles.counts.tolist()):
        active = tiles.active[tile, :count].long()
        assert (active.diff() > 0).all()
        assert (tiles.neighbours[tile, :count] >= 0).any(1).all()
        is_row = tiles.rows[tile] >= 0
        assert (tiles.neighbours[tile][:, ~is_row] == -1).all()
        table[active[:, None], tiles.rows[tile][is_row].long()] = tiles.neighbours[tile, :count][:, is_row]
    assert torch.equal(table, kernel_map.table)


def test_sorting_by_neighbours_saves_work():
    """A noisy surface: unsorted tiles meet nearly every offset."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.cartesian_prod(torch.arange(60), torch.arange(60)).T
    z = (x // 3 + torch.randint(0, 2, x.shape, generator=generator)).long()
    keep = torch.rand(len(x), generator=generator) < 0.7
    kernel_map = CoordinateManager(torch.stack([torch.zeros_like(x), x, y, z], 1)[keep]).map(1, 3, 1)
    tiles = triton_plan.tiles(kernel_map, 64)
    unsorted = triton_plan._tile(kernel_map.table, torch.arange(kernel_map.outputs), 64)
    assert tiles.counts.sum() < 0.75 * unsorted.counts.sum()


@pytest.mark.parametrize("pairs", [1, 8, 100])
def test_chunks_hold_every_pair_once_in_order(kernel_map, pairs, monkeypatch):
    monkeypatch.setattr(triton_plan, "CHUNK_PAIRS", (pairs, pairs))
    chunks = triton_plan.chunks(kernel_map)
    offset, target = (kernel_map.table >= 0).nonzero(as_tuple=True)
    assert torch.equal(chunks.targets, target.int())
    assert torch.equal(chunks.sources, kernel_map.table[offset, target])

    covered = []
    for index in range(kernel_map.offsets):
        first, last = chunks.first_chunks[index : index + 2].tolist()
        for start, end in zip(
            chunks.starts[first:last].tolist(), chunks.ends[first:last].tolist(), strict=True
        ):
            assert 0 < end - start <= pairs
            assert (offset[start:end] == index).all()
            covered.extend(range(start, end))
    assert covered == list(range(len(offset)))
    used = int(chunks.first_chunks[-1])
    assert torch.equal(chunks.starts[used:], chunks.ends[used:])


def test_plans_are_built_once(kernel_map):
    assert triton_plan.tiles(kernel_map, 64) is triton_plan.tiles(kernel_map, 64)
    assert triton_plan.chunks(kernel_map) is triton_plan.chunks(kernel_map)


def test_chunks_grow_with_the_map():
    sizes = [triton_plan.chunk_pairs(pairs) for pairs in (0, 1, 10**5, 10**6, 10**7, 10**9)]
    assert sizes == [512, 512, 512, 1024, 16384, 16384]
