#!/bin/bash
# Submit one job a participant, as an array, and the group job after them. Run it again to go on: what is done is not done again.
#
#   BIDS=/data/bids OUT=/data/derivatives/brainlm WORK=/scratch/$USER/brainlm HF=/data/huggingface \
#   IMAGE=/data/images/bids_brainlm.sif CONFIG=/data/study.toml  submit.sh [FILE]
#
# FILE has one participant a line, with or without sub-; without it, every sub-* folder of BIDS. JOBS (20) run at a time.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export BIDS=${BIDS:?the BIDS folder} OUT=${OUT:?the output folder} IMAGE=${IMAGE:?the image, a .sif file}
export WORK=${WORK:?a folder on scratch that every node sees: an interrupted job may go on elsewhere}
export HF=${HF:?the folder that HF_HOME was when the language model was fetched} CONFIG=${CONFIG:?a TOML file with the settings}
export LIST=$WORK/participants.txt
mkdir -p "$OUT" "$WORK/logs"

if [[ -n ${1:-} ]]; then
  sed -e 's/\r$//' -e 's/^sub-//' -e '/^[[:space:]]*$/d' "$1" >"$LIST"
else
  find "$BIDS" -mindepth 1 -maxdepth 1 -name 'sub-*' \( -type d -o -type l \) | sed 's|.*/sub-||' | sort >"$LIST"
fi
n=$(wc -l <"$LIST")
if ((n == 0)); then
  echo "no participant in ${1:-$BIDS}" >&2
  exit 66
fi

# %A and %a are the numbers of the array and of its task; a job that goes on adds to its log.
array=$(sbatch --parsable --export=ALL --array="1-$n%${JOBS:-20}" --output="$WORK/logs/%A_%a.txt" --open-mode=append \
  "$here/participant.sbatch")
array=${array%%;*}
# afterany: when all have ended, however; group then names who is missing. With afterok it would wait in vain for one that failed.
group=$(sbatch --parsable --export=ALL --dependency="afterany:$array" --output="$WORK/logs/%j_group.txt" "$here/group.sbatch")
echo "$n participant(s) in array $array, then group in ${group%%;*}; logs in $WORK/logs"
