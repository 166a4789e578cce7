# Stops a container's processes where they are, or lets them go on.
# ID pause|resume

. ./lib/containers.sh

cd "$R/c/$1" || fail CONTAINER_FAILED
: > log
crun --log=log "$2" "$1" || {
  log
  fail CONTAINER_REFUSED
}
echo done=1
