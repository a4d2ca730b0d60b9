#!/bin/sh
# In the machine of `cargo xtask vm`: runs each test program, and says on the second serial line how it ended.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
ip link set lo up
# All at once, as on a host that has been up for a while: there is no udev here, and programs that need the same module at the same
# moment would wait for each other under emulation.
modprobe -a $(cat /payload/modules)
ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2
hostname pintle-vm

stty -F /dev/ttyS1 raw -echo
say() { printf '%s\n' "$*" >/dev/ttyS1; }
. /payload/settings
# Who is still there after a program was killed, and where each of its threads waits in the kernel.
stuck() {
    for task in /proc/[0-9]*/task/*; do
        [ -n "$(cat "$task/cmdline")" ] || [ -n "$(grep '^State:.Z' "$task/status")" ] || continue
        echo "STUCK $task $(cat "$task/comm") $(grep -E '^(State|PPid|SigPnd|ShdPnd)' "$task/status" | tr '\n\t' '  ') $(cat "$task/cgroup")"
        tr '\0' ' ' <"$task/cmdline"
        echo
        cat "$task/stack" "$task/syscall"
    done
    find /sys/fs/cgroup -name cgroup.events -exec grep -l 'frozen 1' {} \;
}
say "@booted $(uname -srm), cgroup2: $(cat /sys/fs/cgroup/cgroup.controllers)"
while read -r index folder program words; do
    say "@begin $index"
    start=$(cut -d' ' -f1 /proc/uptime)
    cd "$folder" || continue
    CARGO_MANIFEST_DIR=$folder CARGO_TERM_COLOR=never RUST_BACKTRACE=$BACKTRACE \
        timeout -s KILL "$SECONDS_EACH" "$program" $words </dev/null >/run/output 2>&1
    status=$?
    cat /run/output >/dev/ttyS1
    if [ "$status" = 137 ]; then
        stuck >/dev/ttyS1 2>/dev/null
        # What it left must not slow down the next.
        if [ -d /run/systemd/system ]; then
            for pid in $(cat /sys/fs/cgroup/system.slice/pintle-vm.service/cgroup.procs /sys/fs/cgroup/systemd/system.slice/pintle-vm.service/cgroup.procs); do
                [ "$pid" = $$ ] || kill -KILL "$pid"
            done
        else
            # This spares init.
            kill -KILL -1
        fi
    fi
    say
    say "@end $index $status $start $(cut -d' ' -f1 /proc/uptime)"
done </payload/programs
# Into the console's log: what was denied is said too quietly to be there already.
dmesg | grep -E 'avc:|apparmor=' | tail -n 200 >/dev/ttyS0
say "@done"

if [ "$KEEP" = 1 ]; then
    cd /
    echo
    echo "The tests have run. This is the machine; \`poweroff -f\` ends it."
    setsid -c sh -i </dev/ttyS0 >/dev/ttyS0 2>&1
fi
poweroff -f
