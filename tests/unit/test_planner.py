"""The planner: its arithmetic by hand, what it refuses and what it proposes, and that it asks for no library."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from robolift.__main__ import main
from robolift.errors import EXIT_USAGE, UsageError
from robolift.planner import activations, advice, plan, policy
from robolift.planner.network import Network, Product, Weight
from robolift.planner.placement import cut_first_axis
from robolift.planner.stack import Keeps, Lane, Stack
from robolift.policy.pi05 import config as configs

GIB = 1 << 30
TOY_STACK = Stack(
    name="toy",
    depth=2,
    sequences=1,
    lanes=(Lane(tokens=3, width=4, mlp_dim=5),),
    keeps=Keeps(norms=6, inputs=2, hidden=8),
    num_heads=2,
    num_kv_heads=1,
    head_dim=2,
)
TOY = Network(
    preset="toy",
    trainer="jax",
    weights={"w": Weight((10, 10)), "frozen": Weight((4, 5), trained=False, item_bytes=2)},
    compute_bytes=2,
    stream_bytes=2,
    stacks=(TOY_STACK,),
    products=(Product(3, 7, 4),),
    input_bytes=11,
    outer_bytes=13,
    cached=TOY_STACK,
)


def layout(**changes):
    settings = {"devices": 1, "fsdp": 1, "remat": True, "memory_gib": 80, **changes}
    return plan.Layout(**settings)


def test_a_layer_by_hand():
    # Attention 2 (2 + 1) x 2 x 4 = 48, feed-forward 3 x 4 x 5 = 60.
    assert TOY_STACK.layer_weights() == 108
    assert TOY_STACK.product_flops() == 2 * 2 * 3 * 108
    # Two heads and nine pairs, 2 x 2 x 2 for each, in two layers.
    assert TOY_STACK.attention_flops() == 2 * 18 * 8
    # Norms 24 x 12, feed-forward 2 (2 x 12 + 8 x 15), heads 2 x 6 x 2 x 3, attention 6 x 18.
    assert activations.layer_bytes(TOY_STACK, 2) == 288 + 288 + 72 + 108
    # Two float32 tensors of 18 pairs are more than two bfloat16 ones of 3 x 5.
    assert activations.gradient_bytes(TOY_STACK, 2) == 144


def test_conditioned_and_adapted_lanes_by_hand():
    conditioned = Stack(
        name="two",
        depth=1,
        sequences=1,
        lanes=(Lane(tokens=3, width=4, mlp_dim=5, lora_rank=2), Lane(tokens=1, width=2, mlp_dim=3, conditioned=True)),
        keeps=Keeps(norms=6, inputs=2, hidden=8),
        num_heads=2,
        num_kv_heads=1,
        head_dim=2,
    )
    # Rank 2: 6 pairs of (4 + 2), 3 of (4 + 5). The other: attention 24, feed-forward 18, two norms of 2 x 6.
    assert conditioned.layer_weights() == (108 + 2 * (36 + 27)) + (24 + 18 + 24)
    assert conditioned.product_flops() == 2 * (3 * (108 + 126) + 66)
    assert conditioned.product_flops(trained_only=True) == 2 * (3 * 126 + 66)


def test_memory_of_a_toy_by_hand():
    memory = plan.memory(TOY, layout(), rows=3)
    assert (memory.parameters, memory.gradients, memory.moments, memory.average) == (400, 400, 800, 400)
    assert memory.frozen == 40
    assert memory.layer == 108 * 6
    assert memory.inputs == 2 * 3 * 11
    assert memory.kept == 3 * (2 * 2 * 12 + 13)
    assert memory.working == 3 * (756 + 144)
    assert memory.copies == memory.exchange == 0
    assert memory.total == 400 + 400 + 800 + 400 + 40 + 648 + 66 + 183 + 2700
    without = plan.memory(TOY, layout(remat=False), rows=3)
    assert (without.kept, without.working, without.copies) == (3 * (2 * 756 + 13), 3 * 144, 2 * 2 * 108)
    assert plan.memory(TOY, layout(best=True), rows=3).total - memory.total == 400


def test_what_no_gradient_passes_through_keeps_nothing_and_costs_its_forward_pass():
    still = replace(TOY, stacks=(replace(TOY_STACK, name="still", has_gradient=False), TOY_STACK))
    for remat in (True, False):
        assert activations.kept_bytes(still, remat=remat) == activations.kept_bytes(TOY, remat=remat)
        once, alone = plan.flops(still, remat=remat), plan.flops(TOY, remat=remat)
        assert once.model - alone.model == once.executed - alone.executed == 1296 + 288
    frozen = replace(TOY, stacks=(replace(TOY_STACK, lanes=(replace(TOY_STACK.lanes[0], frozen=True),)),))
    assert plan.flops(TOY, remat=False).model - plan.flops(frozen, remat=False).model == 1296


def test_rows_in_parts_take_the_memory_of_a_part():
    network = policy.network(configs.pi05())
    whole, parts = (layout(devices=8, fsdp=8, accumulate=n) for n in (1, 4))
    most = plan.most_batch(network, whole)
    assert plan.most_batch(network, parts) == 4 * most
    assert plan.fits(network, parts, 4 * most)
    assert not plan.fits(network, parts, 4 * most - 8)


def test_flops_and_time_of_a_toy_by_hand():
    outside, products, attention = 2 * 3 * 7 * 4, 1296, 288
    counted = plan.flops(TOY, remat=True)
    assert counted.forward == outside + products + attention
    assert counted.model == 3 * counted.forward
    # The last product of each of two layers, 3 x 5 x 4, is not needed again.
    assert counted.executed == counted.model + products + attention - 2 * 2 * 60
    assert plan.flops(TOY, remat=False).executed == counted.model
    # 8 rows on 2 GPUs that reach half of a TFLOP/s.
    seconds = plan.step_seconds(TOY, layout(devices=2), 8, tflops=1.0, mfu=0.5)
    assert seconds == pytest.approx(8 * counted.model / 1e12)


def test_the_largest_batch_fills_the_gpu_and_one_more_does_not_fit():
    network = policy.network(configs.pi05())
    for chosen in (layout(devices=8, fsdp=8), layout(devices=8), layout(devices=16, fsdp=8, memory_gib=40)):
        most = plan.most_rows(network, chosen)
        assert plan.memory(network, chosen, rows=most).total <= chosen.memory_gib * 0.9 * GIB
        assert plan.memory(network, chosen, rows=most + 1).total > chosen.memory_gib * 0.9 * GIB
        assert plan.fits(network, chosen, chosen.devices * most)
        assert not plan.fits(network, chosen, chosen.devices * (most + 1))
        assert not plan.fits(network, chosen, chosen.devices * most - 1)


def test_pi05_held_whole_takes_67_gb():
    """What is measured of openpi, over 70 GB with activations: five float32 numbers for each weight."""
    memory = plan.memory(policy.network(configs.pi05()), layout(), rows=0)
    held = memory.parameters + memory.gradients + memory.moments + memory.average
    assert held == 20 * 3_353_433_872
    assert held == pytest.approx(67e9, rel=0.01)


def test_low_rank_updates_fit_a_gpu_of_24_gib_and_the_whole_does_not_fit_one_of_48():
    assert plan.most_batch(policy.network(configs.pi05_lora()), layout(memory_gib=24)) > 0
    assert plan.most_batch(policy.network(configs.pi05()), layout(memory_gib=48)) == 0


def test_torch_cuts_the_first_axis_and_rounds_up():
    assert cut_first_axis((10, 3), 4, 4) == 9
    assert cut_first_axis((3,), 4, 8) == 1
    assert cut_first_axis((), 4, 8) == 1


def proposed(network, chosen, batch, adapted=None, gpus=8):
    return advice.proposals(network, chosen, batch, adapted, gpus=gpus)


def test_every_proposal_fits():
    network, adapted = (policy.network(configs.PRESETS[name]()) for name in ("pi05", "pi05_lora"))
    chosen = layout(devices=8)
    assert not plan.fits(network, chosen, 256)
    found = proposed(network, chosen, 256, adapted)
    assert any(text.startswith("--preset pi05_lora") for text in found)
    for text in found:
        options = dict(zip(text.split()[::2], text.split()[1::2], strict=True))
        devices = 8 * int(options.get("--nodes", 1))
        changed = layout(devices=devices, fsdp=int(options.get("--fsdp", 1)))
        of = adapted if "--preset" in options else network
        assert plan.fits(of, changed, int(options.get("--batch-size", 256))), text


def test_where_nothing_helps_nothing_is_proposed():
    assert proposed(policy.network(configs.pi05()), layout(memory_gib=0.5), 1, gpus=1) == []


@pytest.fixture
def planned(capsys):
    def run(*options):
        code = main(["plan", *options])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_a_plan_as_a_table(planned):
    code, out, err = planned("--preset", "pi05", "--gpus", "8", "--batch-size", "256")
    assert (code, err) == (0, "")
    assert out.startswith("pi05 (jax): 3.35 billion weights\n")
    assert "8 GPUs, one copy of large weights on 8; batch 256, 32 rows on each; remat on" in out
    for line in ("parameters, float32", "gradients", "Adam", "moving average", "kept, without", "keys and values"):
        assert line in out
    assert "largest batch that fits: " in out
    assert re.search(r"saving, in the memory of all hosts .*\n  copy of the state while it is written +49\.9", out)


def test_a_plan_as_json_adds_up(planned):
    code, out, _ = planned(
        "--preset", "pi05", "--gpus", "8", "--json", "--steps", "10", "--tflops", "989", "--mfu", "0.4"
    )
    found = json.loads(out)
    parts = {name: size for name, size in found["memory_bytes"].items() if name not in ("total", "usable", "attention")}
    assert code == 0
    assert sum(parts.values()) == found["memory_bytes"]["total"] <= found["memory_bytes"]["usable"]
    assert found["batch_size"] == found["largest_batch_size"]
    assert found["fits"] is True
    assert found["state_bytes"] == 16 * found["trained_weights"]
    assert found["run_s"] == pytest.approx(10 * found["step_s"])


def test_what_cannot_fit_is_refused_with_what_would(planned):
    code, out, err = planned("--preset", "pi05", "--gpus", "8", "--fsdp", "1", "--batch-size", "256")
    assert code == EXIT_USAGE
    assert "sum" in out  # the table says where the memory goes
    assert "pi05 with a batch of 256 does not fit: each of 8 GPUs needs" in err
    assert "--fsdp 2" in err
    assert "--batch-size 128" in err


def test_one_gpu_of_24_gib_is_pointed_to_low_rank_updates(planned):
    code, _, err = planned("--preset", "pi05", "--gpu-memory-gib", "24")
    assert code == EXIT_USAGE
    assert "--preset pi05_lora --batch-size 1" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "tiny"], "--preset tiny: no policy of this size can be planned; there are: pi05, pi05_lora"),
        (["--preset", "pi05", "--gpus", "0"], "--gpus is 0; expected at least 1"),
        (["--preset", "pi05", "--gpus", "8", "--fsdp", "3"], "--fsdp 3 does not divide the 8 GPUs of the job"),
        (["--preset", "pi05", "--gpus", "8", "--batch-size", "12"], "--batch-size 12 cannot be shared by 8 GPUs"),
        (["--preset", "pi05", "--gpu-memory-gib", "-1"], "memory_gib is -1.0; expected a number above 0"),
        (["--preset", "pi05", "--gpu-memory-gib", "nan"], "memory_gib is nan; expected a number above 0"),
        (["--preset", "pi05", "--gpu-memory-gib", "inf"], "memory_gib is inf; expected a number above 0"),
        (["--preset", "pi05", "--steps", "1", "--tflops", "nan", "--mfu", "1"], "--tflops nan --mfu 1: expected"),
        (["--preset", "pi05", "--steps", "1", "--tflops", "inf", "--mfu", "1"], "--tflops inf --mfu 1: expected"),
        (["--preset", "pi05", "--steps", "1", "--tflops", "9", "--mfu", "nan"], "--tflops 9 --mfu nan: expected"),
        (["--preset", "pi05", "--remat", "off"], "--remat is for --model value; a policy sees its preset's cameras"),
        (["--preset", "pi05", "--accumulate", "2"], "--accumulate is for --model value"),
        (["--preset", "pi05", "--model", "value", "--accumulate", "0"], "--accumulate is 0; expected at least 1"),
        (
            ["--preset", "pi05", "--model", "value", "--accumulate", "4", "--batch-size", "6"],
            "--batch-size 6 cannot be shared by 1 GPUs in 4 parts each; expected a multiple of 4",
        ),
        (["--preset", "pi05", "--tflops", "989"], "a time needs --steps, --tflops and --mfu together"),
        (["--preset", "dummy", "--steps", "1", "--tflops", "9", "--mfu", "1.5"], "mfu at most 1"),
    ],
)
def test_wrong_options_are_refused(planned, options, said):
    code, out, err = planned(*options)
    assert (code, out) == (EXIT_USAGE, "")
    assert said in err


def test_a_layout_whose_copies_do_not_divide_is_refused():
    with pytest.raises(UsageError, match="--fsdp 3 does not divide the 8 GPUs"):
        layout(devices=8, fsdp=3)


def test_planning_imports_no_library_that_computes_with_models():
    program = (
        "import sys; from robolift.__main__ import main; main(['plan', '--preset', 'pi05', '--gpus', '8']);"
        "print(sorted({'jax', 'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
