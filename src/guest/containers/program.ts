/**
 * Between a process and its ports lie FIFOs and one `cat` each. A port can be opened only once, and a process may well open its
 * /dev/stdout again; and where a port has no end of file, a FIFO has: after it, the token is the end for the host.
 */
export const PLUMBING = `
for V in /dev/vport*p1; do V=\${V%1}; done
# plumb STDIN STDOUT STDERR (ports, 0: none) TOKEN: the process's ends become descriptors 6, 7 and 8. A FIFO is opened for both
# directions first, so that no opening waits: a signal would end such a wait, and with it the shell. Redirections are made by
# exec, which keeps no copies of what was open before: guest-exec waits for the last holder of its pipes.
plumb() {
  mkfifo -m 666 in out err || return 1
  exec 6< /dev/null 7> /dev/null 8> /dev/null
  if [ $1 != 0 ]; then
    exec 9<> in 3> in 6< in 9>&-
    (exec < "$V$1" >&3 2> /dev/null 3>&- 6<&-; exec cat) &
    exec 3>&-
  fi
  if [ $2 != 0 ]; then
    exec 9<> out 3< out 7> out 9>&-
    (exec <&3 > "$V$2" 2> /dev/null 3<&- 6<&- 7>&-; cat; printf %s "$4") &
    exec 3<&-
  fi
  if [ $3 != 0 ]; then
    exec 9<> err 3< err 8> err 9>&-
    (exec <&3 > "$V$3" 2> /dev/null 3<&- 6<&- 7>&- 8>&-; cat; printf %s "$4") &
    exec 3<&-
  fi
}
`;

/**
 * The program that `INSTALL` puts into the guest as /run/qshim/container: what has to run there beside containers, where guest-exec
 * does not wait. For the POSIX shell of busybox. Each process that it starts costs 20 to 40 ms under emulation, so it keeps to what
 * the shell does by itself.
 *
 * Every process of a container has a directory, /run/qshim/c/KEY, KEY being `ID` or `ID/x/EXEC`:
 * | file | what it says |
 * |---|---|
 * | `config.json`, `process.json`, `files/` | what `create` brought |
 * | `pid`, `ticks` | its process id and start time (field 22 of /proc/PID/stat), against a pid that is used again |
 * | `started`, `failed` | `start` was called; crun refused it |
 * | `ready`, `go`, `state` | of a container with a terminal: what its hook says, waits for, and was told by crun |
 * | `record` | `CODE UPTIME OOM`: it has ended. Written before anybody is told |
 * | `log` | what crun had to say |
 */
export const CONTAINER_PROGRAM = `#!/bin/busybox sh
# Part of qshim (src/guest/containers/program.ts).
R=/run/qshim
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
${PLUMBING}
# finish KEY CODE TOKEN: the exit is on record first, then announced.
finish() {
  key=$1 code=$2 token=$3 oom=0
  if [ -f "/sys/fs/cgroup/qshim/\${key%%/*}/memory.events" ]; then
    while read -r name value; do
      [ "$name" = oom_kill ] && oom=$value
    done < "/sys/fs/cgroup/qshim/\${key%%/*}/memory.events"
  fi
  read -r up _ < /proc/uptime
  echo "$code $up $oom" > "$R/c/$key/record"
  echo "exit $key $token $code $up $oom" 1<> $R/events
}

# What a process with a terminal wrote last, crun (1.8.1) does not forward: when that has ended, it puts the rest into its log, in
# pieces of 255 bytes with a line end behind each, which are taken off here.
late() {
  stty raw <&1
  size=$(stat -c %s log) done=0
  while [ "$done" -lt "\${size:-0}" ]; do
    left=$((size - done - 1))
    [ $left -gt 255 ] && left=255
    tail -c +$((done + 1)) log | head -c $left
    done=$((done + left + 1))
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
    cd "$R/c/$key" && plumb $4 $5 $6 "$token" || exit 1
    crun --log=log exec --process process.json --pid-file pid "\${key%%/*}" <&6 >&7 2>&8 6<&- 7>&- 8>&-
    code=$?
    if [ -s pid ]; then finish "$key" $code "$token"; else : > failed; fi
    ;;
  # terminal KIND KEY TOKEN PORT: a process with a terminal, whose other end socat holds
  terminal)
    kind=$2 key=$3 token=$4 port=$5
    cd "$R/c/$key" || exit 1
    socat "OPEN:$V$port,rdwr,ignoreeof" "SYSTEM:exec $R/container foreground $kind $key,pty,setsid,ctty,rawer"
    code=255
    [ -s code ] && read -r code < code
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
    id=\${3%%/*}
    if [ "$2" = exec ]; then
      crun --log=log exec --tty --process process.json --pid-file pid "$id"
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
`;
