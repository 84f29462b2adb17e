"""Stages: one module each, found by name; see :mod:`robolift.stages.stage` for what a stage module holds."""

NAMES = (
    "simulate_episodes",
    "import_replay_buffer",
    "import_dataset",
    "label_returns",
    "train_value",
    "predict_values",
    "merge_values",
    "plan_labels",
    "annotate_rewards",
    "collect_rewards",
    "import_reviews",
    "import_rewards",
    "label_quality",
    "merge_rewards",
    "label_advantage",
    "export_dataset",
    "compute_norm_stats",
    "train_policy",
    "evaluate_policy",
    "write_report",
)
