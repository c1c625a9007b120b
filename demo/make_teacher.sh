#!/usr/bin/env bash
# How teacher.safetensors was made: BCCD is the folder of https://github.com/Shenggan/BCCD_Dataset (commit d272fb1).
# Ten to twenty minutes on two cores. Nothing of the test list is trained on, and a tenth of trainval chooses the epoch.
set -euo pipefail
bccd=${1:?give the BCCD folder} run=${2:?give a folder for the run}
here=$(cd "$(dirname "$0")" && pwd)
distill train --run "$run" --model yolov2 --width 0.1875 --input-size 416 --anchors kmeans \
  --images "$bccd/JPEGImages" --annotations "$bccd/Annotations" \
  --train-list "$bccd/ImageSets/Main/trainval.txt" --test-list "$bccd/ImageSets/Main/test.txt" \
  --epochs 60 --batch-size 8 --learning-rate 4e-3 --clip-norm 100 --ema 0.998
python "$here/halve.py" "$run/best.safetensors" "$here/teacher.safetensors"
