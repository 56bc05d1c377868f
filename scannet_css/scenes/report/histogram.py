"""The histograms of the preparation report, as inline SVG; colours are those of its style sheet."""

from collections.abc import Mapping
from typing import Any

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 24, 50, 34  # margins of the bars


def draw_histogram(what: str, histogram: Mapping[str, Any]) -> str:
    """Scenes over their size, the splits stacked: `histogram` as in report.json, `what` is counted."""
    counts, width = histogram["scenes"], histogram["bin_width"]
    bins = len(next(iter(counts.values())))
    tallest = max(map(sum, zip(*counts.values(), strict=True)))
    step = (WIDTH - LEFT - RIGHT) / bins
    scale = (HEIGHT - TOP - BOTTOM) / tallest
    body = [f'<text class="title" x="{LEFT}" y="18">{what} per scene</text>']
    for number, split in enumerate(counts):
        x = LEFT + 70 * number
        body.append(f'<rect class="{split}" x="{x}" y="27" width="10" height="10" rx="2"/>')
        body.append(f'<text x="{x + 15}" y="36">{split}</text>')
    for tick in sorted({0, tallest // 2, tallest}):
        y = HEIGHT - BOTTOM - tick * scale
        body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for position in range(bins):
        y = float(HEIGHT - BOTTOM)
        span = f"{position * width:,} to {(position + 1) * width - 1:,}"
        for split, numbers in counts.items():
            height = numbers[position] * scale
            y -= height
            if height:
                body.append(
                    f'<rect class="{split}" x="{LEFT + position * step + 0.5:.1f}" y="{y:.1f}" '
                    f'width="{step - 1:.1f}" height="{height:.1f}"><title>{numbers[position]} {split} scenes '
                    f"of {span}</title></rect>"
                )
    every = -(-bins // 6)
    for position in range(0, bins + 1, every):
        x = LEFT + position * step
        body.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{_short(position * width)}</text>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(body)}</svg>'


def _short(count: int) -> str:
    return f"{count / 1e6:g} M" if count >= 1e6 else f"{count / 1e3:g} k" if count >= 1e3 else str(count)
