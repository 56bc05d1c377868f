"""One line of the leaderboard: the runs that differ in nothing but the seed."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev

from scannet_css.errors import InputError
from scannet_css.files import digest
from scannet_css.metrics import METRICS, Metric
from scannet_css.records.record import Record
from scannet_css.records.splits import Split
from scannet_css.records.verify import verify

# All numbers of a row: those of every record, and one counted at voxels.
VALUES = {
    **METRICS,
    "voxel_all": Metric("voxel_all", "all, scored at voxels instead of vertices", METRICS["all"].value),
}
VERIFIED, SELF_REPORTED = "verified", "self-reported"
TOO_GOOD = 3  # deviations of joint training above which a method's result is hard to believe


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (ddof 1); None where a run lacks the value, no deviation of one run."""
    if not values or any(value is None for value in values):
        return None, None
    return fmean(values), stdev(values) if len(values) > 1 else None


@dataclass
class Row:
    """`records` differ in nothing but the seed, one for each, in order of seed. `flags`: what a reader should
    know before believing it, in short sentences."""

    records: list[Record]
    flags: list[str] = field(default_factory=list)
    status: str = SELF_REPORTED
    orders: int = 1  # class orders of the same steps in which the same method stands on the leaderboard

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def method(self) -> str:
        return self.first.method.name

    @property
    def is_joint(self) -> bool:
        return self.first.is_joint

    @property
    def options(self) -> dict:
        """All that was set: the recipe's entries and the method's."""
        return {**self.first.recipe, **self.first.method.settings}

    @property
    def name(self) -> str:
        """Who submitted it."""
        return self.first.entry.name if self.first.entry else ""

    @property
    def links(self) -> list[tuple[str, str]]:
        """("paper" or "code", https address)."""
        entry = self.first.entry
        found = [("paper", entry.paper), ("code", entry.code)] if entry else []
        return [(name, address) for name, address in found if address]

    @cached_property
    def values(self) -> dict[str, tuple[float | None, float | None]]:
        """Mean and unbiased standard deviation over seeds of every metric and of `voxel_all`."""
        runs = [values_of(one) for one in self.records]
        return {name: mean_and_deviation([run[name] for run in runs]) for name in VALUES}

    @property
    def hours(self) -> float:
        return fmean(sum(step.seconds for step in one.steps) for one in self.records) / 3600

    @property
    def peak_memory(self) -> float | None:
        """GiB, the most over all runs and steps; None if one did not tell."""
        peaks = [step.peak_memory_bytes for one in self.records for step in one.steps]
        return None if None in peaks else max(peaks) / 2**30

    @property
    def section_key(self) -> tuple:
        """Rows with the same key are comparable."""
        data, protocol = self.first.data, self.first.protocol
        return data.dataset, data.manifest_hash, data.voxel_size, protocol.name, protocol.hash

    @property
    def order_key(self) -> str:
        """Rows with the same key differ in nothing but the class order."""
        data, protocol = self.first.data, self.first.protocol
        sizes = [len(names) for names in protocol.steps]
        setting = [data.manifest_hash, sizes, len(protocol.background), protocol.regime, protocol.unannotated]
        return digest([setting, identity(self.first)])

    @property
    def facts(self) -> dict[str, str]:
        """The cells of leaderboard.csv that are no metric."""
        record, entry = self.first, self.first.entry
        return {
            "dataset": record.data.dataset,
            "protocol": record.protocol.name,
            "method": record.method.name,
            "settings": json.dumps(record.method.settings, sort_keys=True, separators=(",", ":")),
            "network": record.network.name,
            "n": str(len(self.records)),
            "parameters": str(record.network.parameters),
            "hours": f"{self.hours:.2f}",
            "peak_memory": number(self.peak_memory),
            "device": ", ".join(sorted({one.environment.device for one in self.records})),
            "manifest": record.data.manifest_hash,
            "voxel_size": f"{record.data.voxel_size:g}",
            "protocol_hash": record.protocol.hash,
            "recipe": digest(record.recipe)[:8],
            "name": self.name,
            "paper": (entry and entry.paper) or "",
            "code": (entry and entry.code) or "",
            "contact": (entry and entry.contact) or "",
            "date": (entry and entry.date) or "",
        }


def values_of(record: Record) -> dict[str, float | None]:
    """Every number of VALUES for one run, in percent."""
    return {**record.metrics(), "voxel_all": record.metrics("voxels")["all"]}


def number(value: float | None) -> str:
    """As leaderboard.csv has it, with two decimals; empty where there is none."""
    return "" if value is None else f"{value:.2f}"


def identity(record: Record) -> list:
    """What the runs of one row share beside data and protocol."""
    name = record.entry.name if record.entry else ""
    return [
        *(record.method.name, record.method.settings, record.network.name, record.network.start),
        *(record.recipe, record.is_joint, name),
    ]


def make_rows(records: Iterable[Record], splits: Mapping[str, Split]) -> list[Row]:
    """Records grouped into rows, in no particular order."""
    groups = defaultdict(list)
    for record in records:
        groups[Row([record]).section_key, digest(identity(record))].append(record)
    return [_make_row(group, splits) for group in groups.values()]


def _make_row(group: list[Record], splits: Mapping[str, Split]) -> Row:
    by_seed, flags = defaultdict(dict), []
    for record in group:
        by_seed[record.seed][record.hash] = record
    for seed, runs in sorted(by_seed.items()):
        if len(runs) > 1:
            flags.append(f"seed {seed} has {len(runs)} different runs, the newest is used")
    newest = [
        max(runs.items(), key=lambda item: (item[1].created, item[0]))[
            1
        ]  # the hash decides between equal times
        for _, runs in sorted(by_seed.items())
    ]
    seeds = defaultdict(list)
    for record in newest:
        seeds[digest(record.steps[-1].confusion.vertices)].append(str(record.seed))
    flags += [
        f"seeds {', '.join(same)} gave the very same result" for same in seeds.values() if len(same) > 1
    ]
    doubts = sorted({doubt for record in newest for doubt in _doubts(record, splits)})
    flags += [f"not verified: {doubt}" for doubt in doubts]
    return Row(newest, flags, SELF_REPORTED if doubts else VERIFIED)


def _doubts(record: Record, splits: Mapping[str, Split]) -> list[str]:
    try:
        return verify(record, splits)
    except InputError as error:
        return [str(error)]


def flag_too_good(methods: Iterable[Row], references: Iterable[Row]) -> None:
    """Flags rows that beat training on all classes at once by more than it varies."""
    limits = []
    for row in references:
        mean, deviation = row.values["all"]
        if mean is not None and deviation is not None:
            limits.append(mean + TOO_GOOD * deviation)
    for row in methods:
        mean = row.values["all"][0]
        if limits and mean is not None and mean > max(limits):
            row.flags.append("better than joint training by more than three of its deviations")


def count_orders(rows: Iterable[Row]) -> None:
    """Sets `orders` of all rows."""
    counts = Counter(row.order_key for row in rows)
    for row in rows:
        row.orders = counts[row.order_key]
