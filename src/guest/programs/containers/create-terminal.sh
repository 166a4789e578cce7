# Creates a container with a terminal: crun runs under socat, and a hook holds it back. Prints pid=.
# ID TOKEN PORT; stdin as for create.sh

. ./lib/containers.sh
. ./lib/limits.sh
. ./lib/ports.sh

id=$1 token=$2 port=$3
await_ports "$port"
{ mkdir "$R/c/$id" && cd "$R/c/$id" && tar -x && mkfifo -m 600 ready go; } || fail CONTAINER_FAILED
exec 4<> ready
setsid $R/container terminal run "$id" "$token" "$port" < /dev/null > /dev/null 2>&1 4<&- &
read -r line <&4
[ "$line" = created ] || {
  log
  fail CONTAINER_REFUSED
}
limit_one "$id"
pid_of_state
ticks_of "$pid"
echo "$ticks" > ticks
echo "pid=$pid"
