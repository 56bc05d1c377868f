"""Step 0, which methods share: it depends only on the setting (data, protocol, network, recipe, seed) and on
the method's `base`, which is the same for most.

So it lives in a folder of its own, named by their digest. Whoever comes first trains it, others wait, and
every method looks at it once and remembers what it wants.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scannet_css import distributed
from scannet_css.files import digest, write_json
from scannet_css.methods.method import Method, Step
from scannet_css.scenes.loader import derived_seed
from scannet_css.training.checkpoint import load_checkpoint, save_checkpoint
from scannet_css.training.machine import Machine
from scannet_css.training.setting import Setting, alone_in
from scannet_css.training.sums import forget_sums
from scannet_css.training.trained import link_base

log = logging.getLogger(__name__)


class BaseMethod(Method):
    """What trains step 0: a method's `base_loss` and `base_predict`; all its other hooks stay away.

    Of those, only methods with a `base` of their own follow the updates, and remember what they found.
    """

    def __init__(self, method: Method) -> None:
        self.method, self.name, self.base = method, method.name, method.base

    @property
    def state(self) -> dict:
        return self.method.state if self.base else {}

    @state.setter
    def state(self, value: dict) -> None:
        self.method.state = value

    def loss(self, step, batch, new, old):
        return self.method.base_loss(step, batch, new)

    def predict(self, output):
        return self.method.base_predict(output)

    def begin(self, step):
        if self.base:
            self.method.begin(step)

    def before_batch(self, step):
        if self.base:
            self.method.before_batch(step)

    def updated(self, step):
        if self.base:
            self.method.updated(step)


class BaseStep:
    """The shared folder of step 0, among `bases`."""

    def __init__(self, setting: Setting, method: Method, bases: Path, machine: Machine) -> None:
        self.setting, self.method, self.machine = setting, method, machine
        self.folder = bases / digest(setting.base_identity(method.base))[:16]
        self._waited_for: set[str] = set()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, this run alone writes to the folder; before, it waits for one that trains the same step."""
        with alone_in(self.folder, self._wait):
            if distributed.is_first() and not (self.folder / "settings.json").exists():
                write_json(self.folder / "settings.json", self.setting.base_identity(self.method.base))
            yield

    def visit(self, step: Step, shared: dict[str, Any], folder: Path) -> None:
        """Lets the method look at the trained step, once; what it remembers is its own, so it is stored in
        the run's `folder`. `shared`: what the methods of this base have in common."""
        path = folder / "method.pt"
        if distributed.is_first():
            link_base(folder, self.folder)
        if distributed.first_process_first(path.exists):
            self.method.state = load_checkpoint(path)
            return
        self.method.state = shared
        step.network.eval()
        torch.manual_seed(derived_seed(self.setting.seed, 0, "visit"))
        self.method.begin(step)
        self.method.end(step)
        if distributed.is_first():
            save_checkpoint(path, self.method.state)
            forget_sums(folder)

    def _wait(self, folder: Path, holder: str) -> None:
        """Another run trains the same base step; its result serves here too."""
        if holder not in self._waited_for:
            log.info("waiting for %s, which trains the base step in %s", holder, folder)
        self._waited_for.add(holder)
        if self.machine.stop.requested:
            self.machine.stop.leave()
        time.sleep(0.5)
