#!/bin/sh
# The init of `cargo xtask vm`, where that is not systemd: makes a host with control groups of version 2 alone, and runs the tests.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
mount -t mqueue mqueue /dev/mqueue 2>/dev/null
# As systemd does it, and every mount is shared.
mount --make-rshared /
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup

# No process stays in the root group, so that it can hand its controllers down.
mkdir -p /sys/fs/cgroup/init.scope /sys/fs/cgroup/system.slice
for pid in $(cat /sys/fs/cgroup/cgroup.procs); do
    echo "$pid" >/sys/fs/cgroup/init.scope/cgroup.procs 2>/dev/null
done
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done

# A policy in one write, as the kernel wants it. From here on this is a service like any other.
if [ -e /payload/policy ]; then
    mount -t selinuxfs selinuxfs /sys/fs/selinux
    dd if=/payload/policy of=/sys/fs/selinux/load bs=16M 2>/dev/null
    echo 1 >/sys/fs/selinux/enforce
    printf system_u:system_r:initrc_t:s0 >/proc/self/attr/current
fi

exec /payload/run
