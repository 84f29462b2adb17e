"""Check that something lies at an address before anything is spent on it."""

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("check_address"), install_kfp_package=False)
def check_address(uri: str) -> str:
    """Check that something lies at an address before anything is spent on it; return the address."""
    from robolift.stages.component import run_check
    from robolift.stages.preflight import check_address

    return run_check(check_address, uri)
