"""A finished run -> its record."""

from dataclasses import asdict
from datetime import datetime, timezone

from scannet_css.methods.method import Method
from scannet_css.records.record import (
    FORMAT,
    Confusion,
    DataRecord,
    EnvironmentRecord,
    MethodRecord,
    NetworkRecord,
    ProtocolRecord,
    Record,
    StepRecord,
    environment,
)
from scannet_css.training.machine import Machine
from scannet_css.training.run import StepResult
from scannet_css.training.setting import Setting


def make_record(
    setting: Setting, method: Method, parameters: int, results: list[StepResult], machine: Machine
) -> Record:
    """The record of `results`; see record.py."""
    manifest, protocol = setting.manifest, setting.protocol
    return Record(
        format=FORMAT,
        entry=None,
        method=MethodRecord(method.name, method.settings()),
        protocol=ProtocolRecord(
            name=protocol.name,
            version=protocol.version,
            hash=protocol.hash,
            steps=[list(names) for names in protocol.steps],
            background=list(protocol.background),
            regime=protocol.regime,
            unannotated=protocol.unannotated,
        ),
        data=DataRecord(
            manifest.dataset,
            manifest.hash,
            manifest.voxel_size,
            len(manifest.split("train")),
            len(manifest.split("val")),
        ),
        network=NetworkRecord(
            setting.recipe.network, parameters, None if setting.start is None else setting.start.sha256
        ),
        recipe=asdict(setting.recipe),
        seed=setting.seed,
        steps=[
            StepRecord(
                classes=step.classes,
                confusion=Confusion(step.vertices, step.voxels),
                scenes=step.scenes,
                epochs=step.epochs,
                iterations=step.iterations,
                seconds=step.seconds,
                peak_memory_bytes=step.peak_memory_bytes,
                deterministic=step.deterministic,
            )
            for step in results
        ],
        environment=EnvironmentRecord(
            **environment(machine.device, machine.compute_type(setting.recipe.precision))
        ),
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
