"""The training state of a large network: written while training goes on, never half, read onto other devices."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.policy import sharding
from robolift.policy.pi05.state_store import ShardedStore

DOCUMENT = {"curves": {"train": [{"step": 1, "loss": 0.1}]}}


def tree(factor: float = 1.0) -> Any:
    """Return a state with names as those of pi0.5's."""
    moments = ({"PaliGemma/llm/w": jnp.arange(6.0).reshape(2, 3) * -factor}, jnp.zeros((), jnp.int32))
    return {"params": {"PaliGemma/llm/w": jnp.arange(6.0).reshape(2, 3) * factor}, "optimizer": moments}


def template(shape: tuple[int, ...] = (2, 3)) -> Any:
    weight = jax.ShapeDtypeStruct(shape, jnp.float32)
    moments = ({"PaliGemma/llm/w": weight}, jax.ShapeDtypeStruct((), jnp.int32))
    return {"params": {"PaliGemma/llm/w": weight}, "optimizer": moments}


def load(store: ShardedStore, form: Any = None) -> tuple[Any, Any]:
    form = form or template()
    found = store.load(form, sharding.state_shardings(form, sharding.make_mesh(1, 1)))
    assert found is not None
    return found


def assert_same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def states(uri: str) -> set[str]:
    """Return the names below which something lies that could be a state."""
    return {name.split("/")[1] for name, _ in storage.list_files(uri) if name.startswith("states/")}


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    return str(tmp_path / "work") if request.param == "file" else f"memory://state_store/{tmp_path.name}"


def test_the_last_state_comes_back_and_those_before_are_gone(uri: str) -> None:
    store = ShardedStore(uri)
    store.tidy()
    assert store.load(template(), template()) is None
    for step in (1, 2, 3):
        store.save(tree(step), DOCUMENT, step=step)
    store.close()
    assert storage.read_json(f"{uri}/latest.json")["step"] == 3
    assert states(uri) == {"3"}
    found, document = load(ShardedStore(uri))
    assert_same(found, tree(3))
    assert document == DOCUMENT


def test_a_bucket_holds_it_too(s3: str) -> None:
    store = ShardedStore(f"{s3}/work")
    for step in (1, 2):
        store.save(tree(step), DOCUMENT, step=step)
    store.wait()
    assert_same(load(store)[0], tree(2))
    assert states(f"{s3}/work") == {"2"}
    store.close()


def test_training_goes_on_while_a_state_is_written(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, write = threading.Event(), storage.write_bytes

    def slow(uri: str, content: bytes) -> None:
        assert may_end.wait(600)
        write(uri, content)

    monkeypatch.setattr(storage, "write_bytes", slow)
    store = ShardedStore(uri)
    state, document = tree(), {"curves": {"train": [1]}}
    store.save(state, document, step=1)
    # The next step gives its buffers away and the curves grow; what is written is what they were.
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    for _ in range(3):
        state = step(state)
    document["curves"]["train"].append(2)
    assert not storage.exists(f"{uri}/latest.json")
    second = threading.Thread(target=store.save, args=(state, document), kwargs={"step": 2})
    second.start()  # waits for the first
    may_end.set()
    second.join()
    store.close()
    found, told = load(ShardedStore(uri))
    assert_same(found, state)
    assert told == {"curves": {"train": [1, 2]}}


def test_what_is_written_is_the_state_at_the_time_of_the_save(uri: str) -> None:
    store, state, document = ShardedStore(uri), tree(), {"curves": [1]}
    store.save(state, document, step=1)
    document["curves"].append(2)
    jax.block_until_ready(jax.jit(lambda s: jax.tree.map(lambda x: x * 7, s), donate_argnums=0)(state))
    store.close()
    found, told = load(ShardedStore(uri))
    assert_same(found, tree())
    assert told == {"curves": [1]}


def test_a_save_that_was_killed_is_no_state_and_the_next_start_removes_it(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ShardedStore(uri)
    store.save(tree(1), DOCUMENT, step=1)
    store.close()
    # Killed when all of it is there but the word that it is.
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", lambda *_: None)
        patch.setattr(ShardedStore, "_keep_only", lambda *_: None)
        store.save(tree(2), DOCUMENT, step=2)
        store.close()
    # Killed on the way.
    storage.write_bytes(f"{uri}/states/3.orbax-checkpoint-tmp/manifest.ocdbt", b"half")
    assert states(uri) == {"1", "2", "3.orbax-checkpoint-tmp"}
    again = ShardedStore(uri)
    assert_same(load(again)[0], tree(1))
    again.tidy()
    assert states(uri) == {"1"}
    again.save(tree(2), DOCUMENT, step=2)
    again.close()
    assert_same(load(ShardedStore(uri))[0], tree(2))


def test_a_save_that_fails_is_told_and_the_state_before_stays(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ShardedStore(uri)
    store.save(tree(1), DOCUMENT, step=1)
    store.wait()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", full)
        store.save(tree(2), DOCUMENT, step=2)
        with pytest.raises(OSError, match="No space left"):
            store.close()
    assert_same(load(ShardedStore(uri))[0], tree(1))


def test_the_state_of_another_network_is_refused(uri: str) -> None:
    store = ShardedStore(uri)
    store.save(tree(), DOCUMENT, step=1)
    store.close()
    with pytest.raises(DataError, match=r"weight .*PaliGemma/llm/w is .*2, 3.*float32"):
        load(ShardedStore(uri), template((3, 3)))
    storage.write_bytes(f"{uri}/latest.json", b'{"step": 1}')
    with pytest.raises(DataError, match="the saved training state is damaged"):
        load(ShardedStore(uri))


def test_a_damaged_state_is_refused(uri: str) -> None:
    store = ShardedStore(uri)
    store.save(tree(), DOCUMENT, step=1)
    store.close()
    name = next(name for name, _ in storage.list_files(uri) if name.endswith("_METADATA") and "CHECK" not in name)
    content = storage.read_bytes(f"{uri}/{name}")
    for change in (content[:-9], None, b"?" * len(content)):
        storage.remove(f"{uri}/{name}") if change is None else storage.write_bytes(f"{uri}/{name}", change)
        with pytest.raises(DataError, match="the saved training state is damaged") as refused:
            load(ShardedStore(uri))
        assert f"delete {uri} to train from the start" in str(refused.value)


def test_where_nothing_may_be_written(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = ShardedStore(str(tmp_path / "file/work"))
    with pytest.raises(UsageError, match="can't be written"):
        store.save(tree(), DOCUMENT, step=1)
    store.close()
