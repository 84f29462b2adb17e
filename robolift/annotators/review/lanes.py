"""What models say about each frame, shown beside a person's own marks once they made them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from robolift import manifest as manifests
from robolift.data.dataset import Dataset
from robolift.data.same_frames import check_keys
from robolift.errors import DataError
from robolift.json_numbers import finite
from robolift.manifest import Manifest
from robolift.schema import Kind

ADVANTAGE = {"positive": 1, "negative": -1, "none": 0}


class Lanes:
    """Columns of finished outputs, aligned with the frames of a dataset."""

    def __init__(
        self,
        dataset: Dataset,
        manifest: Manifest,
        *,
        rewards_uri: str = "",
        values_uri: str = "",
        advantage_uri: str = "",
    ) -> None:
        """Open what there is to show.

        Args:
            dataset: The dataset that people see.
            manifest: Its manifest.
            rewards_uri: A RewardSet of it, or empty.
            values_uri: A ValueSet of it, or empty.
            advantage_uri: A LabelSet of it, or empty.

        Raises:
            DataError: If one is not finished or of another dataset.
            UsageError: If one is of another kind.
        """
        self._starts = dataset.starts
        self._intervention = pc.equal(dataset.frames.column("control_mode"), "correcting").to_numpy()
        self._columns: dict[str, np.ndarray | None] = {"vlm_progress": None, "value": None, "advantage_label": None}
        if rewards_uri:
            table = _table(rewards_uri, Kind.REWARDS, "rewards", manifest, dataset)
            self._columns["vlm_progress"] = table.column("progress").to_numpy()
        if values_uri:
            table = _table(values_uri, Kind.VALUES, "values", manifest, dataset)
            self._columns["value"] = table.column("value").to_numpy()
        if advantage_uri:
            table = _table(advantage_uri, Kind.LABELS, "labels", manifest, dataset)
            places = pc.index_in(table.column("advantage_label"), pa.array(list(ADVANTAGE))).to_numpy()
            self._columns["advantage_label"] = np.array(list(ADVANTAGE.values()), np.int8)[places]

    @property
    def present(self) -> dict[str, bool]:
        """Return which of the models' lanes there are at all."""
        return {name: column is not None for name, column in self._columns.items()}

    def of(self, episode: int, *, hidden: bool) -> dict[str, Any]:
        """Return the lanes of an episode; those of models are None while ``hidden``."""
        rows = slice(int(self._starts[episode]), int(self._starts[episode + 1]))
        lanes: dict[str, Any] = {
            name: None if hidden or column is None else finite(column[rows]) for name, column in self._columns.items()
        }
        return {**lanes, "intervention": self._intervention[rows].astype(int).tolist(), "blind": hidden}


def _table(uri: str, kind: Kind, name: str, dataset_manifest: Manifest, dataset: Dataset) -> pa.Table:
    manifest = manifests.expect(manifests.load(uri), kind, name=name)
    parents = [parent.digest for parent in manifest.inputs.get("dataset", [])]
    table = manifest.table(name)
    if parents != [dataset_manifest.digest]:
        raise DataError(
            f"these {name} are of another dataset",
            where=uri,
            expected=f"an output made from {dataset.uri}",
            mend="give the output that was made from the dataset being labelled",
        )
    check_keys(table, dataset, where=manifest.file(f"{name}.parquet"))
    return table
