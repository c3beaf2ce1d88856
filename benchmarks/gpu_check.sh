#!/usr/bin/env bash
# Builds, tests and benchmarks on a machine with a CUDA device, in one go:
#
#     benchmarks/gpu_check.sh [FOLDER]        results go to FOLDER, outputs/gpu_check by default
#
# PYTHON names the interpreter (python3); packages it lacks are not installed. gsplat and nerfacc are measured beside us where they are
# installed. Training is measured on the scenes of $KINOSPLAT_DATA that are there.
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

# The peers compile themselves when they are first used: before anything is timed.
peer=none
if "$python" -P -c 'from gsplat.cuda._backend import _C; assert _C' 2>/dev/null; then peer=gsplat; fi
field_peer=none
if "$python" -P -c 'from nerfacc.cuda._backend import _C; assert _C' 2>/dev/null; then field_peer=nerfacc; fi

measure() {
  echo "== $1"
  "$python" "${@:2}" 2>&1 | tee "$out/$1.log"
}
measure field benchmarks/field.py --device cuda --peer "$field_peer"
measure field_mlp benchmarks/field_mlp.py --device cuda
measure field_draw benchmarks/field_draw.py --device cuda
measure viewer_agreement benchmarks/viewer.py --agreement
measure viewer benchmarks/viewer.py --n-gaussians 1000000 --resolution 1280 720

# Runs to their end; the rasterizer is measured on those of Gaussians. One that is complete in FOLDER is not trained again.
trained=()
train() {
  [[ -f "$out/runs/$1/report.json" ]] && return
  measure "train_$1" -P -m kinosplat train --run-dir "$out/runs/$1" --overwrite --display plain "${@:2}"
}
has_scene() { [[ -d "${KINOSPLAT_DATA:-/nowhere}/$1" ]]; }
if has_scene panoptic_basketball; then
  train panoptic --scene panoptic_basketball --method 4dgs --steps 30000 --max-gaussians 400000 --sh-degree 1
  trained+=("$out/runs/panoptic")
fi
if has_scene dtu_scan24; then
  train dtu --scene dtu_scan24 --resolution 800 600 --method 3dgs --steps 5000 --max-gaussians 300000
  trained+=("$out/runs/dtu")
fi
if has_scene object; then
  for method in hashgrid hollownerf; do
    train "object_$method" --scene object --method "$method" --time-limit 60
  done
  measure hollow benchmarks/hollow.py --scene object --steps 5000 --variants hashgrid:19 hollownerf:17 hollownerf:19
fi
if has_scene fox; then
  train fox_hashgrid --scene fox --resolution 540 960 --method hashgrid
fi
measure rasterizer benchmarks/rasterizer.py --peer "$peer" --stages --out "$out/rasterizer.json" \
  ${trained[@]:+--trained "${trained[@]}"}
for scene in dtu_scan24 fox; do
  has_scene "$scene" || continue
  resolution=(800 600)
  if [[ $scene == fox ]]; then resolution=(540 960); fi
  measure "training_$scene" benchmarks/training.py --scene "$scene" --resolution "${resolution[@]}" --steps 2500 \
    --max-gaussians 300000 --peer "$peer" --out "$out/training_$scene.json"
done
if has_scene dtu_scan24; then
  measure viewer_training benchmarks/viewer_training.py --scene dtu_scan24 --method 3dgs --windows 4 --seconds 3
  measure field_training benchmarks/field_training.py --scene dtu_scan24 --resolution 800 600
fi
if has_scene panoptic_basketball; then
  measure training_step benchmarks/training_step.py --scene panoptic_basketball --method 4dgs --gaussians 400000 --frames 0 10 \
    --warm-up 300 --steps 700 --peer "$peer"
fi

if [[ "${SANITIZE:-0}" == 1 ]]; then
  # Every allocation on its own, so that a step beyond its end is seen.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck; do
    echo "== $tool"
    sanitize() {
      compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" -P -m pytest -q -x --timeout 0 "$@" 2>&1 |
        tee -a "$out/$tool.log"
    }
    : >"$out/$tool.log"
    sanitize tests/render/test_native_matches_reference.py -k "cuda and gradients and (moving_set or crowded or huge)"
    sanitize tests/gpu/test_mcmc.py tests/gpu/test_exposure.py tests/gpu/test_target.py
    # The small ones of the rest: under these tools a kernel takes up to a thousand times as long.
    sanitize tests/gpu/test_frames.py -k "17-1 or 1-300 or nothing_visible or with_nan or number_of_features"
    sanitize tests/gpu/test_loss_and_adam.py -k "1-1 or 7-5 or hides_everything or broken_gradients"
    sanitize tests/gpu/test_field.py -k "no_samples or no_rays or decays_rises or directions"
    sanitize tests/gpu/test_field_step.py -k "find_no_room or stay_as_on_the_cpu"
    sanitize tests/gpu/test_fused_field.py -k "empty_space or bytes_are"
    sanitize tests/gpu/test_mlp.py -k "can_be_left_out or no_number or is_named"
  done
fi
