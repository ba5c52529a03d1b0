#!/bin/sh
# node.sh RUN CACHE NAME: furnish a further node's new namespaces, and hold them until killed.
set -eu
run=$1 cache=$2 name=$3
# Mounts of the first node's pods were copied with all others, and would outlive the pods.
umount -l /run
grep -o " ${run%/*}/kubelet/[^ ]*" /proc/self/mounts | while read -r dir; do umount -l "$dir" || true; done
# As seen from the stack's root; the same file system cannot be mounted twice in one place.
umount -l /sys/fs/cgroup
. "$run/furnish.sh"
hostname "$name"
: > "$run/inside-ready"
exec sleep infinity
