"""What pip is told here reaches the build of an image, as far as it can hold inside a container."""

import sys

import pip_settings
import pytest


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Let pip read one file and nothing of this machine."""
    path = tmp_path / "pip.conf"
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    assert sys.executable  # pip is asked as a module of this interpreter
    return path


def test_indexes_are_handed_over_and_local_folders_are_not(config):
    config.write_text(
        "[global]\nindex-url = https://me:secret@mirror.example.org/simple\n"
        "extra-index-url =\n    file:///srv/simple\n    https://extra.example.org/simple\n"
        "find-links = /srv/wheels\ntrusted-host = mirror.example.org\ncolor = false\n"
    )
    assert pip_settings.to_pip_conf(pip_settings.read()).splitlines() == [
        "[global]",
        "extra-index-url = https://extra.example.org/simple",
        "index-url = https://me:secret@mirror.example.org/simple",
        "trusted-host = mirror.example.org",
    ]


def test_the_environment_wins_over_the_file(config, monkeypatch):
    config.write_text("[global]\nindex-url = https://file.example.org/simple\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment.example.org/simple")
    assert pip_settings.read() == {"index-url": "https://environment.example.org/simple"}


def test_without_settings_nothing_is_handed_over(config):
    config.write_text("")
    assert pip_settings.read() == {}
    assert pip_settings.to_pip_conf({}) == ""
    assert pip_settings.to_pip_conf({"find-links": "/srv/wheels"}) == ""


def test_wheels_of_a_local_folder_go_along_when_the_lock_pins_their_version(tmp_path):
    folder, context = tmp_path / "wheels", tmp_path / "context"
    folder.mkdir()
    context.mkdir()
    for name in ("torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "torch-2.12.0-cp311-cp311-linux_x86_64.whl",
                 "proto_plus-1.29.0-py3-none-any.whl", "numpy-2.4.6-cp311-cp311-linux_x86_64.whl"):  # fmt: skip
        (folder / name).write_bytes(name.encode())
    lock = tmp_path / "requirements.txt"
    lock.write_text("proto-plus==1.29.0\ntorch==2.13.0\n")
    wheels = pip_settings.local_wheels({"find-links": f"https://example.org/wheels file://{folder}"}, lock)
    assert [wheel.name for wheel in wheels] == [
        "proto_plus-1.29.0-py3-none-any.whl",
        "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl",
    ]
    (context / "left-1.0-py3-none-any.whl").write_bytes(b"")
    pip_settings.lay_out(wheels, context)
    assert sorted(path.name for path in context.iterdir()) == [wheel.name for wheel in wheels]
    pip_settings.lay_out([], context)
    assert list(context.iterdir()) == []
