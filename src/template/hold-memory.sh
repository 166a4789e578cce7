# Keeps a template's memory, which is open as descriptor 3, until a file is gone, or a signal comes.
# FILE, which comes into being within a minute

rest=
trap '[ -z "$rest" ] || kill "$rest" 2> /dev/null; exit' TERM
while
  sleep 60 3<&- &
  rest=$!
  wait "$rest"
  [ -e "$1" ]
do
  :
done
