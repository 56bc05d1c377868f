"""Weights from files: MinkowskiEngine's load as they are, anything else is refused before it is used."""

import argparse
import ast
import os
import pickle
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

from scannet_css.errors import InputError
from scannet_css.network import NETWORKS, build_network
from scannet_css.network.weights import initialise, read_weights, save_weights
from scannet_css.sparse import SparseTensor

GOLDEN = np.load(Path(__file__).parents[1] / "golden/minkowski.npz", allow_pickle=False)
CLASSIFIER = ["final.bias", "final.kernel"]


def weights_of(name="minkunet14s", **options):
    torch.manual_seed(1)
    return build_network(name, **options).state_dict()


@pytest.fixture
def written(tmp_path):
    """Writes an object with torch.save and gives the path."""

    def write(content):
        torch.save(content, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return write


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def minkowski_state(name):
    """The state_dict of MinkowskiEngine's own network, its parameters by the golden rule."""
    state = OrderedDict()
    names, shapes = (GOLDEN[f"{name}/{key}"].tolist() for key in ("param_names", "param_shapes"))
    for key, shape in zip(names, map(ast.literal_eval, shapes), strict=True):
        if len(shape) > 1:
            values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
            state[key] = torch.from_numpy((values / np.sqrt(int(np.prod(shape[:-1])))).astype(np.float32))
        else:
            state[key] = torch.full(shape, float(key.endswith("weight")))
        if key.endswith("bn.bias"):
            norm = key.removesuffix("bias")
            state[f"{norm}running_mean"], state[f"{norm}running_var"] = torch.zeros(shape), torch.ones(shape)
            state[f"{norm}num_batches_tracked"] = torch.tensor(0)
    return state


def relative_error(actual, expected):
    expected = torch.from_numpy(expected)
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def test_a_file_of_minkowski_engine_gives_its_logits(written):
    path = written({"epoch": 3, "state_dict": minkowski_state("MinkUNet34C")})
    network = build_network("minkunet34c")
    weights = read_weights(path)
    assert initialise(network, weights, path) == CLASSIFIER
    with torch.no_grad():
        network.final.kernel.copy_(weights["final.kernel"])
        network.final.bias.copy_(weights["final.bias"])
    x = SparseTensor(*(torch.from_numpy(GOLDEN[f"MinkUNet34C/{key}"]) for key in ("feats", "coords")))
    with torch.no_grad():
        logits = network.train()(x).logits
        assert relative_error(logits, GOLDEN["MinkUNet34C/logits_train"]) < 1e-4
        logits = network.eval()(x).logits
    assert relative_error(logits, GOLDEN["MinkUNet34C/logits_eval_after_one_train_pass"]) < 1e-4


def test_kernels_of_size_one_may_have_their_offset_as_in_minkowski_engine_0_4(written):
    state = weights_of()
    old = {name: value[None] if name.endswith("kernel") else value for name, value in state.items()}
    old = {name: value if value.dim() == 3 else state[name] for name, value in old.items()}
    assert old["block2.0.downsample.0.kernel"].shape == (1, 16, 32)
    path = written(old)
    network = build_network("minkunet14s")
    assert initialise(network, read_weights(path), path) == CLASSIFIER
    loaded = network.state_dict()
    assert_same(*({name: s[name] for name in state if name not in CLASSIFIER} for s in (loaded, state)))


def test_a_round_trip_keeps_all_but_the_classifier(tmp_path):
    network = build_network("minkunet14s", classes=7)
    torch.manual_seed(2)
    network.bn0.bn.running_mean.normal_()
    paths = [tmp_path / "new" / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        save_weights(path, network, {"b": "2", "a": "1"})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safetensors.safe_open(paths[0], framework="pt") as file:
        assert file.metadata() == {"scannet_css": '{"a":"1","b":"2"}'}

    weights = read_weights(paths[0])
    state = network.state_dict()
    assert_same(weights, {name: state[name] for name in weights})
    assert weights.keys() == state.keys()
    other = build_network("minkunet14s", classes=3)
    head = {name: other.state_dict()[name].clone() for name in CLASSIFIER}
    assert initialise(other, weights, paths[0]) == CLASSIFIER
    assert_same(other.state_dict(), {name: head.get(name, value) for name, value in state.items()})


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"epoch": 1, "state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model_state_dict": state, "arch": "MinkUNet14S"},
        lambda state: {"model": state},
        lambda state: {"epoch": 1, **state},
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.backbone."])
def test_weights_are_found_where_others_put_them(written, nest, prefix):
    state = weights_of()
    path = written(nest({prefix + name: value for name, value in state.items()}))
    assert_same(read_weights(path), state)


def test_a_prefix_that_not_all_names_share_stays(written):
    path = written({"module.a": torch.ones(1), "b": torch.ones(2)})
    assert sorted(read_weights(path)) == ["b", "module.a"]


def test_old_files_without_counters_and_half_precision_load(written):
    state = weights_of()
    path = written({name: value.half() for name, value in state.items() if value.is_floating_point()})
    network = build_network("minkunet14s")
    assert initialise(network, read_weights(path), path) == CLASSIFIER
    for name, value in network.state_dict().items():
        if name not in CLASSIFIER and value.is_floating_point():
            assert value.dtype == torch.float32 and torch.equal(value, state[name].half().float()), name


def test_what_is_not_used_is_named(tmp_path):
    weights = {**weights_of(), "offset_head.weight": torch.ones(3), "aux": torch.ones(1)}
    unused = initialise(build_network("minkunet14s"), weights, tmp_path)
    assert unused == ["aux", *CLASSIFIER, "offset_head.weight"]


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, zipped):
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    content = {"state_dict": weights_of(), "more": Hostile(made)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value) == (
        f"{path}: holds more than weights (posix.mkdir), which could run code; save its state_dict alone"
    )
    assert not made.exists()
    pickle.loads(pickle.dumps(Hostile(made)))
    assert made.exists()  # what it would have done


