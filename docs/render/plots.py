"""Draws the pictures of docs/results.md; docs/render/render_results.py calls it.

A picture carries the digest of what it shows (PNG text "Data"), so that a test can tell an outdated one.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from scannet_css.files import digest

DPI = 130
GREY = "#666666"
FRAME = "#D55E00"
# From Okabe and Ito's palette and Tol's. A method and LGKD on it share colour and mark; LGKD's lines
# are solid, its marks full. Who is not named here is a grey circle beside its name.
COLOURS_AND_MARKS = {
    "finetune": (GREY, "X"),
    "freeze": ("#8C6BB1", "<"),
    "lwf": ("#E69F00", "v"),
    "mib": ("#0072B2", "o"),
    "plop3d": ("#D55E00", "s"),
    "reminder": ("#009E73", "^"),
    "rcil": ("#CC79A7", "D"),
    "ssul": ("#882255", "h"),
    "cfsseg": ("#44AA99", "p"),
    "replay": ("#56B4E9", ">"),
    "lgkd": ("#000000", "P"),
}


def colour_and_mark(method: str) -> tuple[str, str]:
    return COLOURS_AND_MARKS.get(method.removeprefix("lgkd+"), (GREY, "o"))


STYLE = {
    "font.size": 10,
    "figure.dpi": DPI,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def draw(name: str, data: dict, path: Path) -> None:
    """Writes the picture `name` of results_data.picture_data as PNG."""
    with matplotlib.rc_context(STYLE):
        kind = name.partition("-")[0]
        figure = {"steps": draw_steps, "tradeoff": draw_tradeoff, "weights": draw_weights}[kind](data)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Data": digest(data), "Software": None})
        pyplot.close(figure)


def draw_steps(data: dict) -> pyplot.Figure:
    """`all` after every step: a line for each method, its name at the right end."""
    figure, axes = pyplot.subplots(figsize=(8.5, 5.5), layout="constrained")
    ends = {}
    for name, values in data["lines"].items():
        mean, deviation = np.array(values).T
        steps = np.arange(len(mean))
        (colour, mark), is_full = colour_and_mark(name), name.startswith("lgkd")
        axes.fill_between(steps, mean - deviation, mean + deviation, color=colour, alpha=0.12, linewidth=0)
        face = colour if is_full else "white"
        line = {"linestyle": "-" if is_full else "--", "linewidth": 1.8, "color": colour}
        axes.plot(steps, mean, **line, marker=mark, markersize=6, markerfacecolor=face)
        ends[name] = (mean[-1], colour)
    last = len(mean) - 1
    if data["joint"] is not None:
        axes.axhline(data["joint"], color=GREY, linestyle=(0, (6, 4)), linewidth=1)
        axes.text(last, data["joint"], "joint ", va="bottom", ha="right", color="#444444")
    axes.set(xlabel="step", ylabel="all, mIoU (%)", xticks=range(last + 1), title=data["title"])
    axes.set_xlim(-0.15, last + 0.1)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    label_ends(axes, last, ends)
    return figure


def label_ends(axes: Axes, x: float, ends: dict[str, tuple[float, str]]) -> None:
    """Names right of the lines' ends, pushed apart from the middle so that none covers another."""
    names = sorted(ends, key=lambda name: ends[name][0])
    wanted = np.array([ends[name][0] for name in names])
    least = 0.038 * axes.get_ylim()[1]
    places = spread_out(wanted, least)
    leader = {"arrowstyle": "-", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4, "relpos": (0, 0.5)}
    for name, value, place in zip(names, wanted, places, strict=True):
        axes.annotate(
            name,
            (x, value),
            (x + 0.4, place),
            va="center",
            color=ends[name][1],
            annotation_clip=False,
            arrowprops={**leader, "color": ends[name][1]},
        )


def spread_out(wanted: np.ndarray, least: float) -> np.ndarray:
    """Rising places at least `least` apart, in the mean as near to the rising `wanted` as that allows."""
    groups = [[value, 1] for value in wanted - least * np.arange(len(wanted))]
    for index in range(len(groups) - 1, -1, -1):  # pool neighbours that would stand in a wrong order
        while index + 1 < len(groups) and groups[index][0] > groups[index + 1][0]:
            (one, count), (other, more) = groups[index], groups.pop(index + 1)
            groups[index] = [(one * count + other * more) / (count + more), count + more]
    return np.repeat([g[0] for g in groups], [g[1] for g in groups]) + least * np.arange(len(wanted))


