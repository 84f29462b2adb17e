#!/usr/bin/env bash
# Make a stand-in for python:3.11-slim from Debian's packages, for machines without an image registry.
#
# It holds this machine's CA bundle, so that pip works inside wherever it works here: never push it. The Dockerfiles
# take it as it is, through BASE_IMAGE. Usage: base_image.sh [REFERENCE]
set -euo pipefail

reference="${1:-localhost/robolift-base:3.11-slim}"
suite="${SUITE:-bookworm}"
# An absolute path: buildah reads it again from inside a chroot.
export CONTAINERS_CONF="${CONTAINERS_CONF:-$(cd "$(dirname "$0")" && pwd)/containers.conf}"

if buildah inspect --type image "$reference" >/dev/null 2>&1; then
  echo "$reference is there"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sources=(/etc/apt/sources.list.d/*.sources /etc/apt/sources.list)
for source in "${sources[@]}"; do [ -s "$source" ] && break; done
# What Debian's slim images leave out, is left out here: manuals, translations, package lists; and usrmerge's perl.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3.11,python3-pip,python3-venv,netbase,tzdata,usr-is-merged \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook='chroot "$1" apt-get purge -y -qq usrmerge perl "perl-modules-*" "libperl5*" "lib*-perl" >/dev/null' \
  "$suite" "$work/base.tar" "$source"
cp /etc/ssl/certs/ca-certificates.crt "$work/ca.crt"
cat >"$work/Containerfile" <<'EOF'
FROM scratch
ADD base.tar /
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
RUN rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED \
 && for name in python3 python; do ln -sf /usr/bin/python3.11 "/usr/local/bin/$name"; done \
 && ln -sf /usr/bin/pip3 /usr/local/bin/pip
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
EOF
buildah bud -q --network host -t "$reference" "$work"
echo "made $reference"
