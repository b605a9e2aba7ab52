#!/usr/bin/env bash
# Check a GPU box in one command, with interpreters that are installed already and no network: docs/gpu-check.md.
# shellcheck disable=SC2317 # functions that a trap or another shell calls seem unreachable
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/gpu_check.sh [OPTION]... [FOLDER]

Run every check of a GPU box, and write all that they say to FOLDER, which is to be brought back.
[default: gpu-check-DATE-TIME in the current folder]

  --python BACKEND=PATH  Interpreter of a backend's own environment; repeat for several.
  --backend NAME         Backend to check; repeat for several. [default: tensorflow, torch, jax]
  --device gpu|cpu       Where to check; the CPU is for a rehearsal. [default: gpu]
  --gpu N                Number of the GPU, of those that are visible. [default: the first]
  --minutes N            Time for all parts together. [default: 9]
  --harness PATH         Interpreter of the harness. [default: $SAMEWORK_PYTHON, else python3]
  --help                 Show this and exit.

Exit status: 0 all parts ran; 1 a measured failure, such as parity lost; 2 wrong usage; 3 a part could not be
done, or a package that the harness needs is missing; 130 interrupted.
END
}

refuse() {
    echo "gpu_check: $1 (--help)" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
harness=${SAMEWORK_PYTHON:-python3} device=gpu minutes=9 folder=
backends=() named=() pythons=() interpreters=() gpu=()
while (($# > 0)); do
    case $1 in
        --help | -h) usage && exit ;;
        --python | --backend | --device | --gpu | --minutes | --harness)
            (($# > 1)) || refuse "$1 needs a value"
            case $1 in
                --python) pythons+=(--python "$2") interpreters+=("${2#*=}") ;;
                --backend) backends+=("$2") named+=(--backend "$2") ;;
                --device) device=$2 ;;
                --gpu) gpu=(--gpu "$2") ;;
                --minutes) minutes=$2 ;;
                --harness) harness=$2 ;;
            esac
            shift
            ;;
        -*) refuse "there is no option '$1'" ;;
        *)
            [[ -z $folder ]] || refuse "one FOLDER is enough, '$folder' or '$1'"
            folder=$1
            ;;
    esac
    shift
