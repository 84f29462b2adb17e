"""Weights of pi0.5 through every form of file, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from pi05_weights import TINY, counted

from robolift.data.models import CACHE_VARIABLE, model_digest
from robolift.errors import DataError, UsageError
from robolift.policy.pi05 import orbax, torch_names
from robolift.policy.pi05.tree import Params, flatten, unflatten
from robolift.policy.pi05.weights import Form, load_params, save_params

OPENPI = Path(__file__).parents[1] / "fixtures/pi05_openpi"
FORMS: tuple[Form, ...] = ("safetensors", "openpi_torch", "orbax")
BIAS = "action_in_proj/bias"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def assert_same(found: Params, expected: Params) -> None:
    left, right = flatten(found), flatten(expected)
    assert left.keys() == right.keys()
    for path, array in right.items():
        assert left[path].dtype == array.dtype, path
        assert left[path].shape == array.shape, path
        assert left[path].tobytes() == np.asarray(array).tobytes(), path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("root", ["{folder}", "memory://pi05_weights/{name}"])
def test_every_form_gives_back_the_same_arrays(form: Form, root: str, tmp_path: Path) -> None:
    uri = root.format(folder=tmp_path, name=f"{form}-{tmp_path.name}") + "/weights"
    save_params(counted(), uri, form=form)
    assert_same(load_params(uri, TINY, sha256=model_digest(uri)), counted())


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_arrays_of_a_device_survive(form: Form, tmp_path: Path) -> None:
    params = jax.tree.map(lambda array: array.astype(ml_dtypes.bfloat16), counted())
    save_params(jax.device_put(params), str(tmp_path / "weights"), form=form)
    assert_same(load_params(str(tmp_path / "weights"), TINY), params)


def test_reads_what_openpi_wrote() -> None:
    assert_same(load_params(str(OPENPI / "7"), TINY), counted())
    assert_same(load_params(str(OPENPI), TINY), counted())  # model.safetensors


def test_writes_the_tensors_that_openpi_wrote(tmp_path: Path) -> None:
    save_params(counted(), str(tmp_path / "model.safetensors"), form="openpi_torch")
    ours = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    openpis = safetensors.numpy.load_file(OPENPI / "model.safetensors")
    assert not ours.pop(torch_names.UNUSED).any()
    assert openpis.pop(torch_names.UNUSED).shape == (32, 8)
    assert_same(ours, openpis)
    metadata = [
        safetensors.safe_open(f, "np").metadata() for f in (tmp_path, OPENPI) for f in [f / "model.safetensors"]
    ]
    assert metadata[0] == metadata[1] == {torch_names.EMBEDDING: torch_names.TIED}


def test_our_file_is_what_the_library_writes(tmp_path: Path) -> None:
    mixed = {**flatten(counted()), BIAS: np.ones(8, ml_dtypes.bfloat16), "time_mlp_in/bias": np.ones(8, np.float16)}
    save_params(unflatten(mixed), str(tmp_path / "weights"))
    assert (tmp_path / "weights").read_bytes() == safetensors.numpy.save(mixed)


def test_embedding_under_either_name_or_both(tmp_path: Path) -> None:
    tensors = safetensors.numpy.load_file(OPENPI / "model.safetensors")
    file = tmp_path / "both.safetensors"
    safetensors.numpy.save_file({**tensors, torch_names.EMBEDDING: tensors[torch_names.TIED]}, file)
    assert_same(load_params(str(file), TINY), counted())
    untied = {**tensors, torch_names.EMBEDDING: tensors[torch_names.TIED] + 1}
    safetensors.numpy.save_file(untied, file)
    with pytest.raises(DataError, match=r"lm_head\.weight differs from \S*embed_tokens\.weight"):
        load_params(str(file), TINY)
    safetensors.numpy.save_file({n: t for n, t in untied.items() if n != torch_names.TIED}, file)
    assert flatten(load_params(str(file), TINY))["PaliGemma/llm/embedder/input_embedding"][0, 0] == (
        flatten(counted())["PaliGemma/llm/embedder/input_embedding"][0, 0] + 1
    )


def saved(flat: dict[str, np.ndarray], folder: Path) -> str:
    save_params(unflatten(flat), str(folder / "weights"))
    return str(folder / "weights")


def test_missing_names_are_counted_and_the_first_ten_shown(tmp_path: Path) -> None:
    flat = flatten(counted())
    for path in list(flat)[:12]:
        del flat[path]
    with pytest.raises(DataError) as caught:
        load_params(saved(flat, tmp_path), TINY)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("12 missing, 0 unexpected, 0 of another shape or type")
    assert lines[1:11] == [f"  missing: {path}" for path in list(flatten(counted()))[:10]]
    assert lines[11] == "  missing: 2 more"


def test_unexpected_name(tmp_path: Path) -> None:
    uri = saved({**flatten(counted()), "state_proj/bias": np.zeros(3, np.float32)}, tmp_path)
    with pytest.raises(DataError, match=r"0 missing, 1 unexpected, 0 of another.*\n  unexpected: state_proj/bias"):
        load_params(uri, TINY)


def test_wrong_shape(tmp_path: Path) -> None:
    uri = saved({**flatten(counted()), BIAS: np.zeros(9, np.float32)}, tmp_path)
    with pytest.raises(DataError, match=r"action_in_proj/bias is float32 \(9,\), the model's is a float \(8,\)"):
        load_params(uri, TINY)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    file = tmp_path / "quantized.safetensors"
    safetensors.numpy.save_file({**flatten(counted()), BIAS: np.zeros(8, np.int8)}, file)
    with pytest.raises(DataError, match=r"action_in_proj/bias is I8 \(8,\)"):
        load_params(str(file), TINY)


def test_torch_names_are_reported_as_the_file_has_them(tmp_path: Path) -> None:
    tensors = safetensors.numpy.load_file(OPENPI / "model.safetensors")
    del tensors["time_mlp_in.bias"]
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"1 missing.*\n  missing: time_mlp_in\.bias"):
        load_params(str(tmp_path), TINY)


def test_layers_of_two_types(tmp_path: Path) -> None:
    tensors = safetensors.numpy.load_file(OPENPI / "model.safetensors")
    name = f"{torch_names.LANGUAGE}layers.1.mlp.down_proj.weight"
    safetensors.numpy.save_file({**tensors, name: tensors[name].astype(np.float16)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="layers of a weight are of several types"):
        load_params(str(tmp_path), TINY)


@pytest.mark.parametrize("form", ["safetensors", "orbax"])
def test_wrong_sha256(form: Form, tmp_path: Path) -> None:
    save_params(counted(), str(tmp_path / "weights"), form=form)
    with pytest.raises(DataError, match="digest"):
        load_params(str(tmp_path / "weights"), TINY, sha256="0" * 64)


def test_truncated_file(tmp_path: Path) -> None:
    uri = saved(flatten(counted()), tmp_path)
    Path(uri).write_bytes(Path(uri).read_bytes()[:-1])
    with pytest.raises(DataError, match="not readable as safetensors"):
        load_params(uri, TINY)


def test_orbax_item_without_names(tmp_path: Path) -> None:
    folder = tmp_path / "params"
    shutil.copytree(OPENPI / "7/params", folder)
    (folder / "_METADATA").write_bytes((folder / "_METADATA").read_bytes()[:-20])
    with pytest.raises(DataError, match="not readable as openpi's weights"):
        load_params(str(folder), TINY)


def test_truncated_orbax_item(tmp_path: Path) -> None:
    # One array alone: of several, Orbax leaves the other reads to fail later, in whatever test runs then.
    orbax.save({"array": np.arange(1000, dtype=np.float32)}, str(tmp_path / "params"))
    for file in (tmp_path / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="not readable as openpi's weights"):
        orbax.load(tmp_path / "params", where="params")


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no weights in this folder"):
        load_params(str(tmp_path), TINY)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model at"):
        load_params(str(tmp_path / "weights"), TINY)


def test_weights_without_updates_need_a_config_without(tmp_path: Path) -> None:
    uri = saved(flatten(counted()), tmp_path)
    with pytest.raises(DataError, match=r"20 missing(.|\n)*lora_(.|\n)*need lora_rank 0"):
        load_params(uri, replace(TINY, vlm=replace(TINY.vlm, lora_rank=2), expert=replace(TINY.expert, lora_rank=2)))


def test_low_rank_updates_have_no_torch_names(tmp_path: Path) -> None:
    params = counted(replace(TINY, vlm=replace(TINY.vlm, lora_rank=2)))
    with pytest.raises(UsageError, match="has no name in openpi's PyTorch model"):
        save_params(params, str(tmp_path / "weights"), form="openpi_torch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("root", ["{folder}", "memory://pi05_weights/{name}"])
def test_orbax_item_is_not_overwritten(root: str, tmp_path: Path) -> None:
    uri = root.format(folder=tmp_path, name=tmp_path.name) + "/params"
    save_params(counted(), uri, form="orbax")
    with pytest.raises(UsageError, match="never overwritten"):
        save_params(counted(), uri, form="orbax")
