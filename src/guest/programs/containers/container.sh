#!/bin/busybox sh
# Part of qshim (src/guest/programs/containers/container.sh): what has to run in the guest beside containers, where guest-exec
# does not wait. install.sh puts it there as /run/qshim/container. For the POSIX shell of busybox. Each process that it starts
# costs 20 to 40 ms under emulation, so it keeps to what the shell does by itself.
#
# Every process of a container has a directory, /run/qshim/c/KEY, KEY being ID or ID/x/EXEC:
#   config.json, process.json, files/  what create brought
#   pid, ticks          its process id and start time (field 22 of /proc/PID/stat), against a pid that is used again
#   started, failed     start was called; crun refused it
#   ready, go, state    of a container with a terminal: what its hook says, waits for, and was told by crun
#   record              CODE UPTIME OOM: it has ended. Written before anybody is told
#   oom                 a further process's oom_score_adj
#   log                 what crun had to say

R=/run/qshim
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

. ./lib/ports.sh

# The exit is on record first, then announced.
finish() { # KEY CODE TOKEN
  key=$1 code=$2 token=$3 oom=0
  if [ -f "/sys/fs/cgroup/qshim/${key%%/*}/memory.events" ]; then
    while read -r name value; do
      [ "$name" = oom_kill ] && oom=$value
    done < "/sys/fs/cgroup/qshim/${key%%/*}/memory.events"
  fi
  read -r up _ < /proc/uptime
  echo "$code $up $oom" > "$R/c/$key/record"
  echo "exit $key $token $code $up $oom" 1<> $R/events
}

# A further process has its place before the out-of-memory killer from start-exec.sh; crun (1.8.1) gives it none. For a process
# of its own, which becomes crun.
place() {
  [ -s oom ] && read -r oom < ./oom && [ -n "$oom" ] && echo "$oom" > /proc/self/oom_score_adj
}

# What a process with a terminal wrote last, crun (1.8.1) does not forward: when that has ended, it puts the rest into its log, in
# pieces of 255 bytes with a line end behind each, which are taken off here.
late() {
  stty raw <&1
  size=$(stat -c %s log) offset=0
  while [ "$offset" -lt "${size:-0}" ]; do
    left=$((size - offset - 1))
    [ $left -gt 255 ] && left=255
    tail -c +$((offset + 1)) log | head -c $left
    offset=$((offset + left + 1))
  done
}

case $1 in
  # conmon calls this after a container's end: exited ID TOKEN
  exited)
    id=$2
    # No code: the container was never made, and create tells why.
    [ -s "$R/c/$id/exit/$id" ] || exit 0
    read -r code < "$R/c/$id/exit/$id"
    finish "$id" "$code" "$3"
    ;;
  # exec KEY TOKEN STDIN STDOUT STDERR: a further process, in the foreground of this one
  exec)
    key=$2 token=$3
    { cd "$R/c/$key" && plumb "$4" "$5" "$6" "$token"; } || exit 1
    (
      place 2> /dev/null
      exec crun --log=log exec --process process.json --pid-file pid "${key%%/*}"
    ) <&6 >&7 2>&8 6<&- 7>&- 8>&-
    code=$?
    if [ -s pid ]; then finish "$key" $code "$token"; else : > failed; fi
    ;;
  # terminal KIND KEY TOKEN PORT: a process with a terminal, whose other end socat holds
  terminal)
    kind=$2 key=$3 token=$4 port=$5
    cd "$R/c/$key" || exit 1
    socat "OPEN:$V$port,rdwr,ignoreeof" "SYSTEM:exec $R/container foreground $kind $key,pty,setsid,ctty,rawer"
    code=255
    [ -s code ] && read -r code < ./code
    if [ -s pid ]; then
      finish "$key" "$code" "$token"
    elif [ -e killed ]; then
      finish "$key" 137 "$token"
    else
      : > failed
      [ "$kind" = exec ] || echo failed 1<> ready
    fi
    printf %s "$token" > "$V$port"
    ;;
  foreground)
    cd "$R/c/$3" || exit 1
    id=${3%%/*}
    if [ "$2" = exec ]; then
      (
        place 2> /dev/null
        exec crun --log=log exec --tty --process process.json --pid-file pid "$id"
      )
    else
      crun --log=log run --bundle . --pid-file pid "$id"
    fi
    echo $? > code
    if [ -s pid ]; then late; fi
    ;;
  # hook KEY: holds a container with a terminal back between create and start
  hook)
    cd "$R/c/$2" || exit 1
    exec 5<> go
    cat > state
    echo created 1<> ready
    read -r word <&5
    [ "$word" = go ]
    ;;
esac
