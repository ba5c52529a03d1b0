#!/bin/sh
# undertaker.sh RUN CACHE PID1: hold one stack's namespaces, and bury it.
#
# Runs outside, in a session of its own, so that neither Ctrl-C nor the owner's death takes
# it along. Its standard input is the owner's pipe, which PID1 watches.
set -u
run=$1 cache=$2 pid1=$3
(
    # The subshell joins the stack's cgroups first: the cgroup namespace is rooted there.
    while read -r dir; do echo 0 > "$dir/cgroup.procs" || exit 1; done < "$run/cgroups"
    exec unshare --fork --kill-child --pid --mount --net --uts --ipc --cgroup \
        -- sh "$run/inside.sh" "$run" "$cache" "$pid1"
)
# The kernel has ended every process in the pid namespace by now; with the last of them went
# the mounts, and soon the veth pair, which another stack may follow under the same name but
# not under the same index. Cgroups and files are left.
tries=0
[ -f "$run/link" ] && read -r link index < "$run/link" &&
    while [ $tries -lt 200 ] && [ "$(cat "/sys/class/net/$link/ifindex" 2> /dev/null)" = "$index" ]; do
        tries=$((tries + 1))
        sleep 0.02
    done
tries=0
while read -r dir; do
    while [ -d "$dir" ] && [ $tries -lt 100 ]; do
        find "$dir" -depth -type d -exec rmdir {} \; 2> /dev/null
        [ -d "$dir" ] && { tries=$((tries + 1)); sleep 0.05; }
    done
done < "$run/cgroups"
rm -rf --one-file-system "$run"
