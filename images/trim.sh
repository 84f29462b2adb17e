#!/bin/sh
# Take out of an environment what no stage loads: 90 MB of the cpu image. Usage: trim.sh SITE_PACKAGES
#
# Tests and C sources; Arrow's Flight and its second copies of one library; headers (there is no compiler);
# the descriptions of every Amazon service but storage and log-in.
set -eu
cd "$1"

find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
# Not CUDA's and triton's: those compile while they run.
find . \( -path ./nvidia -o -path ./triton \) -prune -o -type f \( -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd' \
  -o -name '*.pyi' -o -name '*.c' -o -name '*.cc' -o -name '*.cpp' -o -name '*.h' \) -exec rm -f {} +
rm -rf pyarrow/include numpy/_core/include torch/include torch/share matplotlib/mpl-data/sample_data
rm -f pyarrow/libarrow_flight.so* pyarrow/_flight.*.so
find . -type f -name '*.a' -delete

# A wheel can't hold a symbolic link, so it holds the library once for each of its names.
for library in pyarrow/libarrow_python.so.[0-9]*.[0-9]*; do
  [ -e "$library" ] || continue
  for name in pyarrow/libarrow_python.so pyarrow/libarrow_python.so.*; do
    [ "$name" = "$library" ] || ! cmp -s "$name" "$library" || ln -sf "$(basename "$library")" "$name"
  done
done

if [ -d botocore/data ]; then
  find botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name s3control ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} +
fi
