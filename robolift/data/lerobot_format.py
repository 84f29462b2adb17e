"""What LeRobot v2.1 and v3.0 look like on disk: paths, features, Arrow types and the metadata Hugging Face reads.

Matches ``lerobot.datasets`` 0.3.3 (v2.1) and 0.4.4 (v3.0). The word *chunk* means a storage folder here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from robolift.errors import UsageError

V21 = "v2.1"
V30 = "v3.0"
VERSIONS = (V21, V30)

INFO_FILE = "meta/info.json"
STATS_FILE = "meta/stats.json"
TASKS_JSONL = "meta/tasks.jsonl"
EPISODES_JSONL = "meta/episodes.jsonl"
EPISODES_STATS_JSONL = "meta/episodes_stats.jsonl"
TASKS_PARQUET = "meta/tasks.parquet"
EPISODES_FOLDER = "meta/episodes"
TASK_INDEX_COLUMN = "__index_level_0__"

DATA_PATHS = {
    V21: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    V30: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO_PATHS = {
    V21: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    V30: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

STANDARD_DTYPES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
STANDARD_COLUMNS = tuple(STANDARD_DTYPES)
IMAGE_NAMES = ["height", "width", "channels"]

ARROW_TYPES: dict[str, pa.DataType] = {
    **{name: getattr(pa, name)() for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")},
    **{name: getattr(pa, name)() for name in ("uint64", "float16", "float32", "float64")},
    "bool": pa.bool_(),
    "string": pa.string(),
}


@dataclass(frozen=True)
class FeatureSpec:
    """One Parquet column of a LeRobot dataset.

    Attributes:
        dtype: ``float32``, ``int64``, ``bool``, ``string`` and the other names of ARROW_TYPES.
        shape: ``(1,)`` is stored as a plain scalar, ``(d,)`` as a list of fixed size.
        names: What the entries of a vector are called.
    """

    dtype: str
    shape: tuple[int, ...] = (1,)
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ARROW_TYPES:
            raise UsageError(f"no feature dtype {self.dtype!r}; there are: {', '.join(ARROW_TYPES)}")
        if len(self.shape) != 1 or self.shape[0] < 1:
            raise UsageError(f"feature shape {self.shape}: expected (1,) or (d,)")
        if self.names is not None and len(self.names) != self.shape[0]:
            raise UsageError(f"{len(self.names)} names for a feature of width {self.shape[0]}")
        if self.dtype == "string" and self.shape != (1,):
            raise UsageError(f"a string feature has shape (1,), not {self.shape}")

    def to_info(self) -> dict[str, Any]:
        """Return the entry of ``features`` in info.json."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) if self.names else None}


STANDARD_FEATURES = {name: FeatureSpec(dtype) for name, dtype in STANDARD_DTYPES.items()}


def squeezed(shape: Any) -> tuple[int, ...]:
    """Return a feature's shape without leading ones: kai0's converter declares a state of 14 numbers as [1, 14]."""
    sizes = tuple(int(size) for size in shape)
    while len(sizes) > 1 and sizes[0] == 1:
        sizes = sizes[1:]
    return sizes or (1,)


def arrow_type(spec: FeatureSpec) -> pa.DataType:
    """Return the type of a column as LeRobot writes it: a plain scalar, or a list of fixed size."""
    scalar = ARROW_TYPES[spec.dtype]
    return scalar if spec.shape == (1,) else pa.list_(scalar, spec.shape[0])


def arrow_column(values: Any, spec: FeatureSpec) -> pa.Array:
    """Return one episode's column as Arrow.

    Args:
        values: (T,) or (T, 1) for shape (1,), (T, d) else; a list of str for strings.
        spec: What it is declared as.
    """
    if spec.dtype == "string":
        return pa.array([str(value) for value in values], pa.string())
    array = np.ascontiguousarray(values, dtype=np.dtype(spec.dtype))
    flat = pa.array(array.reshape(-1), ARROW_TYPES[spec.dtype])
    return flat if spec.shape == (1,) else pa.FixedSizeListArray.from_arrays(flat, spec.shape[0])


def data_schema(features: Mapping[str, FeatureSpec], version: str) -> pa.Schema:
    """Return the Parquet schema of the data files, with the ``huggingface`` metadata that LeRobot's writer leaves."""
    fields = [pa.field(name, arrow_type(spec)) for name, spec in features.items()]
    described: dict[str, Any] = {}
    for name, spec in features.items():
        value = {"dtype": spec.dtype, "_type": "Value"}
        # `datasets` 4 renamed Sequence to List; 3.x, which LeRobot v2.1 uses, knows only the old name.
        kind = "List" if version == V30 else "Sequence"
        described[name] = value if spec.shape == (1,) else {"feature": value, "length": spec.shape[0], "_type": kind}
    metadata = {"huggingface": json.dumps({"info": {"features": described}})}
    return pa.schema(fields, metadata=metadata)


def tasks_table(tasks: list[str]) -> pa.Table:
    """Return tasks.parquet of v3.0: the task text is the pandas index, rows stand in the order of task_index."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), TASK_INDEX_COLUMN: pa.array(tasks)})
    column = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    index = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas = {
        "index_columns": [TASK_INDEX_COLUMN],
        "column_indexes": [
            {"name": None, "field_name": None, **index, "metadata": {"encoding": "UTF-8"}},
        ],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **column},
            {"name": None, "field_name": TASK_INDEX_COLUMN, **index},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.3",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def image_size(feature: Mapping[str, Any]) -> tuple[int, int]:
    """Return the (height, width) that a camera's feature declares."""
    shape = feature["shape"]
    # Some recorders declare (channels, height, width); the names tell.
    by_name = dict(zip(feature.get("names") or IMAGE_NAMES, shape, strict=False))
    return int(by_name.get("height", shape[0])), int(by_name.get("width", shape[1]))


def declared(feature: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what must agree for two sources to share a feature: dtype and shape, of a camera height and width."""
    shape = image_size(feature) if feature["dtype"] == "video" else feature["shape"]
    return (feature["dtype"], *shape)