done
[[ $device == [gc]pu ]] || refuse "--device is gpu or cpu, not '$device'"
((!${#gpu[@]})) || [[ ${gpu[1]} =~ ^[0-9]{1,3}$ && $device == gpu ]] ||
    refuse "--gpu is the number of a GPU, not '${gpu[1]}', and goes with --device gpu"
[[ $minutes =~ ^[0-9]{1,4}(\.[0-9]+)?$ ]] || refuse "--minutes is a number, not '$minutes'"
command -v "$harness" >/dev/null || refuse "there is no interpreter '$harness' for the harness"
tensorflow=$harness
for pair in "${pythons[@]}"; do
    [[ $pair == --python || ($pair == ?*=* && -x ${pair#*=}) ]] || refuse "--python '$pair' is no BACKEND=PATH"
    [[ $pair != tensorflow=* ]] || tensorflow=${pair#*=}
done
((${#backends[@]})) || backends=(tensorflow torch jax)
folder=${folder:-gpu-check-$(date +%Y%m%d-%H%M%S)}
[[ -z $(ls -A "$folder" 2>/dev/null) ]] || refuse "$folder is not empty; name another folder"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

total=$(awk "BEGIN {print int($minutes * 60)}")
least=$((total < 540 ? total / 27 + 1 : 20)) # a part that gets fewer seconds tells nothing; 0 are no limit
SECONDS=0 child='' failed=0 undone=0 summary=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$harness" "$root/scripts/make_findable.py" "$scratch" || exit 3
export PYTHONPATH=$root:$scratch${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
bench=("$harness" -P -m bench)

left() { echo $((total > SECONDS ? total - SECONDS : 0)); }
say() { printf '[%d:%02d left] %s\n' $(($(left) / 60)) $(($(left) % 60)) "$1"; }

# part NAME LIMIT COMMAND...: run it for at most LIMIT seconds, or what is left. Whatever it does, others follow.
part() {
    local name=$1 limit=$2 began=$SECONDS told=$SECONDS status=0 said last output=$folder/$1.txt log=$folder/$1.log
    shift 2
    ((limit < $(left))) || limit=$(left)
    if ((limit < least)); then
        said='skipped, no time left' undone=1
    else
        say "$name: begins, and has $limit s"
        [[ $name != verify-* ]] || output=$folder/$name.jsonl
        # In the background, so that a signal ends it at once and the summary is written all the same.
        timeout -k 10 "$limit" "$@" >"$output" 2>"$log" </dev/null &
        child=$!
        while kill -0 "$child" 2>/dev/null; do
            sleep 0.1 || true # which Ctrl-C ends
            ((SECONDS - told < 15)) && continue
            told=$SECONDS last=$(tail -qn 1 "$log" "$output" | tail -n 1 | cut -c1-90)
            say "$name: $((SECONDS - began)) of $limit s${last:+; $last}"
        done
        wait "$child" || status=$?
        case $status in
            0) said=ok ;;
            124 | 137) said="stopped after its $limit s" undone=1 ;;
            *) said="incomplete, status $status" undone=1 ;;
        esac
        # Of these alone, as an interpreter that fails to start ends with 1 too.
        if [[ $status == 1 && ($name == run || $name == verify-* || $name == tensorflow-placement) && -s $output ]]; then
            said='FAILED, see its output' failed=1
        fi
    fi
    say "$name: $said"
    [[ $said == ok || ! -s $log ]] || tail -n 2 "$log"
    summary+=("$(printf '%-26s%-32s%5d s' "$name" "$said" $((SECONDS - began)))")
}

finish() {
    printf '%s\n' "${summary[@]}" "$2" | tee "$folder/summary.txt"
    echo "Bring back: $folder"
    exit "$1"
}

stop() {
    trap '' INT TERM
    # More than once: a process that is just being started may miss the first signal.
    while [[ -n $(jobs -rp) ]]; do
        jobs -rp | xargs --no-run-if-empty kill 2>/dev/null || true
        sleep 0.1
    done
    wait || true
    finish 130 'Interrupted: the parts above are all that was done.'
}
trap stop INT TERM

facts() { # What a box lacks is told in the log, and is no failure.
    unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE # which would lead to another repository
    git -C "$1" log -1 --format='commit %H' && git -C "$1" status --short --untracked-files=no
    date -u && uname -srm && grep -m 1 'model name' /proc/cpuinfo && nproc && free -m
    nvidia-smi && nvidia-smi -L && nvidia-smi -q -d MEMORY,CLOCK,POWER,TEMPERATURE,PERFORMANCE,COMPUTE
    env | grep -E '^(CUDA_(VISIBLE_DEVICES|DEVICE_ORDER)|NVIDIA_VISIBLE_DEVICES|SLURM_JOB_ID)='
    for python in "${@:2}"; do
        printf '\n%s\n' "$python" && "$python" -c 'import sys; from importlib import metadata
print(sys.version, *sorted({f"{one.name} {one.version}" for one in metadata.distributions()}), sep="\n")'
    done
}
export -f facts

part facts 60 bash -c 'facts "$@"' facts "$root" "$harness" "${interpreters[@]}"
part doctor $((total / 5)) "${bench[@]}" doctor "${gpu[@]}" "${pythons[@]}"
# Once more on another GPU or slice, if there is one: each framework must open that one alone.
if ((!${#gpu[@]})) && grep -q '^GPU 1 ' "$folder/doctor.txt"; then
    part doctor-gpu-1 $((total / 9)) "${bench[@]}" doctor --gpu 1 "${pythons[@]}"
fi

# The run comes before the proofs, as it ranks nothing where time is cut short: it needs three blocks of every
# workload. It ends once it has them, since no interval is wider than the precision that it aims at.
budget=$((total < 20 ? 10 : total * 65 / 100))
part run $((budget * 110 / 100 + 20)) "${bench[@]}" run --preset quick --mode default --sample --device "$device" \
    "${gpu[@]}" --workload mnist-softmax --workload mnist-mlp --workload mnist-cnn --target-precision 50% \
    --budget "${budget}s" --results "$folder/results" "${named[@]}" "${pythons[@]}"

# A backend at a time, for one that hangs must not cost the others. The CNN has layers of every kind.
placement=0 precisions=(fp32 tf32 bf16)
[[ " ${backends[*]} " != *' tensorflow '* ]] || placement=1
if [[ $device == cpu ]]; then
    say 'verify-tf32: left out, as a CPU has no tf32'
    precisions=(fp32 bf16)
fi
todo=$((${#precisions[@]} * ${#backends[@]}))
for precision in "${precisions[@]}"; do
    for backend in "${backends[@]}"; do
        spare=$(($(left) - placement * total / 9)) # the last part has a ninth
        half=$((spare / 2 > 60 ? spare / 2 : 60))
        part "verify-$precision-$backend" $((todo-- == 1 || half > spare ? spare : half)) "${bench[@]}" verify \
            --json --mode all --workload mnist-cnn --device "$device" "${gpu[@]}" --precision "$precision" \
            --backend "$backend" "${pythons[@]}"
    done
done
if ((placement)); then
    part tensorflow-placement "$total" "$tensorflow" -P "$root/scripts/tensorflow_placement.py" \
        --device "$device" "${gpu[@]}" --json "$folder/tensorflow-placement.json"
fi

((!failed)) || finish 1 'A part FAILED: what it computed is wrong.'
((!undone)) || finish 3 'Some parts are incomplete.'
finish 0 'All parts ran.'
