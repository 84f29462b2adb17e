"""Which content a model's address holds, and local copies of it."""

import hashlib
import shutil

import pytest

from robolift import storage
from robolift.annotators.transports.models import materialize, model_digest
from robolift.data import models
from robolift.errors import DataError, UsageError

FILES = {"config.json": b"{}", "model.safetensors": b"\x00\x01", "nested/extra.txt": b"more"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("ROBOLIFT_MODEL_CACHE", str(folder))
    return folder


def write(uri, files=FILES):
    for name, content in files.items():
        storage.write_bytes(storage.join(uri, name), content)
    return uri


@pytest.fixture
def local(tmp_path):
    return write(str(tmp_path / "model"))


def test_the_digest_is_of_names_and_contents(local):
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    lines = ",\n".join(f' "{name}": "{digest}"' for name, digest in sorted(listed.items()))
    assert model_digest(local) == hashlib.sha256(f"{{\n{lines}\n}}\n".encode()).hexdigest()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "added.txt"])
def test_any_file_changes_the_digest(local, name):
    before = model_digest(local)
    storage.write_bytes(storage.join(local, name), b"other")
    assert model_digest(local) != before


def test_marks_of_a_download_do_not(local):
    before = model_digest(local)
    storage.write_bytes(storage.join(local, ".gitattributes"), b"x")
    storage.write_bytes(storage.join(local, ".cache/huggingface/download/model.lock"), b"x")
    storage.write_bytes(storage.join(local, "nested/.DS_Store"), b"x")
    assert model_digest(local) == before


def test_a_local_model_is_used_where_it_lies(local, cache):
    assert str(materialize(local, model_digest(local))) == local
    assert not cache.exists()


@pytest.fixture(params=["memory", "s3"])
def remote(request):
    """An address in a store, empty before and after."""
    if request.param == "s3":
        yield storage.join(request.getfixturevalue("s3"), "models/tiny")
    else:
        yield "memory://models/tiny"
        storage.remove("memory://models")


def test_a_copy_has_the_bytes_and_their_digest_as_name(remote, local, cache):
    write(remote)
    digest = model_digest(remote)
    assert digest == model_digest(local)
    copy = materialize(remote, digest)
    assert copy == cache / digest / "tiny"
    assert {name: (copy / name).read_bytes() for name in FILES} == FILES
    assert [path.name for path in cache.iterdir()] == [digest]


def test_a_copy_of_known_content_is_not_read_again(remote, cache):
    write(remote)
    digest = model_digest(remote)
    copy = materialize(remote)
    storage.remove(remote)
    assert materialize(remote, digest) == copy


def test_other_content_is_refused_and_not_kept(remote, cache):
    write(remote)
    found = model_digest(remote)
    with pytest.raises(DataError, match=rf"have the digest {found}[\s\S]*expected: {'0' * 64}[\s\S]*plan again"):
        materialize(remote, "0" * 64)
    assert list(cache.iterdir()) == []


def test_other_content_of_a_local_model_is_refused(local):
    with pytest.raises(DataError, match="the model's files have the digest"):
        materialize(local, "0" * 64)


@pytest.mark.parametrize("ask", [model_digest, materialize])
def test_no_folder(tmp_path, ask):
    with pytest.raises(UsageError, match=r"no (model at|files in the model's folder) .*nowhere"):
        ask(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("ask", [model_digest, materialize])
def test_no_config(local, ask):
    storage.remove(storage.join(local, "config.json"))
    with pytest.raises(DataError, match=r"a model without config\.json"):
        ask(local)


@pytest.mark.parametrize("ask", [model_digest, materialize])
def test_pickled_weights_are_no_weights(local, ask):
    storage.remove(storage.join(local, "model.safetensors"))
    storage.write_bytes(storage.join(local, "pytorch_model.bin"), b"x")
    with pytest.raises(DataError, match=r"a model without weights[\s\S]*pickled weights can run any code"):
        ask(local)


def test_a_cache_that_may_not_be_written(local, tmp_path, monkeypatch):
    write("memory://models/tiny")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ROBOLIFT_MODEL_CACHE", str(tmp_path / "file/cache"))
    try:
        with pytest.raises(UsageError, match=r"no copy of the model can be kept: .*; set ROBOLIFT_MODEL_CACHE"):
            materialize("memory://models/tiny")
    finally:
        storage.remove("memory://models")


def test_encoders_and_labellers_share_one_copy(remote, cache):
    write(remote)
    digest = model_digest(remote)
    assert digest == models.model_digest(remote)
    copy = models.materialize(remote)
    storage.remove(remote)
    assert materialize(remote, digest) == copy
    assert models.model_digest(str(copy)) == digest
    assert {str(path.relative_to(cache / digest)) for path in (cache / digest).rglob("*") if path.is_file()} == {
        f"tiny/{name}" for name in FILES
    }


def test_another_process_may_be_quicker(remote, cache, monkeypatch):
    write(remote)
    digest = model_digest(remote)

    def lose(path, target):
        shutil.copytree(path, target)
        raise OSError("directory not empty")

    monkeypatch.setattr("pathlib.Path.rename", lose)
    assert materialize(remote) == cache / digest / "tiny"
