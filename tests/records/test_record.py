"""The record: round trips, strictness by field and rule, and text that could act somewhere."""

import json
import re

import pytest

from scannet_css.errors import InputError
from scannet_css.metrics import summarise
from scannet_css.records.record import Record, environment, load_record, save_record
from scannet_css.sparse.engines import choice
from scannet_css.strict_json import as_text

PAYLOADS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "\r\n=1",
    "＝1+1",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "</td></table>",
    "[x](javascript:alert(1))",
    "https://example.org",
    "www.example.org",
    "a|b",
    "a\nb",
    "`code`",
    "**bold**",
    "\\input{/etc/passwd}",
    "$x^2$",
    "50%",
    "a&b",
    "#tag",
    "{x}",
    "~",
    "\x1b[31mred",
    "\x9b31m",
    "nul\x00",
    "\u202eevil",
    "e\u0301",
    "\ufeffbom",
    "x" * 121,
    "x" * 1_000_000,
    "",
    "trailing ",
    "it's",
    'quo"te',
]


def parent_of(value: dict, path: tuple):
    for name in path[:-1]:
        value = value[name]
    return value


def with_change(value: dict, path: tuple, new) -> dict:
    parent_of(value, path)[path[-1]] = new
    return value


def test_round_trip_and_hash(record, tmp_path):
    original = record(settings={"novel_weight": 20.0, "scales": [1, 2, 4], "memory": None})
    save_record(original, tmp_path / "run" / "record.json")
    loaded = load_record(tmp_path / "run" / "record.json")
    assert loaded == original and loaded.hash == original.hash
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record.json"]
    later = record(settings=original.method.settings)
    later.created = "2027-01-01T00:00:00Z"
    assert later.hash == original.hash
    later.steps[1].confusion.voxels[0][0] += 1
    assert later.hash != original.hash


def test_metrics_are_recomputed_from_the_confusion_matrices(record):
    one = record()
    for level in ("vertices", "voxels"):
        assert one.metrics(level) == summarise([getattr(step.confusion, level) for step in one.steps])
    joint = record(method="joint")
    assert joint.is_joint and not one.is_joint
    assert joint.metrics() == summarise([joint.steps[0].confusion.vertices], base_classes=3)
    assert joint.metrics()["new"] is not None


def test_tuples_in_memory_become_lists_on_disk(record, tmp_path):
    one = record(settings={"scales": (1, 2)})
    one.protocol.steps = tuple(tuple(step) for step in one.protocol.steps)
    save_record(one, tmp_path / "record.json")
    assert load_record(tmp_path / "record.json").protocol.steps == [list(step) for step in one.protocol.steps]


def test_own_environment_is_accepted(value):
    assert Record.from_json(with_change(value(), ("environment",), environment())).environment.threads >= 1


def test_where_the_native_engine_was_not_built_a_record_says_why_in_words_that_are_read(value, monkeypatch):
    reason = "its library was not built: no C++ compiler? pip install -e . | see docs/sparse.md"
    monkeypatch.setattr(choice.load_engine("native"), "unavailable", lambda device, dtype: reason)
    choice._engine.cache_clear()
    found = environment()
    choice._engine.cache_clear()
    assert (found["engine"], found["vectors"]) == ("torch", None) and "no C++ compiler" in found["not_native"]
    assert Record.from_json(with_change(value(), ("environment",), found)).environment.threads >= 1


@pytest.mark.parametrize("name", [*PAYLOADS, "///home", "a www.x", "wWww.", "- + x"])
def test_what_a_machine_says_of_itself_can_be_recorded(value, name):
    assert Record.from_json(with_change(value(), ("environment", "device"), as_text(name)))


