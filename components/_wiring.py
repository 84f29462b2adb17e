"""What several pipelines wire alike: where episodes come from, work in shards, policies that are compared.

Called while a pipeline is traced: each adds its steps to it and returns what the next ones need.
"""

from kfp import dsl

from components._resources import place
from components.check_dataset.component import check_dataset
from components.evaluate_policy.component import evaluate_policy
from components.import_dataset.component import import_dataset
from components.merge_values.component import merge_values
from components.pack_frames.component import pack_frames
from components.plan_shards.component import plan_shards
from components.predict_values.component import predict_values
from components.simulate_episodes.component import simulate_episodes

LOOP_PARALLELISM = 8


def episodes(source_uri, *, seed, policy_uri="", previous_uri="", iteration=1, **run):
    """Record episodes, or take those at an address, and check them; return the task that does."""
    with dsl.If(source_uri == "", name="simulate"):
        simulated = place(simulate_episodes(policy_uri=policy_uri, seed=seed, **run))
    with dsl.Else(name="given"):
        given = place(check_dataset(dataset_uri=source_uri))
    source = dsl.OneOf(simulated.outputs["Output"], given.output)
    return place(import_dataset(source_uri=source, previous_uri=previous_uri, iteration=iteration, **run))


def in_shards(step, output, *, num_shards, **inputs):
    """Run a step once a shard, several at a time; return the list of their ``output``."""
    planned = place(plan_shards(num_shards=num_shards))
    with dsl.ParallelFor(planned.output, parallelism=LOOP_PARALLELISM, name="shards") as shard:
        made = place(step(shard=shard, num_shards=num_shards, **inputs))
    return dsl.Collected(made.outputs[output])


def frames(dataset, consumer, *, after=(), **run):
    """Decode the pictures that a stage will look at, none if it looks at none; return the task that does.

    It comes after those that may make the same cache: side by side both would decode everything.
    """
    return place(pack_frames(dataset=dataset, consumer=consumer, **run)).after(*after)


def values(dataset, checkpoint, pictures, *, num_shards, **run):
    """Predict a dataset's values in shards; return them as one."""
    given = {"dataset": dataset, "checkpoint": checkpoint, "frames": pictures}
    shards = in_shards(predict_values, "values", num_shards=num_shards, **given, **run)
    return place(merge_values(dataset=dataset, shards=shards, **run)).outputs["values"]


def policies(train, dataset, *, baselines, seed, told, **run):
    """Train and evaluate the advantage-conditioned policy and each baseline.

    Returns:
        The task that trains the first, its evaluation, and the evaluations of the baselines.
    """

    def both(variant):
        trained = place(train(dataset=dataset, variant=variant, seed=seed, **told, **run))
        policy = trained.outputs["policy"]
        evaluated = place(evaluate_policy(dataset=dataset, policy=policy, seed=seed, **run))
        return trained, evaluated.outputs["evaluation"]

    trained, evaluation = both("advantage")
    with dsl.ParallelFor(baselines, parallelism=LOOP_PARALLELISM, name="baselines") as variant:
        _, compared = both(variant)
    return trained, evaluation, dsl.Collected(compared)
