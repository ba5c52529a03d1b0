#!/bin/sh
# enter.sh RUN INIT PROGRAM [ARGUMENT...]: run a program in a stack's cgroups and namespaces.
run=$1 init=$2
shift 2
while read -r dir; do
    [ -d "$dir/init" ] && dir=$dir/init
    echo 0 > "$dir/cgroup.procs" || exit 1
done < "$run/cgroups"
exec nsenter -t "$init" --mount --net --pid --uts --ipc --cgroup -- "$@"
