#!/usr/bin/env bash
# Podman and buildah, with conmon.
. "$(dirname "$0")/lib.sh"
export CONTAINERS_STORAGE_CONF=$W/storage.conf CONTAINERS_CONF=$W/containers.conf TMPDIR=$W
printf '[storage]\ndriver="overlay"\ngraphroot="%s/root"\nrunroot="%s/runroot"\n' $W $W > $W/storage.conf
printf '[engine]\nruntime="%s"\ncgroup_manager="cgroupfs"\nevents_logger="file"\nlock_type="file"\ntmp_dir="%s/tmp"\n[network]\nnetwork_backend="cni"\n[containers]\noom_score_adj=0\ndefault_ulimits=["nofile=1024:1024"]\n' $RT $W > $W/containers.conf
P="podman --root $W/root --runroot $W/runroot --cgroup-manager cgroupfs --runtime $RT"
$P load -q -i $IMAGE || exit 1
R="--network none"
out=$($P info --format '{{.Host.OCIRuntime.Path}} {{.Host.OCIRuntime.Version}}' 2>&1); check "info" '[[ "$out" = *pintle-oci* ]]'
out=$($P run --rm $R $I echo hello 2>&1); check "run" '[ "$out" = hello ]'
out=$($P run --rm $R $I sh -c 'exit 7' 2>&1; echo "code=$?"); check "exit code" '[[ "$out" = *code=7 ]]'
out=$($P run --rm $R $I nosuchcommand 2>&1; echo "code=$?"); check "missing command is 127" '[[ "$out" = *"executable file not found"*code=127 ]]'
out=$($P run --rm $R $I /etc/passwd 2>&1; echo "code=$?"); check "not executable is 126" '[[ "$out" = *"ermission denied"*code=126 ]]'
out=$($P run --rm $R -m 32m --pids-limit 55 $I sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes' 2>&1); check "limits" '[[ "$out" = *33554432* ]]'
out=$($P run --rm $R -u 1000 -w /tmp -e A=b --read-only --read-only-tmpfs=false --cap-drop all --hostname me $I sh -c 'id -u; pwd; echo $A; touch /x; hostname; grep CapEff /proc/self/status' 2>&1); check "user, dir, env, read-only, caps" 'has 1000 /tmp b Read-only me 0000000000000000'
mkdir $W/vol; echo v > $W/vol/f; out=$($P run --rm $R -v $W/vol:/v -v $W/vol:/ro:ro $I sh -c 'cat /v/f; echo w > /v/g; touch /ro/x' 2>&1; cat $W/vol/g); check "volumes" '[[ "$out" = *v* && "$out" = *Read-only* && "$out" = *w ]]'
out=$(on_terminal $P run --rm -it $R $I tty 2>&1); check "terminal" '[[ "$out" = */dev/pts/0* ]]'
out=$(echo in | $P run --rm -i $R $I cat 2>&1); check "standard input" '[ "$out" = in ]'
out=$($P run --rm $R --uidmap 0:200000:65536 --gidmap 0:200000:65536 $I cat /proc/self/uid_map 2>&1); check "user namespace" '[[ "$out" = *200000* ]]'
out=$($P run -d $R --name d1 $I sh -c 'trap "echo bye; exit 3" TERM; while :; do sleep 0.1; done' 2>&1); check "detached" '[ ${#out} = 64 ]'
out=$($P exec d1 sh -c 'echo in; exit 9' 2>&1; echo "code=$?"); check "exec" '[[ "$out" = in*code=9 ]]'
out=$($P exec d1 nosuch 2>&1; echo "code=$?"); check "exec of a missing command is 127" '[[ "$out" = *"executable file not found"*code=127 ]]'
out=$(on_terminal $P exec -it d1 tty 2>&1); check "exec with a terminal" '[[ "$out" = */dev/pts/* ]]'
out=$($P top d1 2>&1); check "top" '[ $(echo "$out" | wc -l) -ge 2 ]'
out=$($P stats --no-stream d1 2>&1); check "stats" '[[ "$out" = *d1* ]]'
out=$($P pause d1 2>&1; $P ps -a 2>&1); check "pause" '[[ "$out" = *aused* ]]'
out=$($P unpause d1 2>&1; $P ps); check "unpause" '[[ "$out" = *Up* ]]'
out=$($P update -m 64m d1 2>&1; $P exec d1 cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>&1); check "update" '[[ "$out" = *67108864* ]]'
out=$($P stop -t 5 d1 2>&1; $P inspect -f '{{.State.ExitCode}}' d1; $P logs d1 2>&1); check "stop by SIGTERM" '[[ "$out" = d1*3*bye ]]'
out=$($P start d1 2>&1; $P kill d1; $P wait d1); check "start again, kill, wait" '[[ "$out" = *137 ]]'
out=$($P rm d1 2>&1); check "rm" '[[ "$out" = *d1* || ${#out} = 64 ]]'
out=$($P pod create --infra=false --name p 2>&1; $P run --rm --pod p $R $I echo in-pod 2>&1; $P pod rm -f p 2>&1); check "pod" '[[ "$out" = *in-pod* ]]'
out=$($P run --rm --network host --pid host $I sh -c 'echo $$' 2>&1); check "host namespaces" '[ "$out" -gt 1 ]'
printf 'FROM %s\nRUN echo built > /built\nRUN cat /built\n' $I > $W/Containerfile
out=$($P build --layers=false --isolation oci --network none -t b -f $W/Containerfile $W 2>&1; $P run --rm $R b cat /built 2>&1); check "podman build" '[[ "$out" = *built ]]'
if command -v buildah >/dev/null; then
B="buildah --root $W/root --runroot $W/runroot"
out=$(c=$($B from $I 2>&1); $B run --runtime $RT --isolation oci --network none $c -- sh -c 'echo from-buildah; id -u' 2>&1; $B run --runtime $RT --isolation oci --network none $c -- sh -c 'exit 6'; echo "code=$?"; $B rm $c >/dev/null); check "buildah run" '[[ "$out" = *from-buildah*code=6 ]]'
fi
soon '[ -z "$out" ]' "find /sys/fs/cgroup -maxdepth 4 -path '*libpod*' -name 'libpod-*' -type d | grep -v conmon"; check "nothing left" '[ -z "$out" ]'
$P rm -af >/dev/null 2>&1
find /sys/fs/cgroup -depth -path '*libpod*' -type d -exec rmdir {} \; 2>/dev/null
finish "$(podman --version), $(conmon --version | head -1)" $W/root/overlay $W/root $W/runroot
