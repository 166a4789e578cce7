import { PLUMBING } from './program.ts';

/**
 * What guest-exec runs for containers, for the POSIX shell of busybox. As in guest/scripts.ts: values come as arguments, never
 * pasted into text; results are lines key=value; `error=REASON` is a refusal, explained on stderr.
 */

const HEAD = `R=/run/qshim
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Nodes of ports are named after their controller and number; the agent's is number 1: \$V is what comes before the number.
for V in /dev/vport*p1; do V=\${V%1}; done
fail() { echo "error=$1"; [ -z "$2" ] || echo "$2" >&2; exit 0; }
# crun's own words.
log() { [ -s log ] && cat log >&2; }
# Looks for the nodes of ports; those that do not come are named, and nothing else is done.
await_ports() {
  absent=
  for port; do
    tries=0
    until [ -c "$V$port" ]; do
      tries=$((tries + 1))
      [ $tries -gt 75 ] && { absent="$absent $port"; break; }
      sleep 0.02
    done
  done
  for port in $absent; do echo "absent=$port"; done
  [ -z "$absent" ] || exit 0
}
ticks_of() {
  ticks=
  read -r stat 2>/dev/null < "/proc/$1/stat" || return 1
  set -- \${stat##*) }
  ticks=\${20}
}
# What crun tells the hook that holds a container with a terminal back.
pid_of_state() {
  read -r state < state
  pid=\${state##*'"pid":'}
  pid=\${pid%%,*}
}
# conmon and crun end their files without a newline, for which read answers 1. Where a hook holds back there is no pid file yet.
is_alive() {
  pid= known=
  [ -s ticks ] || return 1
  if [ -s pid ]; then
    read -r pid < pid
  else
    [ -p go ] && [ -s state ] || return 1
    pid_of_state
  fi
  read -r known < ticks
  ticks_of "$pid" && [ "$ticks" = "$known" ]
}
`;

/**
 * Arguments: events port. stdin: CONTAINER_PROGRAM. Makes the directory and the program, and sees that what is written to
 * /run/qshim/events gets to the events port. Harmless when all is there.
 */
export const INSTALL = `${HEAD}
for tool in crun conmon socat setsid; do
  command -v $tool > /dev/null || fail GUEST_TOOL_MISSING "the guest has no $tool"
done
await_ports "$1"
mkdir -p $R/c || fail CONTAINER_FAILED
cat > $R/container.new && chmod 755 $R/container.new && mv $R/container.new $R/container || fail CONTAINER_FAILED
[ -p $R/events ] || mkfifo -m 600 $R/events || fail CONTAINER_FAILED
if [ -s $R/forwarder ] && read -r pid port < $R/forwarder && kill -0 "$pid" 2>/dev/null; then
  [ "$port" = "$1" ] && { echo ready=1; exit 0; }
  kill "$pid"
fi
setsid sh -c 'echo "$$ $1" > /run/qshim/forwarder; exec 3<> /run/qshim/events; exec cat <&3 > "$2"' sh "$1" "$V$1" \\
  < /dev/null > /dev/null 2>&1 &
echo ready=1
`;

/** Arguments: pairs PCI-ADDRESS SERIAL. Prints `device=MAJOR:MINOR` for each, in order. */
export const FIND_DEVICES = `${HEAD}
while [ $# -gt 1 ]; do
  found=
  for block in /sys/bus/pci/devices/"$1"/virtio*/block/*; do
    [ -e "$block/dev" ] && read -r found < "$block/dev"
    serial=
    [ -e "$block/serial" ] && read -r serial < "$block/serial"
  done
  [ -n "$found" ] || fail GUEST_DISK_NOT_FOUND "no disk at $1"
  [ "$serial" = "$2" ] || fail GUEST_DISK_MISMATCH "the disk at $1 calls itself $serial, not $2"
  echo "device=$found"
  shift 2
done
`;

