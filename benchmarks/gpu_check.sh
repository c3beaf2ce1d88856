#!/usr/bin/env bash
# Builds, tests and benchmarks on a machine with a CUDA device, in one go:
#
#     benchmarks/gpu_check.sh [FOLDER]        results go to FOLDER, outputs/gpu_check by default
#
# PYTHON names the interpreter (python3); packages it lacks are not installed. gsplat is measured beside us where it is installed.
# SANITIZE=1 also runs the tests' small scenes under compute-sanitizer's memcheck and racecheck. Stops at the first step that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-outputs/gpu_check}
mkdir -p "$out"

echo "== build"
"$python" -m pip install --quiet --no-build-isolation --no-deps -e . 2>&1 | tee "$out/build.log"
"$python" -P -c 'import torch; from kinosplat.render import render_backends
missing = render_backends()["native-cuda"]
assert missing is None, missing
print(torch.cuda.get_device_name())'

echo "== test"
"$python" -P -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.log"

echo "== benchmark"
peer=none
if "$python" -P -c 'import gsplat' 2>/dev/null; then peer=gsplat; fi
"$python" benchmarks/rasterizer.py --peer "$peer" --stages --out "$out/rasterizer.json" 2>&1 | tee "$out/rasterizer.log"

if [[ "${SANITIZE:-0}" == 1 ]]; then
  # Every allocation on its own, so that a step beyond its end is seen.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck; do
    echo "== $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" -P -m pytest -q -x --timeout 0 \
      tests/render/test_native_matches_reference.py -k "cuda and gradients and (moving_set or crowded or huge)" 2>&1 |
      tee "$out/$tool.log"
  done
fi
