#!/bin/busybox sh
# The first root of `cargo xtask vm`: finds the disk and goes on there. From here pivot_root(2) would not work.
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    /bin/busybox insmod "$module"
done
until [ -b /dev/vda ]; do
    /bin/busybox usleep 10000
done
# What pods may write is limited by it.
/bin/busybox mount -t ext4 -o prjquota /dev/vda /root || /bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
