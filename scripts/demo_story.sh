#!/bin/sh
# Simulate two participants who hear stories, train a small language model, decode, gather. Usage: scripts/demo_story.sh FOLDER
# Variables: SNR (default 1), SEED (0), NPROCS (2), DEMO_SHORT (set: less of everything), BRAINLM_BIN (folder of the commands).
set -eu
folder=${1:?usage: scripts/demo_story.sh FOLDER}
PATH="${BRAINLM_BIN:+$BRAINLM_BIN:}$PATH"
seed=${SEED:-0}
# Matrices are small here: a second thread costs more than it brings.
export OMP_NUM_THREADS=1
if [ -n "${DEMO_SHORT:-}" ]; then
  design="--stories 6 --minutes 1" training="--steps 60"
  settings="model.components=40"
else
  # Six stories to test on: with fewer there is no interval.
  design="--stories 28 --minutes 2" training="" settings=""
fi

rm -rf "$folder"
mkdir -p "$folder"
# Words of the next lines are options: they are split on purpose.
# shellcheck disable=SC2086
brainlm simulate "$folder/bids" --paradigm story --participants 2 --snr "${SNR:-1}" --seed "$seed" $design
# shellcheck disable=SC2086
brainlm make-lm "$folder/bids/derivatives/simulation/corpus.tsv" "$folder/llm" --style continuation --seed "$seed" $training
# shellcheck disable=SC2086
decode() {
  bids_brainlm "$folder/bids" "$folder/out" "$1" -w "$folder/work" --llm "$folder/llm" --offline --recipe brainllm-small \
    --split list --nprocs "${NPROCS:-2}" --random-seed "$seed" \
    --set split.source=derivatives/simulation/stories.tsv $settings
}
decode participant
decode group
echo "report: $(cd "$folder" && pwd)/out/group.html"
