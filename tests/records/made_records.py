"""Records for the tests of the results: real in shape, with confusion matrices drawn from a seed."""

import numpy as np

from scannet_css.protocols import Protocol

STEPS = [["wall", "floor", "chair"], ["sofa", "shower curtain"]]


def confusion(points: list[int], accuracy: list[float], generator: np.random.Generator) -> list[list[int]]:
    """(C, C) counts; of each channel's points the given share is right, the rest falls anywhere."""
    channels = len(points)
    matrix = np.zeros((channels, channels), dtype=np.int64)
    for channel, share in enumerate(accuracy):
        wrong = generator.multinomial(int(points[channel] * (1 - share)), np.full(channels, 1 / channels))
        matrix[channel] = wrong
        matrix[channel, channel] += points[channel] - wrong.sum()
    return matrix.tolist()


def points_of(name: str, level: str) -> int:
    """How many points of a class the validation split has; the same for every run."""
    return 5_000 + sum(map(ord, name + level)) * 7919 % 45_000


def make_value(
    method: str = "lgkd",
    seed: int = 0,
    old: float = 0.6,
    new: float = 0.5,
    steps: list[list[str]] = STEPS,
    dataset: str = "synthetic",
    settings: dict | None = None,
    protocol: str = "small/3-2",
) -> dict:
    """A record as JSON. `old`, `new`: share of right points of base and added classes at the end."""
    generator = np.random.default_rng([seed, len(method)])
    steps = [list(names) for names in steps]
    run_steps = (
        [sum(steps, [])] if method == "joint" else [sum(steps[: i + 1], []) for i in range(len(steps))]
    )
    reported = []
    for index, classes in enumerate(run_steps):
        is_last = index == len(run_steps) - 1
        accuracy = [0.7] + [old if is_last else 0.8] * len(steps[0])
        accuracy += [new] * (len(classes) + 1 - len(accuracy))
        jitter = generator.normal(0, 0.02, len(accuracy))
        accuracy = np.clip(np.array(accuracy) + jitter, 0, 1).tolist()
        matrices = {}
        for level in ("vertices", "voxels"):
            counts = {name: points_of(name, level) for name in ("background", *sum(steps, []))}
            later = sum(points for name, points in counts.items() if name not in ("background", *classes))
            points = [counts["background"] + later, *(counts[name] for name in classes)]
            matrices[level] = confusion(points, accuracy, generator)
        reported.append(
            {
                "classes": ["background", *classes],
                "confusion": matrices,
                "scenes": 40,
                "epochs": 8,
                "iterations": 320,
                "seconds": 61.5,
                "peak_memory_bytes": None,
                "deterministic": True,
            }
        )
    meaning = Protocol(protocol, 1, "", tuple(map(tuple, steps)), ("otherfurniture",))
    return {
        "format": 4,
        "entry": None,
        "method": {"name": method, "settings": {} if settings is None else settings},
        "protocol": {
            "name": protocol,
            "version": 1,
            "hash": meaning.hash,
            "steps": steps,
            "background": ["otherfurniture"],
            "regime": "overlapped",
            "unannotated": "ignore",
        },
        "data": {
            "dataset": dataset,
            "manifest_hash": "cd" * 32,
            "voxel_size": 0.05,
            "train_scenes": 40,
            "validation_scenes": 12,
        },
        "network": {"name": "minkunet14s", "parameters": 654321, "start": None},
        "recipe": {
            "learning_rate": 0.1,
            "schedule": "poly",
            "mixed_precision": False,
            "translate": [0.2, 0.0],
        },
        "seed": seed,
        "steps": reported,
        "environment": {
            "package": "0.1.0",
            "torch": "2.6.0+cpu",
            "cuda": None,
            "numpy": "2.2.0",
            "python": "3.10.14",
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "device": "AMD EPYC",
            "engine": "torch",
            "vectors": None,
            "not_native": None,
            "threads": 2,
            "processes": 1,
            "commit": None,
            "dirty": None,
        },
        "created": f"2026-11-22T18:{seed // 60:02d}:{seed % 60:02d}Z",
    }
