# Sends a signal to a process, or to ALL of a container. A process that has ended is fine.
# KEY SIGNAL ALL(0|1)

. ./lib/containers.sh

key=$1 signal=$2 all=$3 group=/sys/fs/cgroup/qshim/$1
cd "$R/c/$key" 2> /dev/null || exit 0
if [ "$all" = 1 ] && [ -d "$group" ]; then
  if [ "$signal" = 9 ]; then
    echo 1 > "$group/cgroup.kill"
  else
    find "$group" -name cgroup.procs | while read -r list; do
      while read -r each; do kill -"$signal" "$each" 2> /dev/null; done < "$list"
    done
  fi
fi
[ -e record ] && exit 0
if [ -p go ] && [ ! -e started ]; then
  # Held back by its hook, where nothing but the end can reach it.
  [ "$signal" = 9 ] || [ "$signal" = 15 ] || exit 0
  : > killed
  echo end 1<> go
  exit 0
fi
is_alive || exit 0
kill -"$signal" "$pid" 2> /dev/null || ! is_alive || fail CONTAINER_FAILED "signal $signal could not be sent"
