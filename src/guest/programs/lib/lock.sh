# One script at a time for each disk: what comes after a caller has given up waits until its mkfs or mount is over, and then
# sees what came of it.

. ./lib/disk.sh

locks=

# A lock whose holder was killed is taken away under a second lock, so that nobody takes away a fresh one. (busybox of Debian
# has no flock. A mkfs that outlives its killed shell has the disk open exclusively, and a second mkfs fails.)
hold() { # LOCK
  lock=$1
  until (
    set -C
    echo $$ > "$lock"
  ) 2> /dev/null; do
    if mkdir "$lock.stale" 2> /dev/null; then
      holder=
      if [ -e "$lock" ]; then read -r holder < "$lock"; fi
      if [ -n "$holder" ] && ! [ -e "/proc/$holder" ]; then rm -f "$lock"; fi
      rmdir "$lock.stale"
    fi
    sleep 0.05
  done
  locks="$locks $lock"
}

# Locks the disk that look_for_disk has found, until the script ends.
lock_disk() {
  [ -w /run ] || fail GUEST_TOOL_MISSING 'a writable /run'
  trap 'rm -f $locks' EXIT
  hold "/run/qshim-$name.lock"
}
