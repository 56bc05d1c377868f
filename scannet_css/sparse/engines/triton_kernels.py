"""The Triton kernels: implicit GEMM (forward and gradient of the features), weight gradient, ordered sum.

Needs triton. The launches, and what the arguments hold, are in triton_engine.py and triton_plan.py. Channels
are compiled in: the loops are a third shorter for it.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["offsets", "outputs"])
def convolve(
    features,  # (N, in_channels)
    kernel,  # (offsets, in_channels, out_channels)
    bias,  # (out_channels,), read if HAS_BIAS
    residual,  # (outputs, out_channels), read if HAS_RESIDUAL
    out,  # (outputs, out_channels); if PARTIAL float32 (splits, outputs, out_channels)
    rows,  # (tiles, BLOCK_ROWS) the output row of each slot, -1 for none
    neighbours,  # (tiles, offsets, BLOCK_ROWS) each slot's input row under the active offsets, or -1
    active,  # (tiles, offsets) the offsets that some slot of the tile has, first
    counts,  # (tiles,) how many these are
    offsets,
    outputs,
    in_channels: tl.constexpr,
    out_channels: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    PARTIAL: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """One tile of rows times one block of output channels; program axis 1 shares out the active offsets."""
    columns = tl.cdiv(out_channels, BLOCK_OUT)
    tile = (tl.program_id(0) // columns).to(tl.int64)
    out_channel = tl.program_id(0) % columns * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    slot = tl.arange(0, BLOCK_ROWS)
    active += tile * offsets
    neighbours += tile * offsets * BLOCK_ROWS

    count = tl.load(counts + tile)
    split, splits = tl.program_id(1), tl.num_programs(1)
    blocks = tl.cdiv(in_channels, BLOCK_IN)
    total = tl.zeros((BLOCK_ROWS, BLOCK_OUT), dtype=tl.float32)
    # One flat loop without branches: only so does Triton load ahead, also where in_channels is one block.
    for step in range(count * split // splits * blocks, count * (split + 1) // splits * blocks):
        place = step // blocks
        in_channel = step % blocks * BLOCK_IN + tl.arange(0, BLOCK_IN)
        offset = tl.load(active + place)
        source = tl.load(neighbours + place * BLOCK_ROWS + slot)
        gathered = tl.load(
            features + source.to(tl.int64)[:, None] * in_channels + in_channel[None, :],
            mask=(source >= 0)[:, None] & (in_channel < in_channels)[None, :],
            other=0.0,
        )
        weight = tl.load(
            kernel + (offset * in_channels + in_channel)[:, None] * out_channels + out_channel[None, :],
            mask=(in_channel < in_channels)[:, None] & (out_channel < out_channels)[None, :],
            other=0.0,
        )
        total = tl.dot(gathered, weight, total, input_precision=PRECISION)

    row = tl.load(rows + tile * BLOCK_ROWS + slot).to(tl.int64)
    mask = (row >= 0)[:, None] & (out_channel < out_channels)[None, :]
    place = row[:, None] * out_channels + out_channel[None, :]
    if PARTIAL:
        tl.store(out + split.to(tl.int64) * outputs * out_channels + place, total, mask=mask)
    else:
        if HAS_BIAS:
            total += tl.load(bias + out_channel, mask=out_channel < out_channels, other=0.0).to(tl.float32)[
                None, :
            ]
        if HAS_RESIDUAL:
            total += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
        if RELU:
            total = tl.where(total < 0, 0.0, total)  # a NaN stays one
        tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def weight_gradient(
    features,  # (N, in_channels)
    gradient,  # (M, out_channels)
    partials,  # (chunks, in_channels, out_channels) float32
    sources,  # (P,) input row of each pair, ordered by offset
    targets,  # (P,) output row of each pair
    starts,  # (chunks,) first pair of each chunk, all of one offset
    ends,  # (chunks,)
    in_channels: tl.constexpr,
    out_channels: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """One chunk's features transposed times its gradients, one block of channels of either."""
    columns = tl.cdiv(out_channels, BLOCK_OUT)
    blocks = columns * tl.cdiv(in_channels, BLOCK_IN)
    chunk = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    in_channel = block // columns * BLOCK_IN + tl.arange(0, BLOCK_IN)
    out_channel = block % columns * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    start, end = tl.load(starts + chunk), tl.load(ends + chunk)
    total = tl.zeros((BLOCK_IN, BLOCK_OUT), dtype=tl.float32)
    for first in range(start, end, BLOCK_PAIRS):
        pair = first + tl.arange(0, BLOCK_PAIRS)
        source = tl.load(sources + pair, mask=pair < end, other=0).to(tl.int64)
        target = tl.load(targets + pair, mask=pair < end, other=0).to(tl.int64)
        left = tl.load(
            features + source[None, :] * in_channels + in_channel[:, None],
            mask=(pair < end)[None, :] & (in_channel < in_channels)[:, None],
            other=0.0,
        )
        right = tl.load(
            gradient + target[:, None] * out_channels + out_channel[None, :],
            mask=(pair < end)[:, None] & (out_channel < out_channels)[None, :],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    place = (chunk * in_channels + in_channel[:, None]) * out_channels + out_channel[None, :]
    mask = (in_channel < in_channels)[:, None] & (out_channel < out_channels)[None, :]
    tl.store(partials + place, total, mask=mask)


@triton.jit
def add_chunks(
    partials,  # (chunks, size) float32
    out,  # (offsets, size) float32
    first_chunks,  # (offsets + 1,)
    size,
    BLOCK: tl.constexpr,
):
    """Adds up each offset's chunks, one after the other."""
    offset = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    first, last = tl.load(first_chunks + offset), tl.load(first_chunks + offset + 1)
    partials += first.to(tl.int64) * size + place
    for _ in range(first, last):
        total += tl.load(partials, mask=place < size, other=0.0)
        partials += size
    tl.store(out + offset * size + place, total, mask=place < size)
