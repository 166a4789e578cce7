# Starts a further process in a container; prints pid=.
# KEY TOKEN STDIN STDOUT STDERR TERMINAL (ports, 0: none) [OOMSCOREADJ]; process.json on stdin

. ./lib/containers.sh
. ./lib/ports.sh

key=$1 token=$2 in=$3 out=$4 err=$5 terminal=$6 oom=$7
[ -d "$R/c/${key%%/*}" ] || fail CONTAINER_FAILED "there is no container ${key%%/*}"
await_ports "$in" "$out" "$err" "$terminal"
{ mkdir -p "$R/c/${key%/*}" && mkdir "$R/c/$key" && cd "$R/c/$key" && cat > process.json; } || fail CONTAINER_FAILED
: > started
# As the container's own process, unless it asks for something else. crun ends its file without a newline.
if [ -z "$oom" ]; then
  read -r init < "$R/c/${key%%/*}/pid"
  read -r oom < "/proc/$init/oom_score_adj"
fi
echo "$oom" > oom
if [ "$terminal" != 0 ]; then
  setsid $R/container terminal exec "$key" "$token" "$terminal" < /dev/null > /dev/null 2>&1 &
else
  setsid $R/container exec "$key" "$token" "$in" "$out" "$err" < /dev/null > /dev/null 2>&1 &
fi
until [ -s pid ]; do
  [ -e failed ] && {
    log
    full "${key%%/*}"
    fail CONTAINER_REFUSED
  }
  sleep 0.01
done
read -r pid < ./pid
# It may have ended by now.
ticks_of "$pid" && echo "$ticks" > ticks
echo "pid=$pid"
