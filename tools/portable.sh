#!/usr/bin/env bash
# Makes build/portable/bundle: the program with the libraries that another distribution may lack, to be copied to a
# machine of the same architecture with glibc 2.36, OpenSSL 3 and GCC 12's C++ library, or later ones.
#
#   tools/portable.sh
#
# The Python side is not in it: it is built where it runs (tools/gpu/run.sh does that).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools/build.sh portable lockstep
bundle=build/portable/bundle
rm -rf "$bundle"
mkdir -p "$bundle/lib"
cp build/portable/lockstep "$bundle/lockstep"
strip "$bundle/lockstep"
# What every distribution has in a form of its own stays out.
ldd build/portable/lockstep | awk '/=> \// { print $3 }' |
  grep -Ev '/(libc|libm|libdl|libpthread|librt|libcrypto|libssl|libstdc\+\+|libgcc_s|ld-linux[^/]*)\.so' |
  xargs -r -I{} cp -L {} "$bundle/lib/"
"$bundle/lockstep" --version
du -sh "$bundle"
