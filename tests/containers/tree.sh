#!/usr/bin/env bash
# Run a command as an ordinary user in a root tree that holds Apptainer, without network or HOME: for containers.sh.
#   unshare --mount --net --propagation private bash tests/containers/tree.sh TREE FOLDER UID COMMAND [ARG ...]
# FOLDER is /work in there; /dev has FUSE, which Apptainer mounts its images with.
set -euo pipefail
tree=$(realpath "$1") folder=$(realpath "$2") user=$3
shift 3

mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount --rbind /sys "$tree/sys"
mkdir -p "$tree/work" "$tree/oldroot"
mount --bind "$folder" "$tree/work"

mount -t tmpfs -o mode=755,dev tmpfs "$tree/dev"
while read -r name major minor; do
    mknod -m 666 "$tree/dev/$name" c "$major" "$minor"
done <<< $'fuse 10 229\nnull 1 3\nzero 1 5\nfull 1 7\nrandom 1 8\nurandom 1 9\ntty 5 0'
mkdir -p "$tree"/dev/{shm,pts,mqueue}
mount -t tmpfs -o mode=1777 tmpfs "$tree/dev/shm"
mount --bind /dev/pts "$tree/dev/pts"
ln -s /proc/self/fd "$tree/dev/fd"
ln -s pts/ptmx "$tree/dev/ptmx"
ln -s /proc/self/fd/0 "$tree/dev/stdin"
ln -s /proc/self/fd/1 "$tree/dev/stdout"
ln -s /proc/self/fd/2 "$tree/dev/stderr"

cd "$tree"
pivot_root . oldroot
umount -l /oldroot
cd /work
exec setpriv --reuid "$user" --regid "$user" --clear-groups env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin "$@"
