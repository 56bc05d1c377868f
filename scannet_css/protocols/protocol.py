"""A class-incremental setting: which classes arrive when, and what a step's training labels show.

A protocol is one JSON file (docs/protocols.md). Channel 0 of a network is the background; the classes follow
in the order in which they arrive, so channels keep their number from then on. Label 255 is never scored.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scannet_css.classes import BACKGROUND, BACKGROUND_NAME, IGNORE
from scannet_css.errors import InputError, did_you_mean
from scannet_css.files import digest
from scannet_css.protocols.partition import partition
from scannet_css.strict_json import Name, named, read_file, require

if TYPE_CHECKING:
    from scannet_css.scenes import Manifest, SceneEntry

REGIMES = ("overlapped", "disjoint", "sequential", "partitioned")
UNANNOTATED = ("ignore", "background")
SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Protocol:
    """A checked protocol. `step` counts from 0 (base training); an unknown step raises IndexError.

    steps: class names of each step; background: dataset classes that are true background; regime: which
    scenes and labels a step sees; unannotated: whether points without annotation are ignored or trained as
    background. Raises InputError if a class occurs twice, a step is empty or a word is unknown.
    """

    name: str
    version: int
    description: str
    steps: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()
    regime: str = "overlapped"
    unannotated: str = "ignore"
    hash: str = field(init=False)

    def __post_init__(self):
        self._check()
        meaning = {
            "version": self.version,
            "steps": self.steps,
            "background": sorted(self.background),
            "regime": self.regime,
            "unannotated": self.unannotated,
        }
        object.__setattr__(self, "hash", digest(meaning))

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes that are learnt, in the order in which they arrive."""
        return tuple(name for step in self.steps for name in step)

    def seen(self, step: int) -> tuple[str, ...]:
        """The classes of all steps up to and including `step`, in order: channels 1, 2, ..."""
        if not 0 <= step < len(self.steps):
            raise IndexError(f"protocol {self.name} has steps 0 to {len(self.steps) - 1}, not {step}")
        return tuple(name for names in self.steps[: step + 1] for name in names)

    def channels(self, step: int) -> int:
        """Outputs of the network at `step`: the background and every class seen."""
        return 1 + len(self.seen(step))

    def channel_names(self, step: int) -> tuple[str, ...]:
        """The name of each channel at `step`, "background" first."""
        return (BACKGROUND_NAME, *self.seen(step))

    def new_channels(self, step: int) -> range:
        """The channels that `step` adds."""
        return range(self.channels(step) - len(self.steps[step]), self.channels(step))

    def training_table(
        self, step: int, dataset_classes: Sequence[str], remembered: Sequence[str] = ()
    ) -> torch.Tensor:
        """Dataset label -> the channel shown while training `step`: (256,) int64.

        Classes of the step have their channel; old ones too in the sequential regime, or if they are
        `remembered`. All others are background. 255 stays ignored, or is background if the protocol says so.
        """
        first = 1 if self.regime == "sequential" else self.new_channels(step).start
        names = enumerate(self.channel_names(step))
        shown = {name: c for c, name in names if c >= first or name in remembered}
        return self._table(shown, dataset_classes, IGNORE if self.unannotated == "ignore" else BACKGROUND)

    def evaluation_table(self, step: int, dataset_classes: Sequence[str]) -> torch.Tensor:
        """Dataset label -> the channel scored after `step`: (256,) int64.

        Every class seen has its channel, future classes are background, 255 stays ignored.
        """
        shown = {name: 1 + c for c, name in enumerate(self.seen(step))}
        return self._table(shown, dataset_classes, IGNORE)

    def predicts_background(self, step: int) -> bool:
        """Whether background is a possible answer after `step`.

        Not so once every class is known and nothing is truly background: no point is then left that
        background would be right for, and the channel is dropped as in 3DPC-CISS (CVPR 2023).
        """
        true_background = bool(self.background) or self.unannotated == "background"
        return true_background or len(self.seen(step)) < len(self.classes)

    def scenes(self, step: int, manifest: "Manifest", split: str = "train") -> "list[SceneEntry]":
        """The scenes of `split` that `step` trains on, sorted by name.

        Overlapped and sequential: every scene with a point of the step's classes; disjoint: of these, those
        without a point of a future class; partitioned: those that `partition` gives to the step, so that no
        scene is of two. Raises InputError if there is none.
        """
        self.check_dataset(manifest.classes)
        label = {name: c for c, name in enumerate(manifest.classes)}
        entries = manifest.split(split)
        if self.regime == "partitioned":
            steps = {entry.name: self._fitting_steps(entry, label) for entry in entries}
            owner = partition(steps)
            chosen = [entry for entry in entries if owner.get(entry.name) == step]
        else:
            hidden = self.classes[len(self.seen(step)) :] if self.regime == "disjoint" else ()
            chosen = [
                entry
                for entry in entries
                if step in self._fitting_steps(entry, label)
                and not any(entry.class_counts[label[name]] for name in hidden)
            ]
        if not chosen:
            raise InputError(
                f"{manifest.folder}: no {split} scene for step {step} of protocol {self.name}; expected one "
                f"with a point of {', '.join(self.steps[step])}"
                + {
                    "disjoint": " and none of a later class"
                    if len(self.seen(step)) < len(self.classes)
                    else "",
                    "partitioned": " that no other step has",
                }.get(self.regime, "")
            )
        return chosen

    def _fitting_steps(self, entry: "SceneEntry", label: dict[str, int]) -> list[int]:
        """The steps of whose classes the scene has a point."""
        return [
            step
            for step, names in enumerate(self.steps)
            if any(entry.class_counts[label[name]] for name in names)
        ]

    def check_dataset(self, dataset_classes: Iterable[str]) -> None:
        """Raises InputError unless steps and background together are exactly the classes of the data set."""
        dataset_classes = tuple(dataset_classes)
        mine = (*self.classes, *self.background)
        for name in mine:
            if name not in dataset_classes:
                raise InputError(
                    f"protocol {self.name}: class {name!r} is not in the data set"
                    f"{did_you_mean(name, dataset_classes)}; expected among {', '.join(dataset_classes)}"
                )
        left_out = [name for name in dataset_classes if name not in mine]
        if left_out:
            raise InputError(
                f"protocol {self.name}: class {left_out[0]!r} of the data set is in no step; expected each "
                "in one step or in background"
            )

    def offline(self) -> "Protocol":
        """The same classes and background in one step: joint training, the upper bound of this protocol."""
        return Protocol(
            name=f"{self.name}-offline",
            version=self.version,
            description=f"All classes of {self.name} in a single step.",
            steps=(self.classes,),
            background=self.background,
            regime=self.regime,
            unannotated=self.unannotated,
        )

    def _table(self, shown: dict[str, int], dataset_classes: Sequence[str], unannotated: int) -> torch.Tensor:
        self.check_dataset(dataset_classes)
        table = torch.full((256,), unannotated, dtype=torch.int64)
        for label, name in enumerate(dataset_classes):
            table[label] = shown.get(name, BACKGROUND)
        return table

    def _check(self) -> None:
        where = f"protocol {self.name}"
        if not self.steps:
            raise InputError(f"{where}: steps is empty; expected at least one list of classes")
        for step, names in enumerate(self.steps):
            if not names:
                raise InputError(f"{where}: step {step} is empty; expected at least one class")
        names = [*self.classes, *self.background]
        doubled = [name for position, name in enumerate(names) if name in names[:position]]
        if doubled:
            raise InputError(f"{where}: class {doubled[0]!r} occurs twice; expected every class in one place")
        if len(names) >= IGNORE:
            raise InputError(f"{where}: {len(names)} classes; expected fewer than {IGNORE}")
        for key, words in (("regime", REGIMES), ("unannotated", UNANNOTATED)):
            value = getattr(self, key)
            if value not in words:
                hint = did_you_mean(value, words)
                raise InputError(f"{where}: {key} is {value!r}{hint}; expected {' or '.join(words)}")


