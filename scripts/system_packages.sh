#!/usr/bin/env bash
# MuJoCo renders without a screen through EGL, with Mesa's software driver where there is no GPU.
# With `browser` also what drives the labelling page in tests, and a font whose hands stand in for photographed ones.
set -euo pipefail

PATH="$PATH:/usr/sbin:/sbin"   # where ldconfig lies; not in the PATH of an ordinary user on Debian
python="${PYTHON:-python3.11}"

missing=()
libraries=$(ldconfig -p)   # not piped: grep -q stops at the first hit, and pipefail would count that as a failure
grep -q 'libEGL\.so\.1' <<<"$libraries" || missing+=(libegl1)
grep -q 'libGL\.so\.1' <<<"$libraries" || missing+=(libgl1)
compgen -G '/usr/lib/*/dri/swrast_dri.so' >/dev/null || compgen -G '/usr/lib/*/libgallium*.so' >/dev/null || missing+=(libgl1-mesa-dri)
compgen -G '/usr/lib/*/libEGL_mesa.so*' >/dev/null || missing+=(libegl-mesa0)
"$python" -c 'import venv, ensurepip' 2>/dev/null || missing+=("$(basename "$python")-venv")
if [ "${1:-}" = browser ]; then
  command -v chromium >/dev/null || missing+=(chromium)
  [ -e /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf ] || missing+=(fonts-noto-color-emoji)
fi

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
