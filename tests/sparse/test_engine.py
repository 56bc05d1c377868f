"""Which engine runs: by name, by the environment variable, by what the device offers; and what is refused."""

import inspect
import sys
from types import ModuleType

import pytest
import torch

from scannet_css.errors import InputError
from scannet_css.sparse import Conv3d, ConvTranspose3d, SparseTensor
from scannet_css.sparse.engines import choice, native_engine, torch_engine
from scannet_css.sparse.engines.native_library import Library, library

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ON_CPU = "torch" if library().reason else "native"
EXPECTED = "expected auto, triton, grouped, native, torch, spconv, minkowski"


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(choice, "_chosen", None)
    monkeypatch.delenv("SCANNET_CSS_ENGINE", raising=False)
    choice._engine.cache_clear()
    yield
    choice._engine.cache_clear()


@pytest.fixture
def stand_in(monkeypatch):
    """`stand_in(name, **reasons)`: torch's kernels under another name; reasons: why it cannot run a type."""

    def make(name, **reasons):
        module = ModuleType(f"scannet_css.sparse.engines.{name}_engine")
        module.calls = []
        module.unavailable = lambda device, dtype: reasons.get(str(dtype).removeprefix("torch."))
        for function in ("convolve", "gradients"):
            setattr(module, function, recorded(module.calls, function))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return make


def recorded(calls, name):
    def function(features, *arguments):
        calls.append((name, features.dtype))
        return getattr(torch_engine, name)(features, *arguments)

    return function


def test_every_engine_has_the_functions_of_torchs():
    for name in choice.ENGINES:
        module = choice.load_engine(name)
        for function in ("unavailable", "convolve", "gradients"):
            own, torchs = (inspect.signature(getattr(m, function)).parameters for m in (module, torch_engine))
            assert [(p.name, p.default) for p in own.values()] == [
                (p.name, p.default) for p in torchs.values()
            ], name


def test_the_native_engine_or_torch_runs_where_nothing_is_chosen(monkeypatch):
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert choice.why_unavailable("torch", CPU, dtype) is None
        assert choice.engine_name(CPU, dtype) == "torch"
        assert choice.engine_for(CPU, dtype) is torch_engine
    for reason, expected in ((None, native_engine), ("no library", torch_engine)):
        monkeypatch.setattr(native_engine, "library", lambda reason=reason: Library(None, "AVX2", reason))
        choice._engine.cache_clear()
        assert choice.engine_for(CPU, torch.float32) is expected
        facts = choice.engine_facts(CPU, torch.float32)
        name = expected.__name__.rpartition(".")[2].removesuffix("_engine")
        vectors = None if reason else "AVX2"
        assert facts == {"engine": name, "vectors": vectors, "not_native": reason}
    choice.choose_engine("torch")
    monkeypatch.setattr(native_engine, "library", lambda: Library(None, "AVX2", None))
    assert choice.engine_facts(CPU, torch.float32)["not_native"] == "torch was asked for"
    assert choice.engine_facts(CPU, torch.float64)["not_native"] == "it computes float32 on cpu"


@pytest.mark.parametrize(
    ("triton", "grouped", "expected"),
    [
        (None, None, "triton"),
        (None, "too old", "triton"),
        ("no GPU for it", None, "grouped"),
        ("no GPU for it", "too old", "torch"),
    ],
)
def test_auto_is_the_first_that_can_run_on_the_device(stand_in, triton, grouped, expected):
    stand_in("triton", float32=triton, float64="half types only")
    stand_in("grouped", float32=grouped, float64="half types only")
    assert choice.engine_name(CUDA, torch.float32) == expected
    assert choice.engine_name(CUDA, torch.float64) == "torch"
    choice.choose_engine("auto")
    assert choice.engine_name(CUDA, torch.float32) == expected
    assert choice.engine_name(CPU, torch.float32) == ON_CPU


