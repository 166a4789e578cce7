# Keeps a template's memory, which is open as descriptor 3, until a file is gone, or a signal comes.
# FILE, which comes into being within a minute

# Ended before this is: whoever sees that this has ended takes all of it for gone. By KILL: a child that is still a shell
# has the handler of this trap, and would lose a TERM.
trap '[ -z "$!" ] || { kill -9 "$!" && wait "$!"; } 2> /dev/null; exit' TERM
while
  sleep 60 3<&- &
  wait "$!"
  [ -e "$1" ]
do
  :
done
