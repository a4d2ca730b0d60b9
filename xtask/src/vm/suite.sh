#!/bin/sh
# In the machine of `cargo xtask vm critest`: a daemon and Kubernetes' suite against it. After a line `@report`, the suite's report goes to standard output.
place=/run/suite
socket=$place/pintle.sock
mkdir -p $place
# Its state is on the disk: in this kernel a tmpfs cannot map ids, which pods with users of their own need.
pintle serve --root /var/lib/pintle --state /var/lib/pintle-state --socket $socket --config /payload/suite/config.toml >$place/daemon.log 2>&1 &
daemon=$!
until [ -S $socket ]; do
    kill -0 $daemon || { cat $place/daemon.log; exit 1; }
    sleep 0.2
done
set --
while IFS= read -r argument; do
    set -- "$@" "$argument"
done </payload/suite/arguments
cd $place || exit 1
/payload/suite/critest -runtime-endpoint unix://$socket -image-endpoint unix://$socket \
    --ginkgo.no-color --ginkgo.json-report=$place/report.json "$@" >$place/words 2>&1
status=$?
kill $daemon
wait $daemon
if [ $status != 0 ]; then
    tail -n 150 $place/words
    echo "-- the end of the daemon's log"
    tail -n 100 $place/daemon.log
fi
grep -i -E 'apparmor|selinux' $place/daemon.log | head -n 5
dmesg | grep -i -E 'apparmor=|avc:' | tail -n 20
echo @report
cat $place/report.json
exit $status
