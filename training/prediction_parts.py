"""Parquet files of a prediction, written atomically with hashes of model and data that are checked before reuse."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..data.whole_files import whole_file

_KEY = b"vithub"  # key in a file's metadata


def write_part(file: Path, tables: Iterable[pa.Table], made_from: dict[str, Any]) -> None:
    """Writes a file atomically: it appears whole or not at all.

    Args:
        file: Path of the part, such as `part-000000.parquet`.
        tables: Tables that hold the rows of the file, in order.
        made_from: Hashes of model and data, as JSON values, that the rows depend on; stored in the file's metadata.
    """
    table = pa.concat_tables(tables)
    with whole_file(file) as staging:
        pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(made_from)}), staging, write_page_checksum=True)


def what_is_wrong(file: Path, rows: range, made_from: dict[str, Any]) -> str | None:
    """Returns why a file cannot be kept, or None if it holds what `write_part` would write.

    Args:
        file: Parquet file of an earlier prediction.
        rows: Rows of the data set that the file must hold.
        made_from: Hashes that `write_part` would store.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            stated = json.loads((opened.schema_arrow.metadata or {}).get(_KEY, b"null"))
            held = opened.read()["row"].to_pylist()
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        return f"it cannot be read ({' '.join(str(error).split())[:200]})"
    if not isinstance(stated, dict):
        return "it does not say what it was made from"
    if other := [name for name, value in made_from.items() if stated.get(name) != value]:
        return f"it was made from other {' and '.join(other)}"
    if held != list(rows):
        return f"it holds {len(held)} rows, not the rows {rows.start} to {rows.stop - 1}"
    return None


__all__ = ["what_is_wrong", "write_part"]
