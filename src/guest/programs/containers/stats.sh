# Prints FILE=LINE for each line of the files of a container's cgroup.
# ID

. ./lib/containers.sh

cd "/sys/fs/cgroup/qshim/$1" || fail CONTAINER_FAILED "the container has no control group any more"
for file in cpu.stat memory.stat memory.current memory.max memory.events pids.current pids.max io.stat; do
  [ -e $file ] || continue
  while read -r line; do echo "$file=$line"; done < $file
done