def load_protocol(name: str | Path) -> Protocol:
    """The protocol of this name ("scannet/lgkd-14-5", "offline") or of a JSON file ("path/to/own.json").

    Raises InputError for an unknown name, an unreadable file and whatever Protocol refuses.
    """
    if str(name).endswith(".json"):
        return _read(Path(name))
    shipped = {long: (long, long.split("/")[-1]) for long in protocol_names()}
    matches = [long for long, names in shipped.items() if str(name) in names]
    if len(matches) != 1:
        hint = did_you_mean(str(name), [word for names in shipped.values() for word in names])
        folder = str(name).split("/")[0]
        near = [long for long in shipped if long.startswith(f"{folder}/")]
        known = near or [f"{each}/..." for each in dict.fromkeys(long.split("/")[0] for long in shipped)]
        raise InputError(
            f"protocol {str(name)!r} is not known{hint}; expected {', '.join(known)} or a path.json"
        )
    return _read(SHIPPED / f"{matches[0]}.json")


@cache
def protocol_names() -> tuple[str, ...]:
    """The names of the protocols that come with the package, sorted."""
    return tuple(sorted(str(path.relative_to(SHIPPED).with_suffix("")) for path in SHIPPED.glob("*/*.json")))


@dataclass(frozen=True)
class _File:
    """What a protocol file holds; what a Protocol has to fulfil is checked there."""

    name: Name
    version: int
    description: Name
    steps: tuple[tuple[Name, ...], ...]
    background: tuple[Name, ...]
    regime: Name
    unannotated: Name


def _read(path: Path) -> Protocol:
    content = read_file(_File, path, "no such protocol file")
    with named(path):
        require(content.version >= 1, "version", content.version, "expected a whole number from 1")
    return Protocol(**vars(content))
