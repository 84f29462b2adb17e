#!/usr/bin/env bash
# MuJoCo renders without a screen through EGL, with Mesa's software driver where there is no GPU.
set -euo pipefail

missing=()
ldconfig -p | grep -q 'libEGL\.so\.1' || missing+=(libegl1)
ldconfig -p | grep -q 'libGL\.so\.1' || missing+=(libgl1)
compgen -G '/usr/lib/*/dri/swrast_dri.so' >/dev/null || compgen -G '/usr/lib/*/libgallium*.so' >/dev/null || missing+=(libgl1-mesa-dri)
compgen -G '/usr/lib/*/libEGL_mesa.so*' >/dev/null || missing+=(libegl-mesa0)
python3.11 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3.11-venv)

[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "missing packages: ${missing[*]}" >&2
  echo "install them first, for example: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
