# What containers may take of the guest. For the POSIX shell of busybox. /run/qshim/limits has, in bytes and processes, what a
# container gets that asks for nothing, with the names of the files of a control group.

G=/sys/fs/cgroup/qshim
AGENT=/sys/fs/cgroup/qshim-agent
# In KiB, of what was free before the first container: an eighth is the guest's own, within these.
RESERVE_MIN=16384
RESERVE_MAX=131072

# Once, before the first container: half of the processes that the kernel allows, and all memory but the reserve. Where there is no
# version 2 of control groups, or a controller is missing, there is no such limit.
limit_all() {
  # The shell cannot read these byte by byte.
  threads=$(cat /proc/sys/kernel/threads-max)
  pids=$(cat /proc/sys/kernel/pid_max)
  [ "$threads" -gt "$pids" ] && threads=$pids
  free=0
  while read -r name value _; do
    [ "$name" = MemAvailable: ] && free=$value
  done < /proc/meminfo
  reserve=$((free / 8))
  [ $reserve -lt $RESERVE_MIN ] && reserve=$RESERVE_MIN
  [ $reserve -gt $RESERVE_MAX ] && reserve=$RESERVE_MAX
  memory=$(((free - reserve) * 1024)) share=$(((free - reserve) * 960))
  mkdir -p $G 2> /dev/null
  {
    # Of each, one container's share is less than all: what one takes is not all that there is.
    if [ $memory -gt 0 ] && set_limit $G/memory.max $memory; then echo "memory.max $share"; fi
    if [ "$threads" -gt 16 ] && set_limit $G/pids.max $((threads / 2)); then echo "pids.max $((threads / 4))"; fi
  } > "$R/limits"
  # Others go first when memory runs out: commands of the agent's are no containers, and have no limit. Their group keeps the
  # reserve, which the kernel takes from others' caches before.
  [ "$PPID" -gt 1 ] && echo -500 > "/proc/$PPID/oom_score_adj" &&
    mkdir -p $AGENT && set_limit $AGENT/memory.low $((reserve * 1024)) && echo "$PPID" > $AGENT/cgroup.procs
  # It may be no file system of its own.
  mount -o remount,size=65536k /dev/shm
} 2> /dev/null

set_limit() { # FILE VALUE
  [ -e "$1" ] && echo "$2" > "$1"
}

# For a container that was created and has not started: crun leaves "max" where its configuration asks for no limit.
limit_one() { # ID
  while read -r file value; do
    [ -e "$G/$1/$file" ] && read -r set < "$G/$1/$file" && [ "$set" = max ] && echo "$value" > "$G/$1/$file"
  done < "$R/limits"
} 2> /dev/null
