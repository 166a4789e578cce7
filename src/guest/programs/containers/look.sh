# Prints uptime= and, for each process, process=KEY STARTED ALIVE PID [CODE UPTIME OOM].

. ./lib/containers.sh

read -r up _ < /proc/uptime
echo "uptime=$up"
for directory in "$R"/c/* "$R"/c/*/x/*; do
  [ -d "$directory" ] || continue
  cd "$directory" || continue
  record='' alive=0 started=0 pid=0
  is_alive && alive=1
  [ -e started ] && [ ! -e failed ] && started=1
  [ -s record ] && read -r record < ./record
  echo "process=${directory#"$R"/c/} $started $alive $pid $record"
done