def draw_tradeoff(data: dict) -> pyplot.Figure:
    """Old against new: all methods, and larger those around LGKD's; light curves are of equal hIoU."""
    points = data["points"]
    places = np.array([(point[0], point[2]) for point in points.values()])
    near = np.array([(points[name][0], points[name][2]) for name in points if is_near(name, data)])
    frames = [box_around(np.vstack([places, [0, 0]]), 0.06)]
    if len(near) > 1:
        frames.append(box_around(near, 0.3))
    size = (6 * len(frames), 5.4)
    figure, grid = pyplot.subplots(1, len(frames), figsize=size, squeeze=False, layout="constrained")
    for axes, frame in zip(grid[0], frames, strict=True):
        draw_panel(axes, data, frame)
    grid[0][0].set_title(data["title"])
    if len(frames) > 1:
        lens = frames[1]
        edge = {"fill": False, "edgecolor": "#999999", "linewidth": 0.9}
        grid[0][0].add_patch(Rectangle(lens.min, lens.width, lens.height, **edge))
        grid[0][1].set_title("the marked part")
    figure.draw_without_rendering()  # places the axes: names are fitted in pixels
    figure.set_layout_engine("none")
    for axes, others in zip(grid[0], (frames[1:], []), strict=False):
        label_points(axes, data, others)
    return figure


def is_near(name: str, data: dict) -> bool:
    """LGKD and what it stands on; without them everything but the reference is worth a closer look."""
    return name.startswith("lgkd") or any(name in pair for pair in data["arrows"])


def box_around(places: np.ndarray, margin: float) -> Bbox:
    """The places and a share of their extent around them, at least 2 percent points."""
    least, most = places.min(axis=0), places.max(axis=0)
    reach = np.maximum(margin * (most - least), 2)
    return Bbox([least - reach, most + reach])


def draw_panel(axes: Axes, data: dict, frame: Bbox) -> None:
    axes.set(xlim=frame.intervalx, ylim=frame.intervaly, xlabel="old, mIoU (%)", ylabel="new, mIoU (%)")
    draw_harmonic_means(axes)
    points = data["points"]
    for name, point in points.items():
        draw_point(axes, name, *point)
    for before, after in data["arrows"]:
        line = {"color": colour_and_mark(before)[0], "linewidth": 1.4, "shrinkA": 4, "shrinkB": 4}
        ends = [(points[name][0], points[name][2]) for name in (after, before)]
        axes.annotate("", *ends, arrowprops={"arrowstyle": "-|>", **line}, zorder=3)


def draw_harmonic_means(axes: Axes) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    middle = 2 * right * top / (right + top)  # of the corner: no larger one is seen
    distance = 10 if middle > 30 and min(left, bottom) < 10 else 5
    for mean in range(distance, int(middle) + 1, distance):
        old = np.linspace(max(left, mean / 2 + 0.01), right, 400)
        new = mean * old / (2 * old - mean)
        seen = (new <= top) & (new >= bottom)
        axes.plot(old[seen], new[seen], color="#dddddd", linewidth=0.9, zorder=0)
        if seen[-1] and new[-1] < top - 0.04 * (top - bottom):
            axes.text(right, new[-1], f" {mean}", color="#888888", fontsize=8, va="center")
    axes.text(right, top, " hIoU", color="#888888", fontsize=8, va="bottom", ha="center")


def draw_point(axes: Axes, name: str, old: float, old_error: float, new: float, new_error: float) -> None:
    if name == "joint":
        axes.axvline(old, color=GREY, linestyle=(0, (6, 4)), linewidth=0.9, zorder=1)
        axes.axhline(new, color=GREY, linestyle=(0, (6, 4)), linewidth=0.9, zorder=1)
        axes.plot(old, new, "*", color="black", markersize=15, zorder=5)
        return
    colour, shape = colour_and_mark(name)
    face = colour if name.startswith("lgkd") else "white"
    errors = {"xerr": old_error or 0, "yerr": new_error or 0, "ecolor": "#bbbbbb", "elinewidth": 0.9}
    mark = {"color": colour, "markerfacecolor": face, "markersize": 7, "markeredgewidth": 1.4}
    axes.errorbar(old, new, fmt=shape, **errors, **mark, zorder=4)


