# Creates a container without a terminal; prints pid=.
# ID TOKEN STDIN STDOUT STDERR (ports, 0: none); a tar of config.json and files on stdin

. ./lib/containers.sh
. ./lib/limits.sh
. ./lib/ports.sh

id=$1 token=$2 in=$3 out=$4 err=$5
await_ports "$in" "$out" "$err"
{ mkdir "$R/c/$id" && cd "$R/c/$id" && mkdir exit && tar -x && plumb "$in" "$out" "$err" "$token"; } || fail CONTAINER_FAILED
answer=$(_OCI_SYNCPIPE=3 conmon --api-version 1 -n "$id" -c "$id" -u "$id" -b "$PWD" -p "$PWD/pid" -r /usr/bin/crun \
  --runtime-arg "--log=$PWD/log" -l passthrough --full-attach --exit-dir "$PWD/exit" --exit-command $R/container \
  --exit-command-arg exited --exit-command-arg "$id" --exit-command-arg "$token" \
  3>&1 <&6 >&7 2>&8 6<&- 7>&- 8>&- | {
  read -r line
  echo "$line"
})
{ [ -n "$answer" ] && [ -s pid ]; } || {
  log
  fail CONTAINER_REFUSED
}
limit_one "$id"
read -r pid < ./pid
ticks_of "$pid"
echo "$ticks" > ticks
echo "pid=$pid"
