"""The check for system packages, as an ordinary user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "system_packages.sh"
LDCONFIG = "#!/bin/sh\necho 'libEGL.so.1 (libc6) => /lib/libEGL.so.1'\necho 'libGL.so.1 (libc6) => /lib/libGL.so.1'\n"


@pytest.fixture
def missing(tmp_path):
    """Run the script with only these commands, never as root, and return what it says is missing."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "id").write_text("#!/bin/sh\necho 1000\n")  # root would install the packages
    (bin_ / "id").chmod(0o755)

    def run(python: str, **commands: str) -> set[str]:
        for name, text in commands.items():
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        for name in ("basename", "grep"):
            if not (bin_ / name).exists():
                (bin_ / name).symlink_to(f"/usr/bin/{name}")
        done = subprocess.run(
            ["/bin/bash", str(SCRIPT)],
            env={"PATH": str(bin_), "PYTHON": python},
            capture_output=True,
            text=True,
            check=False,
        )
        _, _, named = done.stderr.partition("missing packages: ")
        return set(named.partition("\n")[0].split())

    return run


@pytest.mark.skipif(not Path("/usr/sbin/ldconfig").exists(), reason="not a Debian system")
def test_libraries_are_found_without_sbin_in_the_path(missing):
    there = subprocess.run(["/usr/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    absent = {
        package for library, package in (("libEGL.so.1", "libegl1"), ("libGL.so.1", "libgl1")) if library not in there
    }
    assert missing(sys.executable) & {"libegl1", "libgl1"} == absent


def test_the_chosen_python_is_the_one_that_is_checked(missing, tmp_path):
    bare = tmp_path / "python3.12"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    assert "python3.12-venv" in missing(str(bare), ldconfig=LDCONFIG)
    assert not any(package.endswith("-venv") for package in missing(sys.executable, ldconfig=LDCONFIG))