def test_a_plain_pickle_is_refused_and_runs_no_code(tmp_path):
    path, made = tmp_path / "weights.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps({"more": Hostile(made)}))
    with pytest.raises(
        InputError, match="weights.pkl: (damaged, or not a checkpoint|holds more than weights)"
    ):
        read_weights(path)
    assert not made.exists()


def test_a_checkpoint_with_its_command_line_says_how_to_save_it(written):
    path = written({"state_dict": weights_of(), "config": argparse.Namespace(lr=0.1)})
    with pytest.raises(InputError, match="more than weights \\(argparse.Namespace\\).*save its state_dict"):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "no such file; expected weights"),
        ("empty.pth", b"", "damaged, or not a checkpoint"),
        ("text.pth", b"hello world", "damaged, or not a checkpoint"),
        ("zip.pth", b"PK\x03\x04 and no more", "damaged, or not a checkpoint"),
        ("text.safetensors", b"hello world", "damaged, or not a safetensors file"),
        ("empty.safetensors", b"", "damaged, or not a safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_weights(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(weights_of(), path)
    else:
        save_weights(path, build_network("minkunet14s"), {})
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list; expected a state_dict"),
        (torch.ones(2), "holds a Tensor; expected a state_dict"),
        ({"epoch": 3, "names": ["a"]}, "holds no tensors; expected a state_dict, alone or under state_dict,"),
        ({"state_dict": {}, "other": torch.ones(2)}, "holds no tensors"),
        ({"a": torch.ones(2).to_sparse(), "b": torch.ones(2, device="meta")}, "holds no tensors"),
    ],
)
def test_a_checkpoint_without_weights_is_refused(written, content, message):
    path = written(content)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def refused(network, weights):
    """The message with which they are refused; the network stays as it was."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        initialise(network, weights, "w.pth")
    assert_same(network.state_dict(), before)
    return str(caught.value)


def test_other_input_channels_are_named():
    assert refused(build_network("minkunet34c", in_channels=7), weights_of("minkunet34c")) == (
        "w.pth: conv0p1s1.kernel (125, 3, 32), expected (125, 7, 32):"
        " the weights take 3 input channels, --inputs gives 7"
    )


def test_another_stem_kernel_is_named():
    weights = weights_of("minkunet34c")
    weights["conv0p1s1.kernel"] = torch.zeros(27, 3, 32)
    names = [name for name in weights if "tracked" not in name and name not in CLASSIFIER]
    assert refused(build_network("minkunet34c"), weights) == (
        "w.pth: conv0p1s1.kernel (27, 3, 32), expected (125, 3, 32);"
        f" 1 of {len(names)} weights have another shape"
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_another_network_are_refused_with_its_name(name):
    asked = "minkunet14s" if name != "minkunet14s" else "minkunet14a"
    with torch.device("meta"):  # shapes say it
        weights = weights_of(name, in_channels=6)
    message = refused(build_network(asked), weights)
    assert message.endswith(f"; these weights fit {name}") and message.startswith("w.pth: ")


def test_missing_and_surplus_names_are_counted_and_the_first_is_shown():
    weights = weights_of("minkunet14a")
    message = refused(build_network("minkunet18a"), weights)
    wanted = build_network("minkunet18a").state_dict()
    missing = [name for name in wanted if name not in weights and "tracked" not in name]
    first = "block1.1.conv1.kernel (27, 32, 32)"
    assert f"w.pth: {len(missing)} of " in message and f"missing, the first is {first}; " in message
    surplus = refused(build_network("minkunet14a"), weights_of("minkunet18a"))
    assert "weights more than the network has, the first is block1.1.conv1.kernel; these weights" in surplus


def test_weights_that_fit_nothing_are_refused_without_a_suggestion():
    message = refused(build_network("minkunet14s"), {"encoder.weight": torch.ones(3)})
    assert message.endswith("weights are missing, the first is conv0p1s1.kernel (27, 3, 16)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_are_refused(value):
    weights = weights_of()
    weights["block4.0.conv2.kernel"] = weights["block4.0.conv2.kernel"].double()
    weights["block4.0.conv2.kernel"][3, 2, 1] = value
    message = refused(build_network("minkunet14s"), weights)
    assert message == "w.pth: block4.0.conv2.kernel has values that are not finite"


def test_whole_numbers_are_refused():
    weights = {**weights_of(), "bn0.bn.weight": torch.ones(16, dtype=torch.int64)}
    message = refused(build_network("minkunet14s"), weights)
    assert message == "w.pth: bn0.bn.weight is torch.int64, expected torch.float32"
