# Ends a process and all below it. They are stopped first, so that none makes another meanwhile. What has left its parents
# (a daemon) is not found.
# PID

PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL

kill -STOP "$1" 2> /dev/null
tree=" $1 "
more=1
while [ -n "$more" ]; do
  more=
  for path in /proc/[0-9]*/stat; do
    { read -r line < "$path"; } 2> /dev/null || continue
    pid=${line%% *} rest=${line##*) }
    rest=${rest#? } parent=${rest%% *}
    case $tree in *" $pid "*) continue ;; esac
    case $tree in
      *" $parent "*)
        kill -STOP "$pid" 2> /dev/null
        tree="$tree$pid " more=1
        ;;
    esac
  done
done
# shellcheck disable=SC2086 # one word each
kill -KILL $tree 2> /dev/null
# The kernel ends it in its own time; one that waits for a disk may stay.
tries=0
while { read -r line < "/proc/$1/stat"; } 2> /dev/null; do
  case ${line##*) } in Z* | X*) break ;; esac
  tries=$((tries + 1))
  if [ "$tries" -gt 40 ]; then exit 1; fi
  sleep 0.05
done
echo ended=1
