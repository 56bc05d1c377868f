"""The loss terms that `run.py --help` prints are those that a method has."""

import re
from dataclasses import dataclass

import pytest

import baselines  # noqa: F401  registers the methods
from baselines.lgkd import LGKD
from scannet_css.methods.means import mean_over
from scannet_css.methods.method import Method, find_method, method_names, option, options_of
from scannet_css.training.step.loss_terms import base_terms, describe, loss_terms

ALL = [name for name in method_names() if find_method(name).__module__.startswith("baselines.")]
TRAINED = [name for name in ALL if find_method(name).trains and not find_method(name).offline]

NO_WEIGHTS = {  # of a term, whatever their names say
    "fusion_weight": "mixes the networks before and after a step, in `end`",
    "most_weight": "bounds the ratio of two labels' weights, found in `begin`",
}


def test_a_combination_has_the_terms_of_both_and_each_class_its_own():
    found = {term.name: (term.made_by, term.weights) for term in loss_terms(find_method("lgkd+reminder")())}
    assert found == {
        "ce": ("Pseudo.classification", {}),
        "pod": ("PLOP3D.loss", {"feature_weight": 0.01, "logit_weight": 0.0005}),
        "similarity": ("Reminder.loss", {"similarity_weight": 0.5}),
        "lgkd": ("LGKD.loss", {"lgkd_weight": 1.0, "background_weight": 5.0, "novel_weight": 1.0}),
    }


def test_a_weight_is_what_a_term_is_linear_in():
    @dataclass
    class Made(LGKD):
        extra: float = option(0.0, "weight of a term", least=0)
        power: float = option(2.0, "no weight: the term is its square", above=0)

        def loss(self, step, batch, new, old):
            terms = super().loss(step, batch, new, old)
            size = mean_over(new.features.square().sum(), new.features.numel())
            terms["size"] = size * self.power**2 + self.extra * size
            return terms

    method = Made(lgkd_weight=3.0)
    *_, size = loss_terms(method)
    assert (size.name, size.made_by, size.weights) == ("size", "Made.loss", {"extra": 0.0})
    assert method.settings() == Made(lgkd_weight=3.0).settings()  # all options are as they were


@pytest.mark.parametrize("name", TRAINED)
def test_every_weight_of_a_method_weights_a_term(name):
    method = find_method(name)()
    found = {weight for term in loss_terms(method) for weight in term.weights}
    named = {each.name for each in options_of(method) if each.name.endswith("weight")}
    assert found == named - set(NO_WEIGHTS)


@pytest.mark.parametrize("name", ALL)
def test_a_line_for_each_term(name):
    kind = find_method(name)
    first, *lines = describe(kind()).splitlines()
    assert first.startswith(f"loss: {', '.join(base_terms(kind()))} in step 0")
    assert bool(lines) == (name in TRAINED)
    if lines:
        assert [re.match(r"  (\S+) +\w+\.(loss|classification)", line)[1] for line in lines] == [
            term.name for term in loss_terms(kind())
        ]


def test_sigmoids_from_step_0_on_and_a_step_that_is_the_only_one():
    assert describe(find_method("joint")()) == "loss: ce in step 0, which is the only one"
    assert describe(find_method("cfsseg")()).endswith("later steps are not trained, `end` does the work")


def test_help_shows_them_and_says_why_where_it_cannot(command_line, tmp_path):
    shown = command_line("benchmarks/run.py", "--method", "lgkd+plop3d", "--help")
    assert (
        "    lgkd  LGKD.loss, weighted by lgkd_weight 1, background_weight 5, novel_weight 1\n"
        in shown.stdout
    )
    path = tmp_path / "mine.py"
    path.write_text(
        "from scannet_css.methods.method import Method\n\nclass Mine(Method):\n    name = 'mine'\n"
        "    def loss(self, step, batch, new, old):\n        return {'x': new.logitss.sum()}\n"
    )
    shown = command_line("benchmarks/run.py", "--method", f"{path}:Mine", "--help")
    assert shown.returncode == 0
    assert (
        "loss: its terms could not be found: AttributeError: 'Output' object has no attribute" in shown.stdout
    )


def test_the_base_is_the_methods_own():
    @dataclass
    class Other(Method):
        base = "other"

        def base_loss(self, step, batch, new):
            return {"other": new.logits.square().mean()}

    assert base_terms(Other()) == ["other"]
