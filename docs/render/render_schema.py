"""Renders docs/record.schema.json, the JSON Schema of a record; a test compares it with what is read.

python docs/render/render_schema.py
"""

from pathlib import Path

from scannet_css.files import write_json
from scannet_css.records.record import FORMAT, Record
from scannet_css.strict_json import json_schema

if __name__ == "__main__":
    schema = json_schema(Record, f"Record of a run, format {FORMAT}")
    write_json(Path(__file__).parents[1] / "record.schema.json", schema)
