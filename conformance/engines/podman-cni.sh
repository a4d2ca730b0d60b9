#!/usr/bin/env bash
# Podman with its CNI backend, on a list of our network plugin ($3) and three of the CNI project's ($4).
. "$(dirname "$0")/lib.sh"
export CONTAINERS_STORAGE_CONF=$W/storage.conf CONTAINERS_CONF=$W/containers.conf TMPDIR=$W
mkdir $W/net $W/plugins && ln -s "$3" $W/plugins/pintle && ln -s "$4"/* $W/plugins/
printf '[storage]\ndriver="overlay"\ngraphroot="%s/root"\nrunroot="%s/runroot"\n' $W $W > $W/storage.conf
printf '[engine]\nruntime="%s"\ncgroup_manager="cgroupfs"\nevents_logger="file"\nlock_type="file"\ntmp_dir="%s/tmp"\n[network]\nnetwork_backend="cni"\ncni_plugin_dirs=["%s/plugins"]\nnetwork_config_dir="%s/net"\ndefault_network="pt"\n[containers]\noom_score_adj=0\n' $RT $W $W $W > $W/containers.conf
cat > $W/net/pt.conflist <<E
{"cniVersion":"0.4.0","name":"pt","plugins":[{"type":"pintle","bridge":"pt0","subnets":["10.94.0.0/24","fd00:94::/64"],"stateDir":"$W/pt"},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"firewall","backend":"iptables"},{"type":"tuning"}]}
E
P="podman --root $W/root --runroot $W/runroot --cgroup-manager cgroupfs --runtime $RT"
$P load -q -i $IMAGE || exit 1
out=$($P network ls 2>&1); check "network ls" '[[ "$out" = *pt* ]]'
out=$($P run --rm --network pt $I ip addr show eth0 2>&1); check "address" '[[ "$out" = *10.94.0.*fd00:94::* ]]'
out=$($P run -d --network pt --name web -p 8088:80 $I sh -c 'mkdir /w; echo page > /w/index.html; httpd -f -p 80 -h /w' 2>&1); IP=$($P inspect -f '{{(index .NetworkSettings.Networks "pt").IPAddress}}' web)
soon '[[ "$out" = *page ]]' "$P run --rm --network pt $I wget -qO- http://$IP/"; check "container to container" '[[ "$out" = *page ]]'
out=$(curl -s -m 20 http://$(ip -4 -o addr show pt0 | sed 's/.*inet \([0-9.]*\).*/\1/'):8088/ 2>&1); check "published port" '[ "$out" = page ]'
out=$($P network reload web 2>&1; curl -s -m 20 http://10.94.0.1:8088/); check "network reload" '[[ "$out" = *page ]]'
out=$($P rm -f -t 0 web 2>&1; ls $W/pt/networks/pt/addresses | wc -l; ip -o link | grep -c veth); check "nothing left" '[[ "$out" = *0*0 ]]'
find /sys/fs/cgroup -depth -path '*libpod*' -type d -exec rmdir {} \; 2>/dev/null
finish "$(podman --version)" $W/root/overlay $W/root $W/runroot
