"""A dry run: a method from outside, tried on one scene a step before anything long begins."""

import copy
import logging
import shutil
import traceback
from dataclasses import replace
from pathlib import Path

from scannet_css import distributed
from scannet_css.errors import InputError
from scannet_css.methods.method import Method
from scannet_css.scenes import SceneEntry
from scannet_css.training.machine import Machine
from scannet_css.training.run import ContinualRun
from scannet_css.training.setting import Setting

NETWORK = "minkunet14s"  # small; a method does not depend on the network's size

log = logging.getLogger(__name__)


class OneSceneEach(Setting):
    """A setting with the smallest scene of each step, and of the validation split."""

    def training_scenes(self, step: int) -> list[SceneEntry]:
        return [min(super().training_scenes(step), key=lambda entry: entry.voxels)]

    def validation_scenes(self) -> list[SceneEntry]:
        scenes = [entry for entry in super().validation_scenes() if entry.voxels]
        return [min(scenes, key=lambda entry: entry.voxels)]


def dry_run(setting: Setting, method: Method, folder: Path, machine: Machine) -> None:
    """Runs all steps of the protocol on the smallest scene of each, one epoch with a small network.

    Whatever is wrong with the method comes out now instead of after step 0. `folder` is used and removed.
    Raises InputError as ContinualRun.run, and for any exception of the method's.
    """
    recipe = replace(setting.recipe, network=NETWORK, base_epochs=1, epochs=1)
    small = OneSceneEach(setting.manifest, setting.protocol, recipe, setting.seed)
    distributed.first_process_first(lambda: shutil.rmtree(folder, ignore_errors=True))
    trial = ContinualRun(small, copy.deepcopy(method), folder, folder / "base", machine)
    log.info("dry run of %s on one scene a step", method.name)
    quiet = logging.getLogger("scannet_css")
    level = quiet.level
    quiet.setLevel(logging.WARNING)
    try:
        trial.run()
    except InputError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"method {method.name!r}: {type(error).__name__}: {error} ({place.filename}, line {place.lineno};"
            " --debug shows the traceback)"
        ) from error
    finally:
        quiet.setLevel(level)
        if distributed.is_first():
            shutil.rmtree(folder, ignore_errors=True)
