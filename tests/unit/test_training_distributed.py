from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import torch

from robolift.errors import DataError, UsageError
from robolift.training import distributed
from robolift.training.distributed import (
    TrainingStoppedError,
    World,
    by_machines,
    launched_world,
    publishes,
    torchrun_settings,
)


def test_torchrun_decides_who_a_process_is():
    environ = {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "2",
        "PET_NNODES": "4",
    }
    assert launched_world(environ) == World(rank=5, size=8, local_rank=1, node=2)
    assert not publishes(environ)
    assert publishes({**environ, "RANK": "0"})


def test_a_job_without_torchrun_has_one_process_a_machine():
    environ = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "job-master-0"}
    assert launched_world(environ) == World(rank=3, size=4, local_rank=0, node=3)
    assert not publishes(environ)


def test_a_pod_that_has_yet_to_start_torchrun_is_nobody_but_knows_whether_it_publishes():
    environ = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "m"}
    assert launched_world(environ) is None
    assert not publishes(environ)
    assert publishes({**environ, "PET_NODE_RANK": "0"})
    assert launched_world({}) is None
    assert publishes({})


KAI0 = {"WORLD_SIZE": "4", "RANK": "3", "NPROC_PER_NODE": "8", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "29400"}


def test_kai0_s_variables_count_machines_and_become_torchrun_s():
    assert torchrun_settings(KAI0) == {
        "PET_NNODES": "4",
        "PET_NODE_RANK": "3",
        "PET_NPROC_PER_NODE": "8",
        "PET_MASTER_ADDR": "10.0.0.7",
        "PET_MASTER_PORT": "29400",
    }
    assert by_machines(KAI0)
    assert launched_world(KAI0) is None  # not process 3 of 4
    assert not publishes(KAI0)
    assert publishes({**KAI0, "RANK": "0"})


def test_kai0_s_defaults_are_one_machine_and_port_12345():
    assert torchrun_settings({"NPROC_PER_NODE": "8"}) == {
        "PET_NNODES": "1",
        "PET_NODE_RANK": "0",
        "PET_NPROC_PER_NODE": "8",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": "12345",
    }


def test_torchrun_s_own_variables_win_and_without_processes_a_machine_nothing_is_translated():
    for winner in ({"TORCHELASTIC_RUN_ID": "x"}, {"PET_NNODES": "2"}):
        assert torchrun_settings({**KAI0, **winner}) == {}
    inside = {**KAI0, "TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "32", "LOCAL_RANK": "5", "GROUP_RANK": "0"}
    assert launched_world(inside) == World(rank=5, size=32, local_rank=5, node=0)
    assert not by_machines(inside)
    by_operator = {name: value for name, value in KAI0.items() if name != "NPROC_PER_NODE"}
    assert torchrun_settings(by_operator) == {}
    assert launched_world(by_operator) == World(rank=3, size=4, local_rank=0, node=3)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"RANK": "4"}, "RANK=4 of WORLD_SIZE=4"),
        ({"NPROC_PER_NODE": "0"}, "at least one process"),
        ({"NPROC_PER_NODE": "auto"}, "NPROC_PER_NODE is 'auto'"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is ''"),
        ({"RANK": "-1"}, "RANK is '-1'"),
    ],
)
def test_variables_that_make_no_sense_are_named(wrong, text):
    with pytest.raises(UsageError, match=text):
        torchrun_settings({**KAI0, **wrong})


def test_alone_nothing_is_exchanged():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    assert distributed.average_gradients([parameter], World(), stop=True)
    assert parameter.grad.tolist() == [1, 1]
    assert distributed.share(World(), 5) == 5
    assert distributed.collect(World(), 5) == [5]
    assert distributed.sum_over(World(), torch.ones(1)).item() == 1


WORKER = """
    import json, os, sys
    from pathlib import Path
    import torch
    from robolift.errors import DataError
    from robolift.training import distributed

    distributed.die_with_parent()
    what, folder = sys.argv[1], Path(sys.argv[2])
    with distributed.reporting_errors():
        world = distributed.launched_world()
        with distributed.connected(world, torch.device("cpu")):
            if what == "exchange":
                a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1, 2))
                a.grad, b.grad = torch.full((2,), float(world.rank)), torch.tensor([[1.0, float(world.rank) * 10]])
                stop = distributed.average_gradients([a, b], world, stop=world.rank == 1)
                calm = distributed.average_gradients([a, b], world, stop=False)
                found = [a.grad.tolist(), b.grad.tolist(), bool(stop), bool(calm),
                         distributed.share(world, world.rank + 7), distributed.collect(world, world.rank),
                         distributed.sum_over(world, torch.ones(2)).tolist()]
                (folder / f"rank-{world.rank}").write_text(json.dumps(found))
            if world.rank == 1:
                if what == "lost":
                    os._exit(9)
                raise DataError("bad row", where="x")
            distributed.collect(world, None)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "dot_worker.py").write_text(textwrap.dedent(WORKER))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    for name in ("RANK", "WORLD_SIZE", "PET_NNODES", "NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)

    def launch(what):
        error_file = tmp_path / "error.json"
        distributed.launch("dot_worker", [what, str(tmp_path)], num_processes=2, error_file=error_file)

    return launch


def test_processes_exchange_what_they_should_and_an_error_is_raised_where_they_were_launched(worker, tmp_path):
    with pytest.raises(DataError, match=r"^bad row\n  where: x$"):
        worker("exchange")
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank-{rank}").read_text())
        assert found == [[0.5, 0.5], [[1.0, 5.0]], True, False, 7, [0, 1], [2.0, 2.0]]


def test_a_lost_process_ends_the_others_and_says_what_to_do(worker):
    with pytest.raises(TrainingStoppedError, match="run again to resume"):
        worker("lost")


def test_errors_keep_their_kind_across_processes(tmp_path):
    path = tmp_path / "error.json"
    for code, kind in ((64, UsageError), (65, DataError), (143, TrainingStoppedError), (None, RuntimeError)):
        path.write_text(json.dumps({"exit_code": code, "text": "why"}))
        assert type(distributed._failure(path, 1)) is kind


def test_only_the_first_error_is_reported_and_a_lost_peer_never(tmp_path, monkeypatch):
    target = tmp_path / "error.json"
    monkeypatch.setenv(distributed.ERROR_FILE_VARIABLE, str(target))
    for error in (
        RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"),
        UsageError("first"),
        DataError("second"),
    ):
        with pytest.raises(type(error)), distributed.reporting_errors():
            raise error
    assert json.loads(target.read_text()) == {"exit_code": 64, "text": "first"}
    assert [p.name for p in tmp_path.iterdir()] == ["error.json"]
