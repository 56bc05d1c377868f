"""Which records docs/results.md shows where; render_results.py writes its tables, plots.py its pictures."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import baselines  # noqa: F401  registers the methods
from scannet_css.errors import InputError
from scannet_css.files import digest
from scannet_css.leaderboard.rows import Row, mean_and_deviation
from scannet_css.leaderboard.sections import Section, build_sections
from scannet_css.methods.method import find_method, options_of
from scannet_css.records.record import Record

# How the hashes of the two manifests begin: the rooms of the tables, and those on which settings were chosen.
STUDY = "5fea1c9e4e65a677"
TUNING = "3a7bfa0f87b40f95"

PROTOCOLS = ("scannet/s0-15-5", "scannet/s0-15-1", "scannet/s1-15-5")
PAIRS = tuple((name, f"lgkd+{name}") for name in ("mib", "plop3d", "reminder", "rcil"))
VARIANTS_OF = PROTOCOLS[0]  # where LGKD's ablation and grid were run, with one seed
SEED = 0
# Methods that took their published rules after these records were made, and what the records stand for
# instead. Once the study has been run again, this is empty.
OLDER_RULES = {
    "true medians in the place of the published thresholds": (
        "pseudo",
        "plop3d",
        "reminder",
        "lgkd+plop3d",
        "lgkd+reminder",
    ),
    "thresholds in nats, and background's row trained to the last": ("gua", "cfsseg"),
    "background as a class with positives, and the largest of all logits as the answer": ("dkd",),
    "pseudo-labels that need not beat background": ("ssul",),
    "means over labelled voxels alone": ("lwf-mc",),
    "one norm over all cubes and channels": ("rcil", "lgkd+rcil"),
    "prototypes of the batch and of teacher's labels, and a balanced start": ("sdr",),
    "importance scaled without the 1e-8, PI and RW gathered another way": ("ewc", "pi", "rw"),
    "16 epochs in the place of as many updates as the sequence": ("joint",),
}
LINES = 10  # in the picture of the steps


@dataclass
class Block:
    """One protocol: for every method the row of its main settings; `complete` ones have every seed."""

    section: Section  # complete rows only, so that only they compete
    incomplete: list[Row]

    @property
    def rows(self) -> list[Row]:
        return [*self.section.rows, *self.incomplete]

    @property
    def by_method(self) -> dict[str, Row]:
        return {row.first.method.name: row for row in self.section.rows}

    @property
    def joint(self) -> Row | None:
        return self.section.references[0] if self.section.references else None

    @cached_property
    def pairs(self) -> list[tuple[Row, Row]]:
        """A method and LGKD on top of it, where both have every seed."""
        rows = self.by_method
        return [(rows[one], rows[other]) for one, other in PAIRS if one in rows and other in rows]


class Results:
    """Raises InputError for a record that is neither of the study's rooms nor of the tuning rooms."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = list(records)
        for record in self.records:
            name = f"{record.method.name}, {record.protocol.name}, seed {record.seed}"
            found = record.data.manifest_hash
            if not found.startswith((STUDY, TUNING)):
                raise InputError(
                    f"{name}: manifest {found[:16]}, expected {STUDY} (study) or {TUNING} (tuning)"
                )
            if found.startswith(STUDY) and record.protocol.name not in PROTOCOLS:
                raise InputError(f"{name}: no table shows this protocol, expected {', '.join(PROTOCOLS)}")
        self.study = self._sections(STUDY)
        self.tuning = self._sections(TUNING)

    def _sections(self, prefix: str) -> dict[str, Section]:
        chosen = [record for record in self.records if record.data.manifest_hash.startswith(prefix)]
        return {section.rows[0].first.protocol.name: section for section in build_sections(chosen)}

    @cached_property
    def blocks(self) -> dict[str, Block]:
        return {name: self._block(self.study[name]) for name in PROTOCOLS if name in self.study}

    def _block(self, section: Section) -> Block:
        """A method's main settings are those with the most seeds; then those used most, then defaults."""
        uses = Counter(_identity(row) for one in self.study.values() for row in one.rows for _ in row.records)

        def rank(row: Row) -> tuple:
            return len(row.records), uses[_identity(row)], -len(changed_settings(row))

        names = dict.fromkeys(row.first.method.name for row in section.rows)
        main = [max((r for r in section.rows if r.first.method.name == one), key=rank) for one in names]
        main.sort(key=lambda row: -(row.values["all"][0] or 0))
        seeds = {record.seed for row in main for record in row.records}
        complete = [row for row in main if len(row.records) == len(seeds)]
        methods = [row for row in complete if not row.first.is_joint]
        references = [row for row in complete if row.first.is_joint]
        return Block(Section(methods, references), [r for r in main if len(r.records) < len(seeds)])

    def main_row(self, method: str, protocol: str = VARIANTS_OF) -> Row | None:
        """The row of a method's main settings, complete or not."""
        rows = self.blocks[protocol].rows if protocol in self.blocks else []
        return next((row for row in rows if row.first.method.name == method), None)

    def lgkd_variants(self, *names: str) -> dict[tuple, Record]:
        """Values of the settings `names` -> LGKD's record of SEED, all else as in its main settings."""
        main = self.main_row("lgkd")
        if main is None:
            return {}
        fixed = _without(main.first, names)
        found = {}
        for record in (one for row in self.study[VARIANTS_OF].rows for one in row.records):
            if (record.method.name, record.seed) == ("lgkd", SEED) and _without(record, names) == fixed:
                found[tuple(record.method.settings[name] for name in names)] = record
        return found


