# Prints pid= for each process in a container's cgroup.
# ID

. ./lib/containers.sh

find "/sys/fs/cgroup/qshim/$1" -name cgroup.procs 2> /dev/null | while read -r list; do
  while read -r pid; do echo "pid=$pid"; done < "$list"
done
