# Removes a process's trace; for a container all of it. With FORCE, also what runs.
# KEY FORCE(0|1)

. ./lib/containers.sh

key=$1 force=$2 id=${1%%/*}
if [ "$key" = "$id" ]; then
  if [ "$force" = 1 ] && [ -p "$R/c/$id/go" ]; then echo end 1<> "$R/c/$id/go"; fi
  if [ -d "/run/crun/$id" ]; then
    if [ "$force" = 1 ]; then set -- --force; else set --; fi
    crun --log="$R/delete.log" delete "$@" "$id" || [ ! -d "/run/crun/$id" ] || {
      cat "$R/delete.log" >&2
      fail CONTAINER_REFUSED
    }
  fi
  group=/sys/fs/cgroup/qshim/$id
  if [ -d "$group" ]; then
    [ "$force" = 1 ] && echo 1 > "$group/cgroup.kill"
    find "$group" -depth -type d -exec rmdir {} +
  fi
elif [ "$force" = 1 ] && cd "$R/c/$key" 2> /dev/null; then
  is_alive && kill -9 "$pid"
fi
rm -rf "$R/c/$key" "$R/delete.log"
[ ! -d "$R/c/$key" ] || fail CONTAINER_FAILED
echo deleted=1
