"""train_policy with norm statistics: the same step as without them, and one input more."""

from components.train_policy import normalized
from components.train_policy.component import train_policy


def test_it_takes_norm_stats_and_is_otherwise_the_same_step():
    plain, given = (c.component_spec for c in (train_policy, normalized.train_policy))
    assert given.inputs.keys() - plain.inputs.keys() == {"norm_stats"}
    assert given.inputs["norm_stats"].type == "system.NormStats@1.0.0"
    assert {name: given.inputs[name] for name in plain.inputs} == plain.inputs
    assert (given.name, given.outputs) == (plain.name, plain.outputs)
    assert given.implementation.container.image == plain.implementation.container.image
