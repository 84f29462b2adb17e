#!/usr/bin/env bash
# Builds .venv-oracle: LeRobot's own code, which clashes with the product's versions and is only ever a referee.
# lerobot 0.4.4 reads and writes v3.0; lerobot 0.3.3 with datasets 3.6.0, in .venv-oracle/v21, does v2.1.
# Run from anywhere; every path is relative to the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=.venv-oracle
stamp="$venv/.finished"
wanted=$(sha256sum "$0" | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "oracle environment is ready: $venv"
    exit 0
fi

# torchcodec loads FFmpeg's shared libraries from the system.
if ! ldconfig -p | grep -q 'libavcodec\.so\.'; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y ffmpeg >/dev/null
    else
        echo "FFmpeg's shared libraries are missing; install them first (Debian: apt-get install ffmpeg)" >&2
        exit 1
    fi
fi

python3.11 -m venv --clear "$venv"
install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# --no-deps: their pins ask for an older torch and a hub client of their own; these versions work together.
install torch==2.13.0
install --no-deps torchvision==0.28.0 torchcodec==0.13.0 lerobot==0.4.4
install datasets==4.8.5 huggingface-hub==0.35.3 av==15.1.0 jsonlines 'packaging<26' einops \
    'opencv-python-headless==4.12.*' draccus==0.10.0 gymnasium deepdiff termcolor 'imageio[ffmpeg]' accelerate \
    diffusers==0.35.2 safetensors pynput pyserial
install --no-deps --target "$venv/v21" lerobot==0.3.3 datasets==3.6.0

echo "$wanted" > "$stamp"
echo "oracle environment is ready: $venv"
