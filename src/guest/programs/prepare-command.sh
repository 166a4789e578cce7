# Sees that a command of a caller's can be run with its streams on ports (run-command.sh): prints program=PATH and ready=1, or
# refused=1 with the reason on stderr. Uses the agent's own PATH, as the command will.
# PROGRAM DIRECTORY TERMINAL(0|1) PORT ...

. ./lib/ports.sh

refuse() { # WHY
  echo refused=1
  echo "$1" >&2
  exit 0
}

program=$1 directory=$2 terminal=$3
shift 3
await_ports "$@"
[ -d "$directory" ] || refuse "$directory is no directory"
found=
case $program in
  /*) found=$program ;;
  *)
    IFS=:
    for folder in $PATH; do
      if [ -f "$folder/$program" ] && [ -x "$folder/$program" ]; then
        found=$folder/$program
        break
      fi
    done
    unset IFS
    ;;
esac
[ -n "$found" ] || refuse 'the PATH of the guest agent has no such program'
[ -e "$found" ] || refuse 'there is no such file'
{ [ -f "$found" ] && [ -x "$found" ]; } || refuse 'it cannot be executed'
tools='mkfifo setsid env'
[ "$terminal" = 0 ] || tools="$tools socat stty"
for tool in $tools; do
  command -v "$tool" > /dev/null || refuse "the guest has no $tool, which a command with streams needs"
done
echo "program=$found"
echo ready=1
