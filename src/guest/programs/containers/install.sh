# Makes /run/qshim and the program in it, and sees that what is written to /run/qshim/events gets to the events port. Harmless
# when all is there.
# EVENTSPORT; container.sh on stdin
#
# All containers together leave room for the guest itself: the agent, which has to answer when they have taken all they can get. They
# are below one control group, which has limits of its own, and each gets its share of them unless it asks for less
# (lib/limits.sh). /dev/shm, which the containers of a pod share, is as large as container runtimes make it.

. ./lib/containers.sh
. ./lib/limits.sh
. ./lib/ports.sh

for tool in crun conmon socat setsid; do
  command -v $tool > /dev/null || fail GUEST_TOOL_MISSING "the guest has no $tool"
done
await_ports "$1"
mkdir -p $R/c || fail CONTAINER_FAILED
[ -s "$R/limits" ] || limit_all
{ cat > $R/container.new && chmod 755 $R/container.new && mv $R/container.new $R/container; } || fail CONTAINER_FAILED
[ -p $R/events ] || mkfifo -m 600 $R/events || fail CONTAINER_FAILED
if [ -s $R/forwarder ] && read -r pid port < $R/forwarder && kill -0 "$pid" 2> /dev/null; then
  [ "$port" = "$1" ] && {
    echo ready=1
    exit 0
  }
  kill "$pid"
fi
# shellcheck disable=SC2016 # the shell that is started expands them
setsid sh -c 'echo "$$ $1" > /run/qshim/forwarder; exec 3<> /run/qshim/events; exec cat <&3 > "$2"' sh "$1" "$V$1" \
  < /dev/null > /dev/null 2>&1 &
echo ready=1
