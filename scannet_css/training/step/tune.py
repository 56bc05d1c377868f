"""Training of something else than the network by the batches of a step, before the step: see Step.tune."""

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from scannet_css import distributed
from scannet_css.methods.method import Method
from scannet_css.scenes.loader import derived_seed, plan_batches, shuffled
from scannet_css.training.recipe import make_optimizer
from scannet_css.training.step.update import Updater

if TYPE_CHECKING:
    from scannet_css.training.epochs import StepTrainer


def tune(trainer: "StepTrainer", module: nn.Module, method: Method, epochs: int) -> None:
    """Trains `module` by `method.loss` at the step's rate, as the step itself is trained: in parts where
    memory is short, by all processes. Raises Stop if a signal says so; nothing is kept then."""
    step, recipe, machine = (
        replace(trainer.step, network=module, teacher=None),
        trainer.recipe,
        trainer.machine,
    )
    updater = Updater(step, method, recipe, machine, make_optimizer(module, recipe, trainer.peak_rate))
    for epoch in range(epochs):
        identity = (trainer.seed, step.index, -1 - epoch)  # no epoch of the step has a number below 0
        batches = plan_batches(shuffled(step.scenes, *identity, "order"), recipe.batch_voxels)
        for number, batch in enumerate(trainer.load(batches, identity)):
            updater.run(batch, trainer.peak_rate, derived_seed(*identity, number, "batch"))
            if any(requested for (requested,) in distributed.gathered([int(machine.stop.requested)])):
                machine.stop.leave()
