#!/usr/bin/env bash
# Batch arrays on a real SLURM of one node, made here for the occasion:
#
#   bash tests/slurm.sh [PART...]  as root; installs slurmctld, slurmd, slurm-client and munge where they are missing
#
# The parts are 1, 2 and 3; without a number all of them are done.
# 1. recipes/segment.slurm: an array job segments two volumes. The signal that SLURM sends ahead of the time limit
#    comes in the midst: the tasks must save their state, end with 75, be queued again, go on, and give the labels of
#    a run that was never stopped.
# 2. Arrays of four tasks share one volume (--shard auto), first segment and then objects. One task is killed and
#    queued again, one runs twice, and --finalize waits for all (afterok): the files must be those of one process.
# 3. --dask slurm: dask-jobqueue submits jobs that become workers, and these label the volume: again the same files.
#
# Not part of tests/run.sh: it starts daemons, and needs root. PYTHON names the Python that has vemseg,
# KEEP=1 leaves the folder with all logs.
set -euo pipefail
parts=" ${*:-1 2 3} "
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$(command -v "${PYTHON:-$root/.venv/bin/python}")"
[ "$(id -u)" = 0 ] || { echo "tests/slurm.sh: only root can start SLURM's daemons" >&2; exit 1; }
export PATH="/usr/sbin:$PATH"
for tool in slurmctld slurmd sbatch munged; do
    command -v "$tool" > /dev/null ||
        apt-get install -y -q --no-install-recommends slurmctld slurmd slurm-client munge > /dev/null
done

work="$(mktemp -d "${TMPDIR:-/tmp}/vemseg-slurm-XXXXXX")"
mkdir "$work/spool" "$work/state" "$work/bin" "$work/munge"
export SLURM_CONF="$work/slurm.conf" PATH="$work/bin:$PATH" PYTHONPATH="$root" OMP_NUM_THREADS=1
stop() {
    for daemon in slurmd slurmctld munged; do
        [ -s "$work/$daemon.pid" ] && kill "$(cat "$work/$daemon.pid")" 2> /dev/null || true
    done
    sleep 1
    [ "${KEEP:-}" ] || rm -rf "$work"
}
trap stop EXIT

