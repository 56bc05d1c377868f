"""Prepared scenes: how they are made and stored, and how they become batches."""

from scannet_css.scenes.store import Manifest, Scene, SceneEntry, load_manifest, load_scene

__all__ = ["Manifest", "Scene", "SceneEntry", "load_manifest", "load_scene"]
