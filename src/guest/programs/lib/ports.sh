# Ports of the guest's virtio-serial controller, by their numbers; 0 is none. For the POSIX shell of busybox.

# Nodes of ports are named after their controller and number; the agent's is number 1: $V is what comes before the number.
for node in /dev/vport*p1; do V=${node%1}; done

# Looks for the nodes of ports; those that do not come are named, and nothing else is done.
await_ports() { # PORT ...
  absent=
  for port; do
    if [ "$port" = 0 ]; then continue; fi
    tries=0
    until [ -c "$V$port" ]; do
      tries=$((tries + 1))
      [ $tries -gt 75 ] && {
        absent="$absent $port"
        break
      }
      sleep 0.02
    done
  done
  for port in $absent; do echo "absent=$port"; done
  [ -z "$absent" ] || exit 0
}

# The process's ends become descriptors 6, 7 and 8. Between a process and its ports lie FIFOs and one `cat` each. A port can be
# opened only once, and a process may well open its /dev/stdout again; and where a port has no end of file, a FIFO has: after
# it, the token is the end for the host.
#
# A FIFO is opened for both directions first, so that no opening waits: a signal would end such a wait, and with it the shell.
# Redirections are made by exec, which keeps no copies of what was open before: guest-exec waits for the last holder of its
# pipes.
plumb() { # STDIN STDOUT STDERR TOKEN
  mkfifo -m 666 in out err || return 1
  exec 6< /dev/null 7> /dev/null 8> /dev/null
  if [ "$1" != 0 ]; then
    exec 9<> in
    exec 3> in
    exec 6< in 9>&-
    (
      exec < "$V$1" >&3 2> /dev/null 3>&- 6<&-
      exec cat
    ) &
    exec 3>&-
  fi
  if [ "$2" != 0 ]; then
    exec 9<> out
    exec 3< out
    exec 7> out 9>&-
    (
      exec <&3 > "$V$2" 2> /dev/null 3<&- 6<&- 7>&-
      cat
      printf %s "$4"
    ) &
    exec 3<&-
  fi
  if [ "$3" != 0 ]; then
    exec 9<> err
    exec 3< err
    exec 8> err 9>&-
    (
      exec <&3 > "$V$3" 2> /dev/null 3<&- 6<&- 7>&- 8>&-
      cat
      printf %s "$4"
    ) &
    exec 3<&-
  fi
}
