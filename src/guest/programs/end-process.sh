# Ends a process with what it has started, and prints ended=1 once it has gone.
# PID

PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL

. ./lib/process-tree.sh

end_tree "$1"
# The kernel ends it in its own time; one that waits for a disk may stay.
tries=0
while { read -r line < "/proc/$1/stat"; } 2> /dev/null; do
  case ${line##*) } in Z* | X*) break ;; esac
  tries=$((tries + 1))
  if [ "$tries" -gt 40 ]; then exit 1; fi
  sleep 0.05
done
echo ended=1
