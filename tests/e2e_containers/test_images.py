"""What the built images are: small, without a compiler, without privileges, and able to run what is theirs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import docker
import image_tags
import pytest
from container_images import NAMES, ROOT, image_name

from components._images import STAGE_IMAGES
from robolift.stages import NAMES as STAGES

LIMITS_BYTES = {"cpu": 600e6, "torch": 2e9}
COMPILERS = ("gcc", "cc", "g++", "c++", "clang", "make", "ld", "as")
OWN = {
    "cpu": "import kubernetes, matplotlib.pyplot, jinja2, av",
    "torch": "import torch; from torch.distributed.run import main; torch.ones(2) @ torch.ones(2)",
    "jax": "import jax, optax, mujoco, metaworld; assert float(jax.numpy.ones(3).sum()) == 3",
}
DRAW = """
import mujoco, numpy
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom type="box" size="1 1 1" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
image = renderer.render().astype(int)
assert image.shape == (32, 32, 3)
assert image[16, 16, 0] > 50 > image[16, 16, 1], image[16, 16]
"""

Run = Callable[..., str]


@pytest.fixture
def run(daemon) -> Run:
    """Run a command in an image as a restricted cluster does: no privilege, no network, /tmp alone to write to."""

    def _run(name: str, *command: str, **options: object) -> str:
        output = daemon.client.containers.run(
            image_name(name),
            list(command),
            read_only=True,
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": "exec,mode=1777"},
            remove=True,
            stderr=True,
            **options,
        )
        return output.decode()

    return _run


@pytest.mark.parametrize(("name", "limit"), LIMITS_BYTES.items())
def test_an_image_is_not_larger_than_promised(daemon, name, limit):
    size = daemon.client.images.get(image_name(name)).attrs["Size"]
    assert size < limit, f"{size / 1e6:.0f} MB"


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_what_it_is_and_has_no_entrypoint(daemon, references, name):
    config = daemon.client.images.get(image_name(name)).attrs["Config"]
    assert not config["Entrypoint"]
    assert config["User"] == "10001:0"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"robolift-{name}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    tag = labels["org.opencontainers.image.version"]
    assert references[name].endswith(f":{tag}")
    base = next(arg for arg in (image_tags.DEFAULT_BASE_IMAGE, "localhost/robolift-base:3.11-slim")
                if image_tags.content_tag(name, base_image=arg) == tag)  # fmt: skip
    assert base


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_nobody_special_and_writes_below_its_home_alone(run, name):
    assert run(name, "sh", "-c", "id -u; id -g; echo $HOME; cd; touch here && echo written").split() == [
        "10001",
        "0",
        "/tmp",
        "written",
    ]
    with pytest.raises(docker.errors.ContainerError):
        run(name, "touch", "/opt/venv/there")
    # Not for lack of a read-only root: the files are not its own either.
    assert run(name, "sh", "-c", "test -w /opt/venv || echo refused").strip() == "refused"


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_a_user_that_the_cluster_chose(run, name):
    script = "import robolift.__main__, getpass; print('ready')"
    assert run(name, "python", "-c", script, user="1234560000:0").strip() == "ready"


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_no_compiler(run, name):
    found = run(name, "sh", "-c", f"for c in {' '.join(COMPILERS)}; do command -v $c || true; done")
    assert found.strip() == ""


@pytest.mark.parametrize("name", NAMES)
def test_an_image_imports_what_its_stages_compute_with(run, name):
    assert "Error" not in run(name, "python", "-c", OWN[name])


@pytest.mark.parametrize("name", NAMES)
def test_kfp_s_executor_runs_in_an_image_without_kfp_s_dependencies(run, name):
    script = "import kfp.dsl.executor_main, components._artifacts as a; print(a.EpisodeDataset.schema_title)"
    assert (
        run(name, "python3", "-c", script, environment={"_KFP_RUNTIME": "true"}).split()[-1] == "system.EpisodeDataset"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_describes_itself_in_its_image(run, stage):
    assert run(STAGE_IMAGES[stage], "python", "-m", "robolift", stage, "--describe").startswith(f"{stage}: ")


def test_the_jax_image_draws_without_a_screen_or_a_gpu(run):
    run("jax", "python", "-c", DRAW)
    run("jax", "python", "-c", DRAW, environment={"MUJOCO_GL": "osmesa"})


def test_an_image_that_exists_is_not_built_again(references):
    base = "localhost/robolift-base:3.11-slim"
    if image_tags.content_tag("cpu", base_image=base) != references["cpu"].rpartition(":")[2]:
        pytest.skip("the images stand on another base")
    command = [sys.executable, "scripts/build_images.py", "cpu", "--engine", "buildah", "--base-image", base]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == f"{references['cpu']} is there\n"
