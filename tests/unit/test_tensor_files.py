"""Safetensors written one tensor at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from robolift.errors import UsageError
from robolift.tensor_files import Spec, TensorFile, writing

A, B = np.array([[1.0, 2.0]], np.float32), np.array(3.0, np.float64)
SPECS = {"a": Spec((1, 2), "float32"), "b": Spec((), "float64")}


def test_any_order_and_views(tmp_path: Path) -> None:
    with writing(str(tmp_path / "x"), SPECS, {"of": "a test"}) as write:
        write("b", B)
        write("a", np.array([[1.0], [2.0]], ">f4").T)
    assert (tmp_path / "x").read_bytes() == safetensors.numpy.save({"a": A, "b": B}, metadata={"of": "a test"})
    file = TensorFile(tmp_path / "x", where="x")
    assert file.specs == SPECS
    np.testing.assert_array_equal(file.read("a"), A)


@pytest.mark.parametrize("uri", ["{folder}/x", "memory://tensor_files/x"])
def test_after_an_error_the_old_file_stays(uri: str, tmp_path: Path) -> None:
    from robolift import storage

    target = uri.format(folder=tmp_path)
    storage.write_bytes(target, b"old")
    with (
        pytest.raises(ValueError, match=r"1 announced tensors were not written: \['b'\]"),
        writing(target, SPECS) as write,
    ):
        write("a", A)
    assert storage.read_bytes(target) == b"old"
    assert [name for name, _ in storage.list_files(str(tmp_path))] in ([], ["x"])


def test_another_shape_than_announced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a is Spec"), writing(str(tmp_path / "x"), SPECS) as write:
        write("a", A.T)


def test_where_nothing_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="can't be written"), writing(str(tmp_path / "file/x"), SPECS):
        pass
