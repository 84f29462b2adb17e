#!/usr/bin/env bash
# Debian packages for building images and for running them: container_packages.sh build|push|base|run|registry ...
# Root on Debian gets them installed; anyone else is told which are missing.
set -euo pipefail

PATH="$PATH:/usr/sbin:/sbin"   # dockerd and runc lie there; not in the PATH of an ordinary user on Debian

missing=()
needs() { command -v "$1" >/dev/null || missing+=("${@:2}"); }
for purpose in "$@"; do
  case "$purpose" in
    # A build needs one builder: docker with buildx that reaches its daemon, or buildah with a runtime.
    build) { docker info && docker buildx version; } >/dev/null 2>&1 || { needs buildah buildah; needs runc runc; } ;;
    push) needs skopeo skopeo ;;   # tells whether the registry has an image already
    base) needs mmdebstrap mmdebstrap; needs buildah buildah; needs runc runc ;;
    run) needs dockerd docker.io; needs buildah buildah; needs runc runc ;;
    registry) needs docker-registry docker-registry; needs skopeo skopeo ;;   # what tests push to
    *) echo "container_packages.sh: unknown purpose $purpose" >&2; exit 64 ;;
  esac
done

[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "missing packages: ${missing[*]}" >&2
  echo "install them first, for example: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