CHANGES = [
    (("format",), 0, "format is 0: expected 1 to 4; no such format"),
    (("format",), 5, "format is 5: expected 1 to 4; made by a newer version of scannet-css: update yours"),
    (
        ("network", "start"),
        "weights.pth",
        "network.start is 'weights.pth': expected 8 to 64 hexadecimal digits",
    ),
    (("environment", "processes"), 0, "environment.processes is 0: expected at least 1"),
    (("steps", 0, "deterministic"), 1, "steps[0].deterministic is 1: expected true or false or null"),
    (("format",), True, "format is True: expected an integer"),
    (("seed",), "0", "seed is '0': expected an integer"),
    (("seed",), 1.5, "seed is 1.5: expected an integer"),
    (("seed",), -1, "seed is -1: expected at least 0"),
    (("seed",), 10**400, "expected a finite number"),
    (("extra",), 1, "extra is 1: unknown field"),
    (("method",), [], r"method is []: expected an object with name, settings"),
    (("method", "settings"), {"a": {}}, "method.settings.a is {}: expected"),
    (("method", "settings"), {"a": [[1]]}, "method.settings.a[0] is [1]: expected"),
    (("method", "settings"), {"=a": 1}, "method.settings is '=a': expected 1 to 120"),
    (("recipe",), {"rate": float("nan")}, "recipe.rate is nan: expected a finite number"),
    (("recipe",), {"rate": float("inf")}, "recipe.rate is inf: expected a finite number"),
    (("protocol", "version"), "1", "protocol.version is '1': expected an integer"),
    (("protocol", "hash"), "xyz", "protocol.hash is 'xyz': expected 8 to 64 hexadecimal digits"),
    (("protocol", "steps"), [], "protocol.steps is []: expected at least one step"),
    (("protocol", "steps"), [["wall"], []], "protocol.steps[1] is []: expected at least one class"),
    (("protocol", "steps"), [["wall"], ["wall"]], "expected every class once"),
    (("protocol", "steps"), [["background"]], "expected every class once, no background"),
    (("protocol", "steps"), [["wall"], ["floor"], ["bed"]], "steps is '2 steps': expected 3, or 1 (joint)"),
    (("protocol", "steps", 1, 0), "bed", "steps[1].classes is"),
    (("data", "voxel_size"), 0, "data.voxel_size is 0.0: expected metres above 0"),
    (("data", "train_scenes"), 0, "data.train_scenes is 0: expected at least 1"),
    (("data", "manifest_hash"), "AB" * 8, "data.manifest_hash is"),
    (("network", "parameters"), 1e6, "network.parameters is 1000000.0: expected an integer"),
    (("steps",), [], "steps is '0 steps': expected 2, or 1 (joint)"),
    (("steps", 0, "classes"), ["background", "floor", "wall", "chair"], "steps[0].classes is"),
    (
        ("steps", 0, "confusion", "vertices"),
        [[1]],
        "steps[0].confusion.vertices is 'rows of [1]': expected 4 x 4",
    ),
    (("steps", 0, "confusion", "vertices", 1, 1), -1, "steps[0].confusion.vertices is -1: expected counts"),
    (
        ("steps", 0, "confusion", "voxels", 1, 1),
        0.5,
        "steps[0].confusion.voxels[1][1] is 0.5: expected an integer",
    ),
    (("steps", 0, "confusion", "voxels", 1, 1), 2**53, "expected a finite number below 2**53"),
    (("steps", 0, "confusion", "voxels", 2), [1, 2], "expected 4 x 4"),
    (("steps", 0, "seconds"), -1, "steps[0].seconds is -1.0: expected at least 0"),
    (("steps", 0, "peak_memory_bytes"), "1 GB", "expected an integer or null"),
    (("environment", "dirty"), 1, "environment.dirty is 1: expected true or false or null"),
    (("environment", "commit"), "main!", "environment.commit is 'main!': expected"),
    (("created",), "2026-11-22", "created is '2026-11-22': expected UTC time"),
    (("created",), "2026-13-22T18:00:00Z", "expected UTC time"),
]


@pytest.mark.parametrize(("path", "new", "message"), CHANGES)
def test_a_wrong_field_is_refused_by_name_value_and_rule(value, path, new, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Record.from_json(with_change(value(), path, new))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def field_paths(value, path=()):
    if isinstance(value, dict) and path not in (("recipe",), ("method", "settings")):
        for name, item in value.items():
            yield (*path, name)
            yield from field_paths(item, (*path, name))
    elif isinstance(value, list) and path == ("steps",):
        yield from field_paths(value[0], (*path, 0))


def test_every_missing_field_is_named(value):
    paths = list(field_paths(value()))
    assert len(paths) > 40
    for path in paths:
        broken = value()
        del parent_of(broken, path)[path[-1]]
        field = ".".join(map(str, path)).replace(".0", "[0]")
        with pytest.raises(InputError, match=re.escape(f"{field} is None: missing")):
            Record.from_json(broken)


TEXT_FIELDS = [
    ("method", "name"),
    ("protocol", "name"),
    ("protocol", "background", 0),
    ("protocol", "steps", 0, 0),
    ("data", "dataset"),
    ("network", "name"),
    ("recipe", "schedule"),
    ("steps", 0, "classes", 1),
    ("environment", "device"),
    ("environment", "platform"),
    ("created",),
]


@pytest.mark.parametrize("path", TEXT_FIELDS)
def test_hostile_text_is_refused_in_every_field_and_cannot_act_in_the_message(value, path):
    for payload in PAYLOADS:
        with pytest.raises(InputError) as caught:
            Record.from_json(with_change(value(), path, payload))
        message = str(caught.value)
        assert message.isascii() and message.isprintable() and len(message) < 400


@pytest.mark.parametrize(
    "name", ["lgkd+plop3d", "scannet/s0-15-5", "NVIDIA H200", "shower curtain", "a_b.c (d), 1:2"]
)
def test_ordinary_names_are_accepted(value, name):
    assert Record.from_json(with_change(value(), ("method", "name"), name)).method.name == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON file"),
        (b"{", "not a JSON file"),
        (b"\xff\xfe{}", "not a JSON file"),
        (b"\xef\xbb\xbf{}", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b"null", "the file is None: expected an object"),
        (b'{"seed": 1, "seed": 2}', "seed is '2 times in one object': a field stands once"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, content, message):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: {message}")) as caught:
        load_record(path)
    assert "\n" not in str(caught.value)


def test_a_torn_record_is_refused_at_every_length(value, tmp_path):
    content = json.dumps(value()).encode()
    for length in range(0, len(content), 97):
        (tmp_path / "record.json").write_bytes(content[:length])
        with pytest.raises(InputError, match="not a JSON file"):
            load_record(tmp_path / "record.json")


def test_saving_a_broken_record_writes_nothing(record, tmp_path):
    one = record()
    one.method.name = "=1"
    with pytest.raises(InputError, match="method.name is '=1'"):
        save_record(one, tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []
