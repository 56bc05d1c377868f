"""What a method may be: its options' limits, its terms, classes that contradict themselves."""

from dataclasses import dataclass, fields
from types import SimpleNamespace

import pytest
import torch

import baselines  # noqa: F401  registers the methods
from scannet_css.errors import InputError
from scannet_css.methods.method import _METHODS, Method, find_method, option, options_of


@pytest.fixture(autouse=True)
def registry():
    """Methods made here are gone afterwards."""
    before = dict(_METHODS)
    yield
    _METHODS.clear()
    _METHODS.update(before)


def make_limited():
    @dataclass
    class Limited(Method):
        name = "limited"
        weight: float = option(1.0, "a weight", least=0)
        temperature: float = option(1.0, "a temperature", above=0)
        share: float = option(0.5, "a share", least=0, most=1)
        kept: int = option(3, "a number", least=1)
        word: str = option("red", "a word", choices=("red", "green"))
        is_on: bool = option(True, "a switch")

    return Limited


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("weight", -1e-9, "weight is -1e-09; expected at least 0"),
        ("weight", float("nan"), "weight is nan; expected a finite number"),
        ("weight", float("inf"), "weight is inf; expected a finite number"),
        ("weight", True, "weight is True; expected a finite number"),
        ("weight", "1", "weight is '1'; expected a finite number"),
        ("temperature", 0.0, "temperature is 0.0; expected more than 0"),
        ("share", 1.5, "share is 1.5; expected at most 1"),
        ("kept", 0, "kept is 0; expected at least 1"),
        ("kept", 2.0, "kept is 2.0; expected int"),
        ("word", "grean", "word is 'grean' (did you mean 'green'?); expected red, green"),
        ("is_on", 1, "is_on is 1; expected bool"),
    ],
)
def test_limits(setting, value, message):
    limited = make_limited()
    with pytest.raises(InputError) as caught:
        limited(**{setting: value})
    assert str(caught.value) == f"method 'limited': {message}"


def test_values_on_the_limits_and_whole_numbers_are_taken():
    method = make_limited()(weight=0, temperature=1e-9, share=1, kept=1, word="green", is_on=False)
    assert method.settings() == {
        **{"weight": 0, "temperature": 1e-9, "share": 1, "kept": 1, "word": "green", "is_on": False}
    }
    assert [each.name for each in options_of(method)] == list(method.settings())
    assert "state" in {each.name for each in fields(method)}  # no setting


def test_a_single_step_has_no_teacher_and_no_loss_of_later_steps():
    @dataclass
    class Both(Method):
        name = "both"
        offline = True

    @dataclass
    class WithLoss(Method):
        name = "with-loss"
        offline, needs_teacher = True, False

        def loss(self, step, batch, new, old):
            return super().loss(step, batch, new, old)

    with pytest.raises(InputError, match="^both: offline .* and needs_teacher exclude each other"):
        find_method("both")
    with pytest.raises(InputError, match="^with-loss: offline and a loss of its own exclude each other"):
        find_method("with-loss")
    assert find_method("joint").offline


def test_so_it_is_in_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from scannet_css.methods.method import Method\n\nclass Mine(Method):\n"
        "    name = 'mine'\n    offline = True\n"
    )
    with pytest.raises(InputError, match="mine.py: Mine: offline .* and needs_teacher exclude each other"):
        find_method(f"{path}:Mine")


def test_two_terms_of_one_name_are_refused():
    @dataclass
    class First(Method):
        name = "first"

        def loss(self, step, batch, new, old):
            terms = super().loss(step, batch, new, old)
            terms["kd"] = new.logits.mean()
            return terms

    @dataclass
    class Second(First):
        name = "second"

        def loss(self, step, batch, new, old):
            terms = super().loss(step, batch, new, old)
            terms["kd"] = new.logits.square().mean()
            return terms

    output = SimpleNamespace(logits=torch.randn(3, 2))
    batch = SimpleNamespace(labels=torch.tensor([0, 1, 255]))
    assert set(First().loss(None, batch, output, output)) == {"ce", "kd"}
    with pytest.raises(InputError, match="^loss term 'kd' is set twice"):
        Second().loss(None, batch, output, output)