/** Arguments: ID TOKEN STDIN STDOUT STDERR (ports, 0: none). stdin: tar of config.json and files. Prints `pid=`. */
export const CREATE = `${HEAD}${PLUMBING}
id=$1 token=$2 in=$3 out=$4 err=$5
ports=
for port in $in $out $err; do [ $port = 0 ] || ports="$ports $port"; done
await_ports $ports
mkdir "$R/c/$id" && cd "$R/c/$id" && mkdir exit && tar -x && plumb $in $out $err "$token" || fail CONTAINER_FAILED
answer=$(_OCI_SYNCPIPE=3 conmon --api-version 1 -n "$id" -c "$id" -u "$id" -b "$PWD" -p "$PWD/pid" -r /usr/bin/crun \\
  --runtime-arg "--log=$PWD/log" -l passthrough --full-attach --exit-dir "$PWD/exit" --exit-command $R/container \\
  --exit-command-arg exited --exit-command-arg "$id" --exit-command-arg "$token" \\
  3>&1 <&6 >&7 2>&8 6<&- 7>&- 8>&- | { read -r line; echo "$line"; })
[ -n "$answer" ] && [ -s pid ] || { log; fail CONTAINER_REFUSED; }
read -r pid < pid
ticks_of "$pid"
echo "$ticks" > ticks
echo "pid=$pid"
`;

/** Arguments: ID TOKEN PORT. stdin as CREATE. With a terminal: crun runs under socat, and a hook holds it back. */
export const CREATE_TERMINAL = `${HEAD}
id=$1 token=$2 port=$3
await_ports "$port"
mkdir "$R/c/$id" && cd "$R/c/$id" && tar -x && mkfifo -m 600 ready go || fail CONTAINER_FAILED
exec 4<> ready
setsid $R/container terminal run "$id" "$token" "$port" < /dev/null > /dev/null 2>&1 4<&- &
read -r line <&4
[ "$line" = created ] || { log; fail CONTAINER_REFUSED; }
pid_of_state
ticks_of "$pid"
echo "$ticks" > ticks
echo "pid=$pid"
`;

/** Arguments: ID. */
export const START = `${HEAD}
cd "$R/c/$1" || fail CONTAINER_FAILED
: > started
: > log
if [ -p go ]; then
  echo go 1<> go
  until [ -s pid ]; do
    [ -e failed ] && { log; fail CONTAINER_REFUSED; }
    sleep 0.01
  done
else
  crun --log=log start "$1" || { rm -f started; log; fail CONTAINER_REFUSED; }
fi
echo started=1
`;

/** Arguments: KEY TOKEN STDIN STDOUT STDERR TERMINAL (ports, 0: none). stdin: process.json. Prints `pid=`. */
export const START_EXEC = `${HEAD}
key=$1 token=$2 in=$3 out=$4 err=$5 terminal=$6
[ -d "$R/c/\${key%%/*}" ] || fail CONTAINER_FAILED "there is no container \${key%%/*}"
ports=
for port in $in $out $err $terminal; do [ $port = 0 ] || ports="$ports $port"; done
await_ports $ports
mkdir -p "$R/c/\${key%/*}" && mkdir "$R/c/$key" && cd "$R/c/$key" && cat > process.json || fail CONTAINER_FAILED
: > started
if [ $terminal != 0 ]; then
  setsid $R/container terminal exec "$key" "$token" $terminal < /dev/null > /dev/null 2>&1 &
else
  setsid $R/container exec "$key" "$token" $in $out $err < /dev/null > /dev/null 2>&1 &
fi
until [ -s pid ]; do
  [ -e failed ] && { log; fail CONTAINER_REFUSED; }
  sleep 0.01
done
read -r pid < pid
# It may have ended by now.
ticks_of "$pid" && echo "$ticks" > ticks
echo "pid=$pid"
`;

