# furnish.sh, sourced with $run and $cache set: furnish the mount and cgroup namespaces that we are in.
cd "$cache"
# Cgroups as seen from the namespace's own root: the kubelet finds itself at the top of each hierarchy,
# as on a machine of its own.
if grep -qv '^0::' /proc/self/cgroup; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while IFS=: read -r _ controllers _; do
        case $controllers in
            '') mkdir -p /sys/fs/cgroup/unified
                mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
            name=*) mkdir -p "/sys/fs/cgroup/${controllers#name=}"
                mount -t cgroup -o "none,$controllers" cgroup "/sys/fs/cgroup/${controllers#name=}" ;;
            *) mkdir -p "/sys/fs/cgroup/$controllers"
                mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers" ;;
        esac
    done < /proc/self/cgroup
else
    # Version 2 alone: a cgroup that hands controllers down may hold no process itself.
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /sys/fs/cgroup/init
    echo 0 > /sys/fs/cgroup/init/cgroup.procs
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control || true
    done
fi
# Where kubelet, containerd and CNI keep state under fixed paths, each node has its own.
mount --bind "$run/inside/lib" /var/lib
mount --bind "$run/inside/log" /var/log
mount -t tmpfs -o mode=755 tmpfs /run
# The cache itself may lie beneath one of those: put it back.
mkdir -p "$cache"
mount -c --rbind . "$cache"
