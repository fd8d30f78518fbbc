#!/bin/sh
# Simulate two participants, train a small language model, decode, gather. Usage: scripts/demo.sh FOLDER
# Variables: SNR (default 1), SEED (0), NPROCS (2), DEMO_SHORT (set: less of everything), BRAINLM_BIN (folder of the commands).
set -eu
folder=${1:?usage: scripts/demo.sh FOLDER}
PATH="${BRAINLM_BIN:+$BRAINLM_BIN:}$PATH"
seed=${SEED:-0}
# Matrices are small here: a second thread costs more than it brings.
export OMP_NUM_THREADS=1
if [ -n "${DEMO_SHORT:-}" ]; then
  design="--runs 4 --trials 45 --repeats 2" training="--steps 60" settings="phases.0.epochs=2 phases.1.epochs=2"
else
  design="" training="" settings=""
fi

rm -rf "$folder"
mkdir -p "$folder"
# Words of the next lines are options: they are split on purpose.
# shellcheck disable=SC2086
brainlm simulate "$folder/bids" --participants 2 --snr "${SNR:-1}" --seed "$seed" $design
# shellcheck disable=SC2086
brainlm make-lm "$folder/bids/derivatives/simulation/corpus.tsv" "$folder/llm" --seed "$seed" $training
# shellcheck disable=SC2086
decode() {
  bids_brainlm "$folder/bids" "$folder/out" "$1" -w "$folder/work" --llm "$folder/llm" --offline \
    --texts stimuli/captions.tsv --key-column stim_id --facts derivatives/simulation/stimuli.tsv \
    --split column --recipe cortext-small --nprocs "${NPROCS:-2}" --random-seed "$seed" --set split.source=split $settings
}
decode participant
decode group
brainlm compare "$folder/bids" "$folder/out"
echo "report: $(cd "$folder" && pwd)/out/group.html"
