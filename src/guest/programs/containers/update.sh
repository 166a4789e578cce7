# Gives a container other limits.
# ID; linux.resources on stdin

. ./lib/containers.sh

cd "$R/c/$1" || fail CONTAINER_FAILED
: > log
{ cat > resources.json && crun --log=log update --resources resources.json "$1"; } || {
  log
  fail CONTAINER_REFUSED
}
echo done=1
