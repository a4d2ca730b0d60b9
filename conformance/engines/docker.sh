#!/usr/bin/env bash
# dockerd, with the runtime in `runtimes` of its daemon.json.
. "$(dirname "$0")/lib.sh"
cat > $W/daemon.json <<E
{"runtimes": {"pintle": {"path": "$RT"}}, "default-runtime": "pintle"}
E
start() { dockerd --config-file $W/daemon.json --data-root $W/data --exec-root $W/exec --pidfile $W/pid -H unix://$W/d.sock --bridge=none --iptables=false --ip6tables=false --ip-masq=false --oom-score-adjust 0 --live-restore >> $W/log 2>&1 & DPID=$!; for i in $(seq 600); do docker -H unix://$W/d.sock version >/dev/null 2>&1 && break; sleep 0.1; done; }
D="docker -H unix://$W/d.sock"
start
$D load -i $IMAGE || { tail -20 $W/log; exit 1; }
R="--network none"
out=$($D info --format '{{.DefaultRuntime}} {{.RuncCommit.ID}}' 2>&1); check "info: $out" '[[ "$out" = pintle* ]]'
out=$($D run --rm $R $I echo hello 2>&1); check "run" '[ "$out" = hello ]'
out=$($D run --rm $R $I sh -c 'exit 7' 2>&1; echo "code=$?"); check "exit code" '[[ "$out" = *code=7 ]]'
out=$($D run --rm $R $I nosuchcommand 2>&1; echo "code=$?"); check "missing command is 127" '[[ "$out" = *"executable file not found"*code=127 ]]'
out=$($D run --rm $R $I /etc/passwd 2>&1; echo "code=$?"); check "not executable is 126" '[[ "$out" = *"permission denied"*code=126 ]]'
out=$($D run --rm $R $I /absent/file 2>&1; echo "code=$?"); check "missing file is 127" '[[ "$out" = *"no such file"*code=127 ]]'
out=$($D run --rm $R -m 32m --cpus 0.5 --pids-limit 55 $I sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max' 2>&1); check "limits" '[[ "$out" = *33554432* ]]'
out=$($D run --rm $R -u 1000 -w /tmp -e A=b --read-only --tmpfs /scratch --cap-drop ALL --security-opt no-new-privileges --ulimit nofile=77 --hostname me $I sh -c 'id -u; pwd; echo $A; touch /x; echo y > /scratch/y; cat /scratch/y; hostname; ulimit -n; grep CapEff /proc/self/status' 2>&1); check "user, dir, env, read-only, tmpfs, caps, ulimit" 'has 1000 /tmp b Read-only y me 77 0000000000000000'
mkdir $W/vol; echo v > $W/vol/f; out=$($D run --rm $R -v $W/vol:/v -v $W/vol:/ro:ro -v named:/n $I sh -c 'cat /v/f; echo w > /v/g; touch /ro/x; echo n > /n/n && echo named' 2>&1; cat $W/vol/g); check "volumes" '[[ "$out" = *v* && "$out" = *Read-only* && "$out" = *named* && "$out" = *w ]]'
out=$($D run --rm $R --privileged $I sh -c 'ls /dev | wc -l; grep CapEff /proc/self/status' 2>&1); check "privileged" '[[ "$out" = *CapEff* && "$out" != *0000000000000000 ]]'
out=$(on_terminal $D run --rm -t $R $I sh -c 'tty; stty size' 2>&1); check "terminal" '[[ "$out" = */dev/pts/0* ]]'
out=$(echo in | $D run --rm -i $R $I cat 2>&1); check "standard input" '[ "$out" = in ]'
out=$($D run -d $R --name d1 --init=false $I sh -c 'trap "echo bye; exit 3" TERM; while :; do sleep 0.1; done' 2>&1); check "detached" '[ ${#out} = 64 ]'
out=$($D exec d1 sh -c 'echo in; exit 9' 2>&1; echo "code=$?"); check "exec" '[[ "$out" = in*code=9 ]]'
out=$($D exec -u user -w /tmp -e B=c d1 sh -c 'id -un; pwd; echo $B' 2>&1); check "exec as a user" '[ "$out" = "$(printf "user\n/tmp\nc")" ]'
out=$($D exec d1 nosuch 2>&1; echo "code=$?"); check "exec of a missing command" '[[ "$out" = *"executable file not found"*code=12[67] ]]'
out=$(on_terminal $D exec -t d1 tty 2>&1); check "exec with a terminal" '[[ "$out" = */dev/pts/* ]]'
out=$($D top d1 2>&1); check "top" '[ $(echo "$out" | wc -l) -ge 2 ]'
out=$($D stats --no-stream d1 2>&1); check "stats" '[[ "$out" = *d1* ]]'
out=$($D pause d1 2>&1; $D ps 2>&1; $D exec d1 true 2>&1); check "pause" '[[ "$out" = *Paused*"is paused"* ]]'
out=$($D unpause d1 2>&1; $D ps); check "unpause" '[[ "$out" != *Paused* ]]'
out=$($D update -m 64m --memory-swap 64m d1 2>&1; $D exec d1 cat /sys/fs/cgroup/memory/memory.limit_in_bytes); check "update" '[[ "$out" = *67108864* ]]'
kill -TERM $DPID; wait $DPID 2>/dev/null; rm -f $W/pid; start
out=$($D ps --format '{{.Names}} {{.State}}'; $D exec d1 echo again 2>&1); check "alive after a restart of dockerd" '[[ "$out" = "d1 running"*again ]]'
out=$($D stop -t 5 d1 2>&1; $D inspect -f '{{.State.ExitCode}}' d1; $D logs d1); check "stop by SIGTERM" '[[ "$out" = d1*3*bye ]]'
out=$($D start d1 2>&1; $D kill d1; $D wait d1); check "start again, kill, wait" '[[ "$out" = *137 ]]'
out=$($D rm d1 2>&1); check "rm" '[ "$out" = d1 ]'
out=$($D run --rm $R -m 8m --memory-swap 8m --name oom $I sh -c 'dd if=/dev/zero of=/dev/null bs=64M count=1' 2>&1; echo "code=$?"); check "out of memory" '[[ "$out" = *code=137 || "$out" = *Killed* ]]'
$D run -d $R --restart on-failure:2 --name rs $I sh -c 'exit 1' >/dev/null 2>&1; soon '[ "$out" = 2 ]' "$D inspect -f '{{.RestartCount}}' rs"; check "restart policy" '[ "$out" = 2 ]'
out=$($D run --rm --network host --pid host --ipc host --uts host $I sh -c 'echo $$' 2>&1); check "host namespaces" '[ "$out" -gt 1 ]'
out=$($D run -d $R --ipc shareable --name aa $I sleep 100 >/dev/null; $D run --rm --network container:aa --ipc container:aa --pid container:aa $I ps 2>&1); check "another container's namespaces" '[[ "$out" = *"sleep 100"* ]]'
out=$(printf 'FROM %s\nRUN echo built > /built\nRUN ["cat", "/built"]\n' $I | DOCKER_BUILDKIT=0 $D build --network none -t b - 2>&1; $D run --rm $R b cat /built 2>&1); check "build" '[[ "$out" = *built ]]'
$D rm -f aa rs >/dev/null 2>&1
soon '[ -z "$out" ]' "find /sys/fs/cgroup -maxdepth 3 -path '*/docker/*' -type d"; check "nothing left" '[ -z "$out" ]'
kill $DPID; wait $DPID 2>/dev/null
find /sys/fs/cgroup -maxdepth 2 -depth -name docker -type d -exec rmdir {} \; 2>/dev/null
finish "$(dockerd --version)" $W/exec/netns/* $W/data $W/exec
