"""Check that a dataset given by address can be read before anything is spent on it."""

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("check_dataset"), install_kfp_package=False)
def check_dataset(dataset_uri: str) -> str:
    """Check that a dataset given by address can be read before anything is spent on it; return the address."""
    from robolift.stages.component import run_check
    from robolift.stages.preflight import check_source

    return run_check(check_source, dataset_uri)