def test_the_variable_chooses_and_choose_engine_overrules_it(stand_in, monkeypatch):
    for name in ("grouped", "spconv"):
        stand_in(name)
    monkeypatch.setenv("SCANNET_CSS_ENGINE", "grouped")
    assert choice.engine_name(CPU, torch.float32) == "grouped"
    choice.choose_engine("spconv")
    assert choice.engine_name(CPU, torch.float32) == "spconv"
    choice.choose_engine("auto")
    assert choice.engine_name(CPU, torch.float32) == ON_CPU


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tritn", " (did you mean 'triton'?)"),
        ("Torch", " (did you mean 'torch'?)"),
        ("minkowskiengine", " (did you mean 'minkowski'?)"),
        ("cuda", ""),
        ("", ""),
    ],
)
def test_a_name_that_is_not_known_is_refused(monkeypatch, name, hint):
    choice.choose_engine("torch")
    with pytest.raises(InputError) as caught:
        choice.choose_engine(name)
    assert str(caught.value) == f"engine {name!r} is not known{hint}; {EXPECTED}"
    assert choice.engine_name(CPU, torch.float32) == "torch"

    monkeypatch.setattr(choice, "_chosen", None)
    monkeypatch.setenv("SCANNET_CSS_ENGINE", name)
    with pytest.raises(InputError) as caught:
        choice.engine_name(CPU, torch.float32)
    assert str(caught.value) == f"SCANNET_CSS_ENGINE {name!r} is not known{hint}; {EXPECTED}"


def test_an_engine_that_cannot_run_says_why(stand_in):
    stand_in("grouped", float64="grouped products exist in float32 and half types")
    choice.choose_engine("grouped")
    assert choice.engine_name(CPU, torch.float32) == "grouped"
    assert (
        choice.why_unavailable("grouped", CPU, torch.float64)
        == "grouped products exist in float32 and half types"
    )
    with pytest.raises(InputError) as caught:
        choice.engine_name(CPU, torch.float64)
    assert str(caught.value) == (
        "engine 'grouped' cannot run torch.float64 on cpu: grouped products exist in float32 and half types"
    )


@pytest.mark.parametrize("name", choice.ENGINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_every_reason_is_one_line(name, dtype):
    reason = choice.why_unavailable(name, CPU, dtype)
    assert reason is None or (reason and "\n" not in reason)


def test_layers_run_on_the_chosen_engine_in_the_type_of_autocast(stand_in):
    module = stand_in("grouped", float64="not here")
    choice.choose_engine("grouped")
    layer = Conv3d(2, 3, kernel_size=3)
    x = SparseTensor(torch.ones(2, 2, requires_grad=True), torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]))
    layer(x).features.sum().backward()
    assert module.calls == [("convolve", torch.float32), ("gradients", torch.float32)]
    module.calls.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x).features.sum().backward()
    assert module.calls == [("convolve", torch.bfloat16), ("gradients", torch.bfloat16)]
    with pytest.raises(InputError, match="^engine 'grouped' cannot run torch.float64 on cpu: not here$"):
        layer.double()(x.with_features(x.features.double()))


@pytest.mark.parametrize("name", choice.ENGINES)
def test_an_evaluation_between_two_training_steps_changes_nothing(name):
    reason = choice.why_unavailable(name, CPU, torch.float32)
    if reason is not None:
        pytest.skip(reason)
    choice.choose_engine(name)
    torch.manual_seed(0)
    layers = Conv3d(6, 8, 3), Conv3d(8, 8, 2, stride=2), ConvTranspose3d(8, 5)
    coordinates = torch.nn.functional.pad(torch.randint(0, 9, (300, 3)).unique(dim=0), (1, 0))
    features = torch.randn(len(coordinates), 6, requires_grad=True)

    def forward():
        x = SparseTensor(features, coordinates)
        for layer in layers:
            x = layer(x)
        return x.features

    def gradients():
        return torch.autograd.grad(forward().sum(), [features, *(layer.kernel for layer in layers)])

    before, out = gradients(), forward()
    with torch.inference_mode():
        assert torch.equal(forward(), out)
    for one, other in zip(gradients(), before, strict=True):
        assert torch.equal(one, other)