@dataclass
class Base:
    """A step 0 that several methods share: percent, `all` of its classes for each seed."""

    word: str
    methods: list[str]
    by_seed: dict[int, float]


def bases(block: Block) -> list[Base]:
    """Step 0 as the records hold it; methods that should share it but differ in it get lines of their own."""
    found: list[Base] = []
    for row in sorted(block.section.methods, key=lambda row: row.first.method.name):
        name = row.first.method.name
        word = find_method(name).base or "softmax"
        by_seed = {one.seed: one.curves()["all"][0] for one in row.records}
        same = [base for base in found if base.word == word and base.by_seed == by_seed]
        if same:
            same[0].methods.append(name)
        else:
            found.append(Base(word, [name], by_seed))
    return sorted(found, key=lambda base: -len(base.methods))


def differences(before: Row, after: Row, metric: str) -> list[float]:
    """after - before for each seed, in percent points."""
    pairs = zip(before.records, after.records, strict=True)
    return [other.metrics()[metric] - one.metrics()[metric] for one, other in pairs]


def changed_settings(row: Row) -> dict[str, Any]:
    """The method's settings that are not its defaults."""
    defaults = {one.name: one.default for one in options_of(find_method(row.first.method.name))}
    return {name: value for name, value in row.first.method.settings.items() if value != defaults.get(name)}


def incremental_seconds(row: Row) -> float:
    """Training and evaluation of the steps after the first (of a joint run: all), mean over runs."""
    start = 0 if row.first.is_joint else 1
    return fmean(sum(step.seconds for step in one.steps[start:]) for one in row.records)


def picture_data(results: Results) -> dict[str, Any]:
    """Name -> what docs/render/plots.py draws, plain values; a picture without records is left out."""
    one, many = (
        block if block and block.section.methods else None for block in map(results.blocks.get, PROTOCOLS[:2])
    )
    weights = "background_weight", "novel_weight"
    grid = results.lgkd_variants(*weights)
    used = grid and [results.main_row("lgkd").first.method.settings[name] for name in weights]
    data = {
        "tradeoff-s0-15-5": one and _tradeoff(one),
        "tradeoff-s0-15-1": many and _tradeoff(many),
        "steps-s0-15-1": many and _steps(many),
        "weights": len(grid) > 1 and tuple(used) in grid and _grid(grid, used),
    }
    return {name: value for name, value in data.items() if value}


def _steps(block: Block) -> dict[str, Any]:
    lines = {}
    for row in block.section.methods[:LINES]:
        runs = [one.curves()["all"] for one in row.records]
        values = [mean_and_deviation(step) for step in zip(*runs, strict=True)]
        lines[row.first.method.name] = [[mean, deviation or 0] for mean, deviation in values]
    joint = block.joint and block.joint.values["all"][0]
    return {"title": block.section.rows[0].first.protocol.name, "lines": lines, "joint": joint}


def _tradeoff(block: Block) -> dict[str, Any]:
    points = {name: [*row.values["old"], *row.values["new"]] for name, row in block.by_method.items()}
    arrows = [[one.first.method.name, other.first.method.name] for one, other in block.pairs]
    return {"title": block.section.rows[0].first.protocol.name, "points": points, "arrows": arrows}


def _grid(records: dict[tuple, Record], used: list[float]) -> dict[str, Any]:
    rows, columns = (sorted({key[axis] for key in records}) for axis in (0, 1))
    metrics = {key: record.metrics() for key, record in records.items()}
    values = {
        metric: [[metrics.get((row, column), {}).get(metric) for column in columns] for row in rows]
        for metric in ("old", "new", "all")
    }
    return {"background_weight": rows, "novel_weight": columns, "values": values, "used": used}


def _identity(row: Row) -> str:
    return digest([row.first.method.name, row.first.method.settings, row.first.recipe])


def _without(record: Record, names: Iterable[str]) -> list[dict]:
    settings = {name: value for name, value in record.method.settings.items() if name not in names}
    return [settings, record.recipe]
