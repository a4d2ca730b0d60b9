# Sourced by the scripts beside it, each of which runs in a mount and a network namespace of its own: $1 is the OCI runtime, $2 the archive
# of a small image, $W a folder that is removed at the end, $I the image's name.
set -u
export PATH="$PATH:/usr/sbin:/sbin" CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
RT=$1 IMAGE=$2 I=localhost/busybox:1 STEPS=0 GOOD=0 out=
W=$(mktemp -d)
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/lock && ip link set lo up || exit 1

# check NAME CONDITION: whether what the last command printed, $out, is as it should be.
check() {
  STEPS=$((STEPS + 1))
  if eval "$2"; then GOOD=$((GOOD + 1)); echo "ok     $1"; else echo "FAILED $1: $out"; fi
}

# on_terminal COMMAND...: the command on a terminal of its own, whose input does not end.
on_terminal() { python3 "$(dirname "$0")/terminal.py" "$@"; }

# soon CONDITION COMMAND: the command again and again until what it prints, $out, is as it should be, for a minute.
soon() {
  local until=$((SECONDS + 60))
  while out=$(eval "$2" 2>&1); ! eval "$1" && [ "$SECONDS" -lt "$until" ]; do sleep 0.1; done
}

# has TEXT...: whether $out holds every one of these texts.
has() { for text in "$@"; do [[ "$out" = *"$text"* ]] || return 1; done; }

# finish VERSION [MOUNTS...]: the end, with the engine's version, after its own folders were unmounted.
finish() {
  echo "$GOOD of $STEPS: $1"
  shift
  for place in "$@"; do umount -l "$place" 2>/dev/null; done
  rm -rf "$W" 2>/dev/null
  [ "$GOOD" = "$STEPS" ]
}
