"""Renders docs/record.schema.json, the JSON Schema of a record; a test compares it with what is read.

python docs/render_schema.py
"""

from pathlib import Path

from scannet_css.files import write_json
from scannet_css.results.record import FORMAT, Record
from scannet_css.results.schema import json_schema

if __name__ == "__main__":
    schema = json_schema(Record, f"Record of a run, format {FORMAT}")
    write_json(Path(__file__).with_name("record.schema.json"), schema)
