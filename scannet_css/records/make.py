"""A finished run -> its record."""

from dataclasses import asdict
from datetime import datetime, timezone

from scannet_css.methods.method import Method
from scannet_css.protocols import Protocol
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
from scannet_css.scenes import Manifest
from scannet_css.training.machine import Machine
from scannet_css.training.run import StepResult
from scannet_css.training.setting import Setting


def make_record(
    setting: Setting, method: Method, parameters: int, results: list[StepResult], machine: Machine
) -> Record:
    """The record of `results`; see record.py."""
    start = None if setting.start is None else setting.start.sha256
    dtype = machine.compute_type(setting.recipe.precision)
    return Record(
        format=FORMAT,
        entry=None,
        method=MethodRecord(method.name, method.settings()),
        protocol=_protocol(setting.protocol),
        data=_data(setting.manifest),
        network=NetworkRecord(setting.recipe.network, parameters, start),
        recipe=asdict(setting.recipe),
        seed=setting.seed,
        steps=[_step(result) for result in results],
        environment=EnvironmentRecord(**environment(machine.device, dtype)),
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _protocol(protocol: Protocol) -> ProtocolRecord:
    return ProtocolRecord(
        name=protocol.name,
        version=protocol.version,
        hash=protocol.hash,
        steps=[list(names) for names in protocol.steps],
        background=list(protocol.background),
        regime=protocol.regime,
        unannotated=protocol.unannotated,
    )


def _data(manifest: Manifest) -> DataRecord:
    return DataRecord(
        dataset=manifest.dataset,
        manifest_hash=manifest.hash,
        voxel_size=manifest.voxel_size,
        train_scenes=len(manifest.split("train")),
        validation_scenes=len(manifest.split("val")),
    )


def _step(result: StepResult) -> StepRecord:
    return StepRecord(
        classes=result.classes,
        confusion=Confusion(result.vertices, result.voxels),
        scenes=result.scenes,
        epochs=result.epochs,
        iterations=result.iterations,
        seconds=result.seconds,
        peak_memory_bytes=result.peak_memory_bytes,
        deterministic=result.deterministic,
    )
