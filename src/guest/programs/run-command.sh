# Runs a command of a caller's whose streams are ports; prepare-command.sh has seen them. It stays until the command has ended.
# On the control port, in lines,
#   the guest says      pid PID, then exit CODE (128 + N when signal N ended it)
#   the host says       signal N, size ROWS COLUMNS, end
# The command ends with the control port: when that goes, or the host says so, it is killed with what it has started.
# TOKEN CONTROL STDIN STDOUT STDERR TERMINAL (ports, 0: none) ROWS COLUMNS DIRECTORY VARIABLES [NAME=VALUE ...] PROGRAM
# [ARGUMENT ...]; VARIABLES is how many there are. With none the command has the agent's environment, which nothing here changes.

. ./lib/ports.sh
. ./lib/process-tree.sh

token=$1 control=$2 in=$3 out=$4 err=$5 terminal=$6 rows=$7 columns=$8 directory=$9
shift 9
variables=$1
shift
[ "$variables" = 0 ] || set -- env -i "$@"

# The other end of the terminal is socat's, which ends with its own child, and passes on first what is left. That child has this end
# open for as long as descriptor 9 is, and this shell has it as 6, 7 and 8: the size is set before the command comes. Neither of
# them leads a session, so the terminal is nobody's yet.
open_terminal() {
  mkfifo open || return 1
  exec 9<> open
  (
    socat -t0 "OPEN:$V$terminal,rdwr,ignoreeof" "SYSTEM:tty > tty; cat open,pty"
    if [ -c "$V$terminal" ]; then printf %s "$token" > "$V$terminal"; fi
  ) 9>&- &
  tries=0
  until [ -s tty ]; do
    tries=$((tries + 1))
    [ $tries -gt 250 ] && return 1
    sleep 0.02
  done
  read -r tty < ./tty
  exec 6<> "$tty"
  exec 7>&6 8>&6
  stty rows "$rows" cols "$columns" <&6
}

# For a process of its own. While the host has not opened its side of a port, a read finds the end of file as well.
obey() {
  while :; do
    if read -r word first second <&4; then
      :
    elif [ -c "$V$control" ]; then
      word=
      sleep 0.1
    else
      word=end
    fi
    case $word in
      signal) read -r pid < ./pid && kill -"$first" "$pid" ;;
      size) stty -F "$tty" rows "$first" cols "$second" ;;
      end)
        until [ -s pid ]; do sleep 0.02; done
        read -r pid < ./pid
        end_tree "$pid"
        return
        ;;
    esac
  done
}

home=/run/qshim/commands/$token
{ mkdir -p "$home" && cd "$home"; } || exit 1
# The control port comes last, so that nothing but this shell and the one that obeys has it open.
if [ "$terminal" = 0 ]; then
  plumb "$in" "$out" "$err" "$token"
else
  open_terminal
fi || {
  cd / && rm -rf "$home"
  exit 1
}
exec 4<> "$V$control"
(
  exec 6<&- 7>&- 8>&- 9>&-
  obey
) &
obeying=$!
# Not in the background: a shell lets what it runs there ignore SIGINT. The session is the command's own.
(
  read -r pid _ < /proc/self/stat
  echo "$pid" > pid
  echo "pid $pid" >&4
  cd -- "$directory" || exit 126
  exec 4>&-
  [ "$terminal" = 0 ] || exec setsid -c "$@"
  exec setsid "$@"
) <&6 >&7 2>&8 6<&- 7>&- 8>&- 9>&-
code=$?
kill "$obeying"
exec 6<&- 7>&- 8>&- 9>&-
cd / && rm -rf "$home"
echo "exit $code" >&4
