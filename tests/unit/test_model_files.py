"""Model files: what an address holds, and the copy that is kept."""

from __future__ import annotations

import hashlib

import fsspec
import pytest

from robolift import storage
from robolift.data.models import materialize, model_digest, read_model
from robolift.errors import DataError, UsageError

FILES = {"config.json": b"{}", "deep/weights.bin": b"12345"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOLIFT_MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote():
    root = "memory://model_files"
    for name, content in FILES.items():
        storage.write_bytes(f"{root}/model/{name}", content)
    yield root
    fsspec.filesystem("memory").rm("/model_files", recursive=True)


def write(folder, **extra: bytes):
    for name, content in {**FILES, **extra}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def test_a_file_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "weights").write_bytes(b"abc")
    assert model_digest(str(tmp_path / "weights")) == hashlib.sha256(b"abc").hexdigest()
    assert read_model(str(tmp_path / "weights")) == b"abc"


def test_a_folder_has_the_digest_of_names_and_contents(tmp_path, remote):
    here = model_digest(write(tmp_path / "a"))
    assert here == model_digest(f"{remote}/model") == model_digest(write(tmp_path / "b", **{".lock": b"x"}))
    assert here != model_digest(write(tmp_path / "c", **{"config.json": b"[]"}))
    assert here != model_digest(write(tmp_path / "d", more=b""))


def test_a_local_model_is_used_where_it_lies(tmp_path, cache):
    folder = write(tmp_path / "model")
    assert str(materialize(folder, model_digest(folder))) == folder
    assert not cache.exists()


def test_a_remote_folder_is_copied_once_and_kept_by_content(remote, cache):
    digest = model_digest(f"{remote}/model")
    copy = materialize(f"{remote}/model", digest)
    assert copy == cache / digest / "model"
    assert {name: (copy / name).read_bytes() for name in FILES} == FILES
    assert materialize(f"{remote}/model") == copy
    storage.remove(f"{remote}/model/config.json")
    assert materialize(f"{remote}/model", digest) == copy  # nothing is read where the digest is known
    assert [path.name for path in cache.iterdir()] == [digest]


def test_a_remote_file_keeps_its_name_and_its_content_may_have_two(remote, cache):
    for name in ("one.pth", "two.pth"):
        storage.write_bytes(f"{remote}/{name}", b"same")
    one, two = materialize(f"{remote}/one.pth"), materialize(f"{remote}/two.pth")
    assert (one.name, two.name, one.read_bytes(), two.read_bytes()) == ("one.pth", "two.pth", b"same", b"same")
    assert one.parent == two.parent == cache / hashlib.sha256(b"same").hexdigest()


def test_other_content_than_expected_is_refused(tmp_path, remote, cache):
    for uri in (write(tmp_path / "model"), f"{remote}/model"):
        with pytest.raises(DataError, match=f"have the digest {model_digest(uri)}"):
            materialize(uri, "0" * 64)
    assert list(cache.iterdir()) == []


def test_what_is_not_there_or_a_folder_is_refused(tmp_path, remote, cache):
    for uri in (str(tmp_path / "nothing"), f"{remote}/nothing"):
        for ask in (model_digest, materialize, read_model):
            with pytest.raises(UsageError, match="no model at"):
                ask(uri)
    with pytest.raises(UsageError, match="is a folder"):
        read_model(f"{remote}/model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no files in the model's folder"):
        model_digest(str(tmp_path / "empty"))


def test_a_cache_that_cannot_be_written_is_refused(remote, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROBOLIFT_MODEL_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="no copy of the model can be kept"):
        materialize(f"{remote}/model")