ports="$("$python" -c '
import socket
taken = [socket.create_server(("", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in taken))')"
# A node of its own: two processors, and jobs that may end seconds after they were warned
cat > "$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$work/munge/socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldPort=${ports%% *}
SlurmdPort=${ports##* }
SlurmdSpoolDir=$work/spool
StateSaveLocation=$work/state
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MinJobAge=3600
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 RealMemory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo) State=UNKNOWN
PartitionName=debug Nodes=$(hostname -s) Default=YES MaxTime=INFINITE State=UP
END
dd if=/dev/urandom of="$work/munge/key" bs=64 count=1 status=none
chmod 400 "$work/munge/key"
chmod 755 "$work"
chmod 711 "$work/munge"
munged --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munged.pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed"
slurmctld
sleep 2
slurmd

# The program, with blocks so small that it can be stopped between them, and what the template works on
cd "$work"
cat > bin/vemseg <<END
#!$python
import os, time
from vemseg import budget
from vemseg.blocks import here
from vemseg.cli import main
from vemseg.objects import blockwise
budget.MOST_VOXELS = 2**14
blockwise.SHAPES = ((16, 32, 32),)
write = here.write_json
def slowly(path, *given, **named):
    time.sleep(".partial/" in str(path))
    write(path, *given, **named)
task = [os.environ.get("SLURM_ARRAY_TASK_" + name) for name in ("ID", "MAX")]
if task == ["2", "4"] and not os.environ.get("SLURM_RESTART_COUNT"):
    here.write_json = slowly # so that it can be killed in the midst of its blocks
main()
END
chmod 755 bin/vemseg
for cell in 1 2; do
    vemseg fetch phantom -o "cell$cell.tif" --shape 32,128,128 --seed "$cell"
done > /dev/null
printf 'cell1.tif\ncell2.tif\n' > volumes.txt
failed=0
check() { # WHAT COMMAND...
    if "${@:2}"; then echo "ok   $1"; else echo "FAIL $1"; failed=1; fi
}
until_there() { # WHAT COMMAND...: wait until a command succeeds, ten minutes at most: SLURM waits two before it starts a task again
    for _ in $(seq 6000); do
        "${@:2}" > /dev/null 2>&1 && return
        sleep 0.1
    done
    echo "FAIL waited in vain: $1" >&2
    tail -n 20 slurmctld.log slurmd.log ./slurm-*.out >&2
    exit 1
}
stop_task() { # CELL: in the midst
    until_there "blocks of cell$1.tif" test -e "cell$1_seg.tif.partial/done/000002.json"
    scancel --batch --signal=USR1 "${job}_$1" # what --signal=B:USR1@300 sends
    until_there "cell$1.tif to be stopped" grep -q "vemseg: stopped after" "slurm-${job}_$1.out"
}
state() { scontrol show job "$job" | grep -c "JobState=$1" | grep -qx "$2"; }

stopped_and_queued() { # two volumes, one task each
    vemseg train cell1.tif -o run --config invariance --steps 3 --batch-size 2 -q > /dev/null # no tissue to paint
    vemseg segment cell1.tif -m run -k 4 -o first_seg.tif -q > /dev/null
    for cell in 1 2; do
        vemseg segment "cell$cell.tif" -m run --clusters first_seg_clusters.safetensors -o "whole$cell.tif" -q
    done > /dev/null

    sed 's/ --clusters/ --model run --clusters/' "$root/recipes/segment.slurm" > segment.slurm # classes of run
    job="$(sbatch --parsable --array=1-2 --cpus-per-task=1 --mem=0 segment.slurm)"
    stop_task 1 & # both run at once
    first=$!
    stop_task 2
    wait "$first"
    for cell in 1 2; do
        check "task $cell saved its state: $(grep -o 'stopped after.*blocks' "slurm-${job}_$cell.out")" test ! -e "cell${cell}_seg.tif"
    done
    until_there "both tasks to end" state COMPLETED 2
    for cell in 1 2; do
        check "task $cell was queued again" sh -c "scontrol show job ${job}_$cell | grep -q Restarts=1"
        check "task $cell went on" grep -q "^going on in cell${cell}_seg.tif.partial" "slurm-${job}_$cell.out"
        check "task $cell gave the labels of an unstopped run" "$python" -c "
import sys, tifffile
a, b = (tifffile.imread(path) for path in sys.argv[1:])
sys.exit(not (a.shape == b.shape and (a == b).all()))" "cell${cell}_seg.tif" "whole$cell.tif"
    done
}

# Four tasks for one volume
cat > same.py <<'END'
import hashlib, pathlib, sys
def content(name):
    paths = [path for path in pathlib.Path(name).rglob("*") if path.is_file() and path.name != "zarr.json"]
    assert len(paths) > 2, name
    return {str(path.relative_to(name)): hashlib.sha256(path.read_bytes()).digest() for path in paths}
sys.exit(content(sys.argv[1]) != content(sys.argv[2]))
END
ended() { scontrol show job "$1" | grep -q "JobState=$2"; }
shared() { # MARKERS OUT COMMAND...: an array of four, its second task killed and queued again, its third one run twice
    local markers="$2.partial/$1" out="$2"
    cat > shards.slurm <<END
#!/bin/bash
${*:3} -o $out --shard auto &
echo \$! > $out.\$SLURM_ARRAY_TASK_ID.pid
wait \$!
code=\$?
[ \$code -ne 137 ] || scontrol requeue \$SLURM_JOB_ID # killed
exit \$code
END
    job="$(sbatch --parsable --array=1-4 --requeue --open-mode=append --cpus-per-task=1 --mem=0 shards.slurm)"
    twice="$(sbatch --parsable --cpus-per-task=1 --mem=0 --wrap "${*:3} -o $out --shard 3/4")"
    last="$(sbatch --parsable --cpus-per-task=1 --mem=0 --dependency="afterok:$job:$twice" --wrap "${*:3} -o $out --finalize")"
    until_there "a block of the second task" test -e "$markers/000001.json"
    kill -KILL "$(cat "$out.2.pid")"
    until_there "the second task to be queued again" sh -c "scontrol show job ${job}_2 | grep -q Restarts=1"
    check "a task of $out was killed in the midst of its blocks, and queued again" test ! -e "$out"
    until_there "$out" ended "$last" COMPLETED
    check "all four tasks of $out ended well" state COMPLETED 4
    check "the task that came twice ended well" ended "$twice" COMPLETED
    check "nothing is left of $out's beginnings" test ! -e "$out.partial"
}

in_four_tasks() {
    shared done shared.ome.zarr vemseg segment cell1.tif "${few[@]}"
    check "four tasks gave the files of one process" "$python" same.py shared.ome.zarr one.ome.zarr
    vemseg objects one.ome.zarr -o counted.ome.zarr -q > /dev/null
    shared parts.done found.ome.zarr vemseg objects one.ome.zarr
    check "four tasks found the objects of one process" "$python" same.py found.ome.zarr counted.ome.zarr
    check "and measured the same of them" cmp found.csv counted.csv
}

# Workers of Dask that SLURM starts
workers() { scontrol show job | grep -c "JobName=dask-worker" | grep -qx "$1"; }
by_dask() {
    vemseg segment cell1.tif "${few[@]}" -o dasked.ome.zarr --dask slurm --processes 2 --threads 1 --max-memory 1GiB
    check "SLURM was asked for two workers" workers 2
    check "the workers of Dask gave the files of one process" "$python" same.py dasked.ome.zarr one.ome.zarr
    until_there "the workers' jobs to end" sh -c '! squeue --noheader --format=%j | grep -q dask-worker'
}

few=(-m classical -k 3 --set "model.sigmas=[1.0]" --set cluster.sample=2000)
vemseg segment cell1.tif "${few[@]}" -o one.ome.zarr -q > /dev/null
case "$parts" in *" 1 "*) stopped_and_queued ;; esac
case "$parts" in *" 2 "*) in_four_tasks ;; esac
case "$parts" in *" 3 "*) by_dask ;; esac
exit "$failed"
