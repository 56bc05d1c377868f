"""Raw scans to prepared scenes to batches."""

from scannet_css.scenes.scan_files import Scan, read_scan
from scannet_css.scenes.store import Manifest, Scene, SceneEntry, load_manifest, load_scene

__all__ = ["Manifest", "Scan", "Scene", "SceneEntry", "load_manifest", "load_scene", "read_scan"]
