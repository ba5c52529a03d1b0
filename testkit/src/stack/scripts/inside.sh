#!/bin/sh
# inside.sh RUN CACHE PID1: furnish a stack's new namespaces, then become PID1.
set -eu
run=$1 cache=$2 pid1=$3
mount -t proc proc /proc
# Of this network namespace.
mount -t sysfs sysfs /sys
. "$run/furnish.sh"
hostname node-1
ip link set lo up
: > "$run/inside-ready"
exec "$pid1" owned
