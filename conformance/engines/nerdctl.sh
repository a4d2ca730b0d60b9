#!/usr/bin/env bash
# nerdctl on containerd, with our shim ($3) as the runtime, on a list of our network plugin and three of the CNI project's ($4).
. "$(dirname "$0")/lib.sh"
mkdir $W/bin $W/net $W/plugins && ln -s "$3" $W/bin/containerd-shim-pintle-v2 && ln -s "$3" $W/plugins/pintle && ln -s "$4"/* $W/plugins/
export PATH=$W/bin:$PATH
cat > $W/config.toml <<E
version = 3
root = "$W/root"
state = "$W/state"
disabled_plugins = ["io.containerd.grpc.v1.cri","io.containerd.cri.v1.images","io.containerd.cri.v1.runtime","io.containerd.nri.v1.nri","io.containerd.snapshotter.v1.erofs","io.containerd.snapshotter.v1.blockfile"]
[grpc]
address = "$W/c.sock"
E
cat > $W/net/nerdctl-pt.conflist <<E
{"cniVersion":"1.0.0","name":"pt","nerdctlID":"aa","nerdctlLabels":{},"plugins":[{"type":"pintle","bridge":"pt0","subnets":["10.95.0.0/24"],"stateDir":"$W/pt"},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"firewall"},{"type":"tuning"}]}
E
containerd -c $W/config.toml > $W/log 2>&1 & CPID=$!; for i in $(seq 600); do ctr --address $W/c.sock version >/dev/null 2>&1 && break; sleep 0.1; done
N="nerdctl --address $W/c.sock --data-root $W/nd --cni-netconfpath $W/net --cni-path $W/plugins --cgroup-manager cgroupfs"
$N load -i $IMAGE || exit 1
R="--runtime io.containerd.pintle.v2"; P="--pull never"
out=$($N run --rm $P $R --net none $I echo hello 2>&1); check "run" '[ "$out" = hello ]'
out=$($N run --rm $P $R --net none $I sh -c 'exit 7' 2>&1; echo "code=$?"); check "exit code" '[[ "$out" = *code=7 ]]'
out=$(on_terminal $N run --rm -it $P $R --net none $I tty 2>&1); check "terminal" '[[ "$out" = */dev/pts/* ]]'
out=$(echo in | $N run --rm -i $P $R --net none $I cat 2>&1); check "standard input" '[ "$out" = in ]'
out=$($N run -d --name d1 $P $R --net pt -p 8099:80 -m 64m $I sh -c 'echo began; mkdir /w; echo page > /w/index.html; httpd -p 80 -h /w; trap "echo bye; exit 3" TERM; while :; do sleep 0.1; done' 2>&1); check "detached" '[ ${#out} = 64 ]'
out=$($N exec d1 sh -c 'echo in; exit 9' 2>&1; echo "code=$?"); check "exec" '[[ "$out" = in*"exit code 9"* ]]'
soon '[ "$out" = began ]' "$N logs d1"; check "logs" '[ "$out" = began ]'
out=$($N exec d1 ip addr show eth0 2>&1); check "address of our plugin" '[[ "$out" = *10.95.0.* ]]'
soon '[ "$out" = page ]' "curl -s -m 20 http://10.95.0.1:8099/"; check "published port" '[ "$out" = page ]'
out=$($N stats --no-stream d1 2>&1); check "stats" '[[ "$out" = *d1*64MiB* ]]'
out=$($N pause d1 2>&1; $N ps -a 2>&1); check "pause" '[[ "$out" = *aused* ]]'
out=$($N unpause d1 2>&1; $N ps 2>&1); check "unpause" '[[ "$out" = *Up* ]]'
out=$($N top d1 2>&1); check "top" '[ $(echo "$out" | wc -l) -ge 2 ]'
out=$($N stop -t 10 d1 2>&1; $N inspect -f '{{.State.ExitCode}}' d1; $N logs d1); check "stop, exit code, logs" '[[ "$out" = d1*3*began*bye ]]'
out=$($N start d1 2>&1; $N kill d1; $N wait d1); check "start again, kill, wait" '[[ "$out" = *137 ]]'
out=$($N rm d1 2>&1; ls $W/pt/networks/pt/addresses 2>/dev/null | wc -l; ip -o link | grep -c veth); check "rm leaves nothing" '[[ "$out" = d1*0*0 ]]'
kill $CPID; wait $CPID 2>/dev/null
find /sys/fs/cgroup -depth -path '*/default*' -type d -exec rmdir {} \; 2>/dev/null
finish "$($N --version)" $W/root $W/state