/** Arguments: KEY SIGNAL ALL (0 or 1). A process that has ended is fine. */
export const KILL = `${HEAD}
key=$1 signal=$2 all=$3 group=/sys/fs/cgroup/qshim/$1
cd "$R/c/$key" 2>/dev/null || exit 0
if [ "$all" = 1 ] && [ -d "$group" ]; then
  if [ "$signal" = 9 ]; then
    echo 1 > "$group/cgroup.kill"
  else
    find "$group" -name cgroup.procs | while read -r list; do
      while read -r pid; do kill -"$signal" "$pid" 2>/dev/null; done < "$list"
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
kill -"$signal" "$pid" 2>/dev/null || ! is_alive || fail CONTAINER_FAILED "signal $signal could not be sent"
`;

/** Arguments: KEY COLUMNS ROWS. */
export const RESIZE = `${HEAD}
cd "$R/c/$1" || fail CONTAINER_FAILED
is_alive || exit 0
stty -F "/proc/$pid/fd/0" rows "$3" cols "$2" || ! is_alive || fail CONTAINER_FAILED
`;

/**
 * Arguments: KEY FORCE (0 or 1). Removes a process's trace; for a container all of it. With FORCE, also what runs.
 */
export const DELETE = `${HEAD}
key=$1 force=$2 id=\${1%%/*}
if [ "$key" = "$id" ]; then
  if [ "$force" = 1 ] && [ -p "$R/c/$id/go" ]; then echo end 1<> "$R/c/$id/go"; fi
  if [ -d "/run/crun/$id" ]; then
    if [ "$force" = 1 ]; then set -- --force; else set --; fi
    crun --log="$R/delete.log" delete "$@" "$id" || [ ! -d "/run/crun/$id" ] || { cat "$R/delete.log" >&2; fail CONTAINER_REFUSED; }
  fi
  group=/sys/fs/cgroup/qshim/$id
  if [ -d "$group" ]; then
    [ "$force" = 1 ] && echo 1 > "$group/cgroup.kill"
    find "$group" -depth -type d -exec rmdir {} +
  fi
elif [ "$force" = 1 ] && cd "$R/c/$key" 2>/dev/null; then
  is_alive && kill -9 "$pid"
fi
rm -rf "$R/c/$key" "$R/delete.log"
[ ! -d "$R/c/$key" ] || fail CONTAINER_FAILED
echo deleted=1
`;

/** Arguments: ID. Prints `pid=` for each process in the container's cgroup. */
export const PIDS = `${HEAD}
find "/sys/fs/cgroup/qshim/$1" -name cgroup.procs 2>/dev/null | while read -r list; do
  while read -r pid; do echo "pid=$pid"; done < "$list"
done
`;

/** Arguments: ID. Prints `FILE=LINE` for each line of the cgroup's files. */
export const STATS = `${HEAD}
cd "/sys/fs/cgroup/qshim/$1" || fail CONTAINER_FAILED "the container has no control group any more"
for file in cpu.stat memory.stat memory.current memory.max memory.events pids.current pids.max io.stat; do
  [ -e $file ] || continue
  while read -r line; do echo "$file=$line"; done < $file
done
`;

/** Arguments: ID pause|resume. */
export const FREEZE = `${HEAD}
cd "$R/c/$1" || fail CONTAINER_FAILED
: > log
crun --log=log "$2" "$1" || { log; fail CONTAINER_REFUSED; }
echo done=1
`;

/** Arguments: ID. stdin: linux.resources. */
export const UPDATE = `${HEAD}
cd "$R/c/$1" || fail CONTAINER_FAILED
: > log
cat > resources.json && crun --log=log update --resources resources.json "$1" || { log; fail CONTAINER_REFUSED; }
echo done=1
`;

/** Prints `uptime=` and, for each process, `process=KEY STARTED ALIVE PID [CODE UPTIME OOM]`. */
export const LOOK = `${HEAD}
read -r up _ < /proc/uptime
echo "uptime=$up"
for directory in $R/c/* $R/c/*/x/*; do
  [ -d "$directory" ] || continue
  cd "$directory" || continue
  record= alive=0 started=0 pid=0
  is_alive && alive=1
  [ -e started ] && [ ! -e failed ] && started=1
  [ -s record ] && read -r record < record
  echo "process=\${directory#$R/c/} $started $alive $pid $record"
done
`;