def label_points(axes: Axes, data: dict, elsewhere: Sequence[Bbox]) -> None:
    """Names of the points in the panel, but for those that a larger panel names."""
    points = {name: (point[0], point[2]) for name, point in data["points"].items()}
    pixels = {name: axes.transData.transform(point) for name, point in points.items()}
    scale, inside = axes.figure.dpi / 72, axes.get_window_extent()
    taken = obstacles(axes, data, pixels)
    for frame in elsewhere:
        taken.append(Bbox(axes.transData.transform(frame.get_points())))
    shown = [name for name in points if inside.contains(*pixels[name])]
    shown = [name for name in shown if not any(frame.contains(*points[name]) for frame in elsewhere)]
    crowd = {n: sum(np.hypot(*(pixels[n] - other)) < 60 * scale for other in pixels.values()) for n in shown}
    for name in sorted(shown, key=lambda name: (-crowd[name], name)):
        size = np.array([len(name) * 5.4, 10.5]) * scale
        offset, box = free_place(name, pixels, size, taken, inside)
        taken.append(box)
        axes.annotate(
            name,
            points[name],
            offset / scale,
            textcoords="offset points",
            fontsize=9,
            color=colour_and_mark(name)[0] if name != "joint" else "black",
            va="center",
            ha="center",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
            zorder=6,
        )


def obstacles(axes: Axes, data: dict, pixels: dict) -> list[Bbox]:
    """What names keep off: marks and their error bars, arrows and joint's lines."""
    scale, inside = axes.figure.dpi / 72, axes.get_window_extent()
    taken = [around(place, 5 * scale) for place in pixels.values()]
    for name, (old, old_error, new, new_error) in data["points"].items():
        for reach in ((old_error or 0, 0), (0, new_error or 0)) if name != "joint" else ():
            ends = axes.transData.transform([np.subtract((old, new), reach), np.add((old, new), reach)])
            taken.append(Bbox(ends).padded(1))
    for before, after in data["arrows"]:
        taken += [around(place, 2 * scale) for place in np.linspace(pixels[before], pixels[after], 30)]
    if "joint" in pixels:
        x, y = pixels["joint"]
        taken += [Bbox.from_extents(inside.x0, y - 1, inside.x1, y + 1)]
        taken += [Bbox.from_extents(x - 1, inside.y0, x + 1, inside.y1)]
    return taken


def around(place: Sequence[float], reach: float) -> Bbox:
    return Bbox.from_extents(*np.subtract(place, reach), *np.add(place, reach))


def free_place(name: str, pixels: dict, size: np.ndarray, taken: list[Bbox], inside: Bbox):
    """Offset of a name's middle from its point, and its box: the first that covers nothing, lies inside and
    is nearest to its own point; else the least bad one."""
    best, point = None, pixels[name]
    others = np.array([place for other, place in pixels.items() if other != name] or [[np.inf, np.inf]])
    for distance, angle in product(range(4, 90, 5), np.arange(0, 2 * np.pi, np.pi / 12)):
        offset = np.array([np.cos(angle), np.sin(angle)]) * (distance * size[1] / 10 + size / 2)
        middle = point + offset
        box = Bbox([middle - size / 2, middle + size / 2])
        faults = sum(box.overlaps(other) for other in taken)
        faults += not (inside.contains(*box.min) and inside.contains(*box.max))
        nearest = np.clip(others, box.min, box.max) - others
        faults += 0.5 * (np.hypot(*nearest.T).min() < np.hypot(*(np.clip(point, box.min, box.max) - point)))
        if best is None or faults < best[0]:
            best = faults, offset, box
        if not faults:
            break
    return best[1:]


def draw_weights(data: dict) -> pyplot.Figure:
    """Three heat maps with their numbers: what LGKD's weights do; framed: those of the tables."""
    values = {name: np.array(grid, dtype=float) for name, grid in data["values"].items()}
    figure, grid = pyplot.subplots(
        1, len(values), figsize=(11, 1.4 + 0.6 * len(data["background_weight"])), layout="constrained"
    )
    used = data["used"]
    grid[0].set_ylabel("background_weight")
    for axes, (name, shares) in zip(grid, values.items(), strict=True):
        image = axes.imshow(shares, cmap="cividis", origin="lower", aspect="auto")
        axes.set(title=f"{name}, mIoU (%)", xlabel="novel_weight")
        axes.set_xticks(range(shares.shape[1]), [f"{one:g}" for one in data["novel_weight"]])
        axes.set_yticks(range(shares.shape[0]), [f"{one:g}" for one in data["background_weight"]])
        corner = (
            np.array([data["novel_weight"].index(used[1]), data["background_weight"].index(used[0])]) - 0.47
        )
        axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor=FRAME, linewidth=3))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for (row, column), share in np.ndenumerate(shares):
            if not np.isnan(share):
                colour = "black" if image.norm(share) > 0.55 else "white"
                axes.text(column, row, f"{share:.1f}", ha="center", va="center", color=colour)
    return figure
