"""Records that are well-formed and cannot be true, or cannot be verified; formats of the past; the schema."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest

import baselines  # noqa: F401  registers the methods, whose settings are checked
from scannet_css.errors import InputError
from scannet_css.files import digest
from scannet_css.leaderboard.rows import make_rows
from scannet_css.protocols import load_protocol
from scannet_css.records.record import FORMAT, Record, load_record, save_record, upgraded
from scannet_css.records.splits import Split, count_split, load_splits, save_split
from scannet_css.records.verify import verify
from scannet_css.scenes import load_manifest, load_scene
from scannet_css.strict_json import json_schema

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "benchmarks" / "records").glob("*.json"))
SPLITS = load_splits(ROOT / "benchmarks" / "splits")


def real(method: str) -> dict:
    """A record of the study as JSON."""
    for path in RECORDS:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["method"]["name"] == method and value["protocol"]["name"] == "scannet/s0-15-5":
            return value
    raise LookupError(method)


def test_all_records_of_the_leaderboard_are_verified():
    assert len(RECORDS) >= 137
    for path in RECORDS:
        assert verify(load_record(path), SPLITS) == [], path


def moved(matrix: list[list[int]], source: tuple[int, int], target: tuple[int, int]) -> None:
    matrix[source[0]][source[1]] -= 1
    matrix[target[0]][target[1]] += 1


def change(*path_and_new):
    *path, new = path_and_new

    def edit(value):
        for name in path[:-1]:
            value = value[name]
        value[path[-1]] = new

    return edit


def edit_each(edit):
    """Both steps, so that they stay consistent with each other."""
    return lambda value: [edit(step) for step in value["steps"]]


def swap_names(value):
    first, second = value["protocol"]["steps"][0][:2]
    value["protocol"]["steps"][0][:2] = [second, first]
    for step in value["steps"]:
        step["classes"][1:3] = [second, first]


def predict_background(value):
    matrix = value["steps"][1]["confusion"]["vertices"]
    moved(matrix, (1, 1), (1, 0))


def own_protocol(value):
    value["protocol"]["name"] = "mine/15-5"
    value["protocol"]["regime"] = "disjoint"


def in_scannet(value):
    value["data"] |= {"dataset": "scannet", "manifest_hash": "12" * 32}


def as_scannet(value):
    in_scannet(value)
    value["data"] |= {"train_scenes": 1201, "validation_scenes": 312}
    for step in value["steps"]:
        step["confusion"]["vertices"][1][1] += 50_000_000


BAD = {
    "a vertex moved to another class": (
        edit_each(lambda step: moved(step["confusion"]["vertices"], (1, 1), (2, 2))),
        "steps[0].confusion.vertices, row wall is '226688 points': expected 226689, the vertices of the",
    ),
    "a voxel moved to another class": (
        edit_each(lambda step: moved(step["confusion"]["voxels"], (1, 1), (2, 2))),
        "steps[0].confusion.voxels, row wall is '117186 points': expected 117187, the voxels of the",
    ),
    "a vertex less in the last step only": (
        lambda value: moved(value["steps"][1]["confusion"]["vertices"], (1, 1), (2, 2)),
        "steps[1].confusion.vertices, row wall is '226688 points': expected 226689 as after the step before",
    ),
    "points lost": (
        lambda value: value["steps"][1]["confusion"]["vertices"][16].__setitem__(16, 0),
        "points': expected 799764 as after the step before",
    ),
    "background predicted where it is no answer": (
        predict_background,
        "steps[1].confusion.vertices, column background is 1: expected 0",
    ),
    "classes in another order": (swap_names, "protocol.steps is [['floor', 'wall'"),
    "another hash": (change("protocol", "hash", "ab" * 32), "protocol.hash is 'abab"),
    "another version": (change("protocol", "version", 2), "protocol.version is 2: expected 1"),
    "another regime": (change("protocol", "regime", "disjoint"), "protocol.hash is 'edeb"),
    "an unknown regime": (change("protocol", "regime", "online"), "regime is 'online'; expected overlapped"),
    "own protocol, hash of another": (own_protocol, "protocol.hash is 'edeb"),
    "own background": (change("protocol", "background", ["ceiling"]), "protocol.hash is 'edeb"),
    "dataset of another name": (
        change("data", "dataset", "rooms"),
        "data.dataset is 'rooms': expected synthetic",
    ),
    "another voxel size": (change("data", "voxel_size", 0.02), "data.voxel_size is 0.02: expected 0.125"),
    "fewer scenes": (change("data", "validation_scenes", 59), "data.validation_scenes is 59: expected 60"),
    "more training scenes": (change("data", "train_scenes", 101), "data.train_scenes is 101: expected 100"),
    "not ScanNet's split": (
        in_scannet,
        "data.train_scenes is 100: expected 1201, the official split of scannet",
    ),
    "more points than ScanNet": (as_scannet, "expected at most 49540568, which the official split has"),
    "a setting the method lacks": (
        change("method", "settings", {"weight": 10.0, "temperature": 2.0}),
        "method.settings.temperature is 2.0: expected weight",
    ),
    "a setting missing": (change("method", "settings", {}), "method.settings.weight is None: missing"),
    "a setting out of range": (
        change("method", "settings", {"weight": -1.0}),
        "method 'mib': weight is -1.0; expected at least",
    ),
    "joint with two steps": (
        change("method", {"name": "joint", "settings": {}}),
        "steps is '2 steps': expected 1 for joint",
    ),
    "written tomorrow": (
        change("created", "2999-01-01T00:00:00Z"),
        "created is '2999-01-01': expected a day",
    ),
    "submitted tomorrow": (
        change("entry", "date", "2999-01-01"),
        "entry.date is '2999-01-01': expected a day",
    ),
    "from a newer version": (
        change("environment", "package", "99.0.0"),
        "environment.package is '99.0.0': expected a version of scannet-css up to",
    ),
    "from no version": (change("environment", "package", "main"), "environment.package is 'main': expected"),
    "fewer iterations than epochs": (
        change("steps", 1, "iterations", 3),
        "steps[1].iterations is 3: expected at least 4, the number of its epochs",
    ),
    "trained in no time": (
        change("steps", 1, "seconds", 0.0),
        "steps[1].seconds is 0.0: expected more than 0",
    ),
    "no link": (
        change("entry", "paper", "www.example.org"),
        "entry.paper is 'www.example.org': expected https://",
    ),
    "link without encryption": (
        change("entry", "code", "http://example.org"),
        "entry.code is 'http://example.org'",
    ),
    "link with a password": (
        change("entry", "code", "https://a:b@example.org"),
        "entry.code is 'https://a:b@",
    ),
    "link to a number": (change("entry", "code", "https://10.0.0.1/"), "entry.code is 'https://10.0.0.1/'"),
    "contact without a host": (
        change("entry", "contact", "me@home"),
        "entry.contact is 'me@home': expected an e-mail",
    ),
    "no name": (change("entry", "name", None), "entry.name is None: expected text"),
    "no such day": (change("entry", "date", "2026-02-30"), "entry.date is '2026-02-30': expected a day as"),
    "entry as text": (change("entry", "me"), "entry is 'me': expected an object or null"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_true_is_refused_by_field_value_and_rule(name):
    edit, message = BAD[name]
    value = real("mib")
    edit(value)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        verify(Record.from_json(value), SPLITS)
    assert "\n" not in str(caught.value)


def test_the_command_names_file_field_value_and_rule(run, tmp_path):
    value = real("mib")
    moved(value["steps"][1]["confusion"]["vertices"], (1, 1), (2, 2))
    (tmp_path / "record.json").write_text(json.dumps(value))
    (tmp_path / "benchmarks").symlink_to(tmp_path / "own")
    done = run(tmp_path, "tools/submit.py", "--check", "record.json")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "error: record.json: steps[1].confusion.vertices, row wall is '226688 points'"
    )


def add_later_setting(value):
    value["method"] = {"name": "mine", "settings": {"anything": [1, 2], "else": "word"}}


def one_step(value):
    joint = real("joint")
    value.clear()
    value.update(joint)


GOOD = {
    "as it is": lambda value: None,
    "without an entry": change("entry", None),
    "with links": lambda value: value["entry"].update(
        paper="https://openreview.net/forum?id=aB_1-2",
        code="https://github.com/a-b/c.d",
        contact="a+b@c.example.org",
    ),
    "a method from outside": add_later_setting,
    "joint": one_step,
    "another seed": change("seed", 2**40),
    "started from weights": change("network", "start", "ab" * 32),
    "on a GPU": lambda value: value["environment"].update(cuda="12.8", device="NVIDIA H100 80GB HBM3"),
    "memory known": edit_each(lambda step: step.update(peak_memory_bytes=2**33)),
    "not deterministic": edit_each(lambda step: step.update(deterministic=False)),
    "no step trained": change("steps", 1, {})
    and (lambda v: v["steps"][1].update(epochs=0, iterations=0, seconds=0.0)),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_may_be_true_is_verified(name):
    value = real("mib")
    GOOD[name](value)
    assert verify(Record.from_json(value), SPLITS) == []


def test_a_record_of_an_unknown_split_or_protocol_is_read_but_not_verified(value, record):
    assert verify(record(method="mine"), SPLITS) == ["its validation split is not registered"]
    (row,) = make_rows([record(method="mine")], SPLITS)
    assert row.status == "self-reported" and row.flags == [
        "not verified: its validation split is not registered"
    ]
    (row,) = make_rows([Record.from_json(real("mib"))], SPLITS)
    assert row.status == "verified" and row.flags == []


def test_a_split_is_counted_from_the_prepared_scenes(small_set, tmp_path, run):
    done = run(tmp_path, "tools/register_split.py", small_set)
    manifest = load_manifest(small_set)
    assert done.returncode == 0, done.stderr
    (split,) = load_splits(tmp_path / "benchmarks" / "splits").values()
    assert split.manifest_hash == manifest.hash and split.validation_scenes == 4
    scenes = [load_scene(manifest.path(entry)) for entry in manifest.split("val")]
    for label, name in enumerate(manifest.classes):
        assert split.vertices[name] == sum(int((one.labels == label).sum()) for one in scenes)
        assert split.voxels[name] == sum(int((one.voxel_labels == label).sum()) for one in scenes)
    *_, again = count_split(manifest)
    assert again == split


def test_a_split_under_a_false_name_is_refused(tmp_path):
    split = Split("synthetic", "ab" * 32, 0.1, 1, 1, {"wall": 1}, {"wall": 1})
    path = save_split(split, tmp_path)
    assert load_splits(tmp_path) == {"ab" * 32: split} and load_splits(tmp_path / "none") == {}
    path.rename(tmp_path / "cdcdcdcdcdcdcdcd.json")
    with pytest.raises(InputError, match="manifest_hash is 'abab.*expected cdcdcdcd"):
        load_splits(tmp_path)


def earlier(value: dict, version: int) -> dict:
    """A record as that format had it."""
    old = copy.deepcopy(value)
    old["format"] = version
    del old["entry"], old["environment"]["cuda"]
    if version == 1:
        del old["environment"]["processes"], old["network"]["start"]
        for step in old["steps"]:
            del step["deterministic"]
    return old


@pytest.mark.parametrize("version", [1, 2])
def test_records_of_earlier_formats_are_read(version, tmp_path):
    value = real("mib")
    (tmp_path / "record.json").write_text(json.dumps(earlier(value, version)))
    record, now = load_record(tmp_path / "record.json"), Record.from_json(value)
    assert record.format == FORMAT and record.entry is None and record.environment.cuda is None
    assert record.metrics() == now.metrics() and verify(record, SPLITS) == []
    assert (record.hash == now.hash) == (version == 2)  # format 1 did not tell what is deterministic
    save_record(record, tmp_path / "again.json")
    assert load_record(tmp_path / "again.json") == record


def test_what_format_3_did_not_ask_for_changes_no_hash():
    value = real("mib")
    record = Record.from_json(value)
    assert value["format"] == 3 and record.format == FORMAT
    assert record.environment.vectors is None and record.environment.not_native is None
    run = {name: part for name, part in value.items() if name not in ("created", "entry")}
    assert record.hash == digest(run)
    assert Record.from_json(record.to_json()).hash == record.hash
    told = {**record.to_json(), "environment": {**record.to_json()["environment"], "vectors": "AVX2"}}
    assert Record.from_json(told).hash != record.hash


def test_a_record_of_an_earlier_format_is_read_as_strictly(tmp_path):
    for broken in ({"format": 1}, {"format": 2, "environment": 3}, {"format": 1, "steps": 3, "network": []}):
        with pytest.raises(InputError):
            Record.from_json(broken)


def test_the_exported_schema_is_the_one_that_is_read():
    path = ROOT / "docs" / "record.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert schema == json_schema(Record, "Record of a run, format 4"), (
        "run python docs/render/render_schema.py"
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in RECORDS[::20]:
        assert (
            list(validator.iter_errors(upgraded(json.loads(path.read_text(encoding="utf-8")), FORMAT))) == []
        )


@pytest.mark.parametrize(
    "edit",
    [
        change("seed", "0"),
        change("colour", "red"),
        change("method", "name", "=1+1"),
        change("method", "name", "www.example.org"),
        change("method", "name", "x" * 121),
        change("entry", "paper", "http://example.org"),
        change("entry", "paper", "javascript:alert(1)"),
        change("entry", "contact", "me"),
        change("method", "settings", {"a b=": 1}),
        change("steps", 0, "confusion", "voxels", 0, 0, 0.5),
        change("environment", "dirty", 1),
        lambda value: value.pop("network"),
    ],
)
def test_the_exported_schema_refuses_what_the_reader_refuses(edit):
    validator = jsonschema.Draft202012Validator(json_schema(Record, "Record"))
    value = real("mib")
    edit(value)
    assert list(validator.iter_errors(value))
    with pytest.raises(InputError):
        Record.from_json(value)


def test_protocols_of_the_study_are_those_of_the_package():
    for name in ("scannet/s0-15-5", "scannet/s0-15-1", "scannet/s1-15-5"):
        assert load_protocol(name).name == name
