"""Whether reward labels passed their quality measures, asked where it decides."""

from __future__ import annotations

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest

QUALITY_FILE = "quality.json"
MEASURED = ("automatic", "reviews")
"""The labels that a quality is of: the model's and people's."""


def check_measured(quality: Manifest, labels: dict[str, str], *, where: str) -> None:
    """Check that a quality was measured on these labels.

    Args:
        quality: Output of label_quality.
        labels: Digest of the labels by name, those of MEASURED.
        where: The labels' address, for the complaint.

    Raises:
        DataError: If it was measured on others.
    """
    for name in MEASURED:
        measured = quality.inputs[name][0]
        if measured.digest != labels[name]:
            raise DataError(
                f"the quality was measured on other {name} labels ({measured.uri})",
                where=quality.uri,
                expected=where,
                mend="measure these labels with label_quality, and give that",
            )


def check_passed(quality: Manifest) -> None:
    """Check that labels passed.

    Raises:
        DataError: Naming each measure that failed.
    """
    where = quality.file(QUALITY_FILE)
    document = storage.read_json(where)
    if document["passed"]:
        return
    failed = {name: one for name, one in document["measures"].items() if one["passed"] is False}
    told = "; ".join(f"{name} is {one['value']:.4g}, asked is {one['threshold']:.4g}" for name, one in failed.items())
    raise DataError(
        f"the labels did not pass label_quality: {told}",
        where=where,
        expected="every measure within its threshold",
        mend="label with another model, prompt or protocol, or by people; or set quality_gate: false or other "
        "thresholds, if you know why these labels are good enough",
    )
