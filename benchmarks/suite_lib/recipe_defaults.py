"""The recipes of the data sets: benchmarks/recipes/*.json."""

import json
from typing import Any

from suite_lib.synthetic_set import ROOT


def recipe_defaults(dataset: str) -> dict[str, Any]:
    """What benchmarks/recipes/ changes of the recipe for a data set."""
    path = ROOT / "benchmarks" / "recipes" / f"{dataset}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
