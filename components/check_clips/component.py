"""Check a clip_reward run before anything is spent."""

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("check_clips"), install_kfp_package=False)
def check_clips(
    output_root: str,
    videos_uri: str,
    source: str,
    annotations_uri: str,
    mode: str,
    preferences_uri: str,
    encoder: str,
    hand_model: str,
    num_pairs: int,
    num_shards: int,
    seed: int,
    stages: dict,
) -> str:
    """Check a run before anything is spent; return the address of the videos, empty to simulate them."""
    from robolift.stages import clips_plan
    from robolift.stages.component import run_check

    return run_check(
        clips_plan.check,
        output_root=output_root,
        videos_uri=videos_uri,
        source=source,
        annotations_uri=annotations_uri,
        mode=mode,
        preferences_uri=preferences_uri,
        encoder=encoder,
        hand_model=hand_model,
        num_pairs=num_pairs,
        num_shards=num_shards,
        seed=seed,
        stages=stages,
    )
