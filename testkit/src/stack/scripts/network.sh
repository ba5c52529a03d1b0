#!/bin/sh
# network.sh N: give a stack's network namespace its addresses. Runs inside.
set -eu
n=$1
ip addr add "10.99.$n.2/24" dev eth0
ip link set eth0 up
# Services: only the API server's is ever called, and it lives at our own address. The route
# makes the address routable; there is no default route, so nothing leaves the machine.
ip route add 10.96.0.0/16 via "10.99.$n.1"
echo 1 > /proc/sys/net/ipv4/ip_forward
for chain in PREROUTING OUTPUT; do
    iptables -w -t nat -A "$chain" -d 10.96.0.1/32 -p tcp --dport 443 -j DNAT --to-destination "10.99.$n.2:6443"
done
