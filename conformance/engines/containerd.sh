#!/usr/bin/env bash
# containerd with its shim for runc: `ctr run --runc-binary`.
. "$(dirname "$0")/lib.sh"
cat > $W/config.toml <<E
version = 3
root = "$W/root"
state = "$W/state"
disabled_plugins = ["io.containerd.grpc.v1.cri","io.containerd.cri.v1.images","io.containerd.cri.v1.runtime","io.containerd.nri.v1.nri","io.containerd.snapshotter.v1.erofs","io.containerd.snapshotter.v1.blockfile"]
[grpc]
address = "$W/c.sock"
E
start() { containerd -c $W/config.toml > $W/log.$1 2>&1 & CPID=$!; for i in $(seq 600); do ctr --address $W/c.sock version >/dev/null 2>&1 && break; sleep 0.1; done; }
# Everything that is told from now on is in $W/events; a namespace that is made is told at once, which shows that somebody listens.
watch() { ctr --address $W/c.sock events > $W/events 2>&1 & EPID=$!; for i in $(seq 600); do ctr --address $W/c.sock namespaces create told$i; sleep 0.1; [ -s $W/events ] && break; done; }
C="ctr --address $W/c.sock -n pintletest"
[ -n "${PINTLE_TEST_CRIU:-}" ] && mkdir $W/criu && ln -s "$PINTLE_TEST_CRIU" $W/criu/criu && PATH=$W/criu:$PATH
start 1
$C images import $IMAGE >/dev/null || exit 1
R="--runc-binary $RT"
out=$($C run --rm $R $I r1 echo hello 2>&1); check "run prints" '[ "$out" = hello ]'
out=$($C run --rm $R $I r2 sh -c 'exit 7' 2>&1; echo "code=$?"); check "exit code" '[[ "$out" = *code=7* ]]'
out=$($C run --rm $R $I r3 nosuchcommand 2>&1; echo "code=$?"); check "missing command" '[[ "$out" = *"executable file not found in \$PATH"* ]]'
$C containers rm r3 >/dev/null 2>&1
out=$($C run -d $R --memory-limit 33554432 $I r4 sleep 50; cat /sys/fs/cgroup/memory/pintletest/r4/memory.limit_in_bytes 2>&1 || cat /sys/fs/cgroup/pintletest/r4/memory.max; $C task rm -f r4 2>/dev/null; $C containers rm r4); check "memory limit" '[[ "$out" = *33554432* ]]'
out=$($C run --rm $R --cap-add CAP_NET_ADMIN --env A=b --cwd /tmp $I r5 sh -c 'pwd; echo $A' 2>&1); check "folder and environment" '[ "$out" = "$(printf "/tmp\nb")" ]'
out=$($C run --rm $R --seccomp --privileged=false $I r6 sh -c 'grep Seccomp: /proc/self/status' 2>&1); check "seccomp" '[[ "$out" = *2* ]]'
out=$(on_terminal $C run --rm -t $R $I r7 tty 2>&1); check "terminal" '[[ "$out" = */dev/pts/0* ]]'
out=$($C run -d $R $I d1 sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done' 2>&1); check "detached" '[ -z "$out" ]'
out=$($C task exec --exec-id e1 d1 sh -c 'echo in; exit 9' 2>&1; echo "code=$?"); check "exec" '[[ "$out" = *in*code=9* ]]'
out=$($C task exec --exec-id e2 d1 nosuch 2>&1; echo "code=$?"); check "exec of a missing command" '[[ "$out" = *"executable file not found"* ]]'
out=$($C task ps d1 2>&1); check "ps" '[ $(echo "$out" | wc -l) -ge 2 ]'
out=$($C task metrics d1 2>&1); check "metrics" '[[ "$out" = *memory* ]]'
out=$($C task pause d1 2>&1; $C task ls 2>&1); check "pause" '[[ "$out" = *PAUSED* ]]'
out=$($C task exec --exec-id e3 d1 true 2>&1; echo "code=$?"); check "exec in a paused one is refused" '[[ "$out" = *paused* ]]'
out=$($C task resume d1 2>&1; $C task ls 2>&1); check "resume" '[[ "$out" = *RUNNING* ]]'
kill -9 $CPID; wait $CPID 2>/dev/null; start 2
out=$($C task ls 2>&1); check "alive after a restart of containerd" '[[ "$out" = *d1*RUNNING* ]]'
out=$($C task exec --exec-id e4 d1 echo again 2>&1); check "exec after the restart" '[ "$out" = again ]'
watch
$C task kill -s TERM d1; soon '[[ "$out" = *STOPPED* ]]' "$C task ls"; check "kill" '[[ "$out" = *STOPPED* ]]'
soon '[[ "$out" = */tasks/exit*d1* ]]' "cat $W/events"; check "exit event" '[[ "$out" = */tasks/exit*d1* ]]'
out=$($C task kill -s KILL d1 2>&1; echo "code=$?"); check "kill of an ended one" '[[ "$out" = *"already finished"* || "$out" = *"not found"* ]]'
out=$($C task delete d1 2>&1; echo "code=$?"); check "delete gives the exit code" '[[ "$out" = *code=3* || "$out" = *3* ]]'
$C containers rm d1
$C run -d $R --memory-limit 8388608 $I o1 sh -c 'while [ ! -e /go ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 100'
$C task exec --exec-id go o1 touch /go
soon '[[ "$out" = */tasks/oom*o1* ]]' "cat $W/events"; check "oom event" '[[ "$out" = */tasks/oom*o1* ]]'
kill $EPID
$C task rm -f o1 >/dev/null 2>&1; $C containers rm o1
out=$($C run -d $R $I u1 sleep 100 2>&1; $C task metrics u1 >/dev/null; $C tasks rm -f u1 2>&1; $C containers rm u1 2>&1; echo "code=$?"); check "forced removal" '[[ "$out" = *code=0* ]]'
if [ -n "${PINTLE_TEST_CRIU:-}" ]; then
# What it says of itself it made up when it began: only the same process can say it again.
$C run -d $R $I k1 sh -c 't=$(cat /proc/sys/kernel/random/uuid); i=0; while :; do i=$((i+1)); echo $t $i > /said; sleep 0.1; done'
soon '[[ "$out" = *-*-*-*-*" "* ]]' "$C task exec --exec-id s1 k1 sh -c 'cat /said 2>/dev/null'"; SAID=${out% *}
out=$($C containers checkpoint --task --rw --image k1 localhost/saved:1 2>&1; $C task ls); check "checkpoint" '[[ "$out" = *k1*RUNNING* ]]'
$C task kill -s KILL k1; soon '[[ "$out" = *STOPPED* ]]' "$C task ls"; $C task rm k1 >/dev/null 2>&1; $C containers rm k1
$C containers restore --live --rw k2 localhost/saved:1 > $W/restored 2>&1 &
soon '[[ "$out" = *k2*RUNNING* ]]' "$C task ls"; out=$(cat $W/restored; $C task exec --exec-id s2 k2 rm /said)
soon '[[ "$out" = *-*-*-*-*" "* ]]' "$C task exec --exec-id s3 k2 sh -c 'cat /said 2>/dev/null'"; check "restore" '[ "${out% *}" = "$SAID" ]'
$C task kill -s KILL k2; soon '[[ "$out" != *k2*RUNNING* ]]' "$C task ls"; $C task rm -f k2 >/dev/null 2>&1; $C containers rm k2
fi
out=$(ls $W/state/io.containerd.runtime.v2.task/pintletest 2>/dev/null; ls /run/containerd/runc/pintletest 2>/dev/null; find /sys/fs/cgroup -maxdepth 3 -path '*pintletest/*' -type d); check "nothing left" '[ -z "$out" ]'
kill $CPID; wait $CPID 2>/dev/null
find /sys/fs/cgroup -depth -path '*/pintletest*' -type d -exec rmdir {} \; 2>/dev/null
finish "$(containerd --version)" $W/root $W/state
