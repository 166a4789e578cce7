# Figures of the file system that is mounted at a point.
# MOUNTPOINT

. ./lib/containers.sh

mountpoint -q "$1" || fail CONTAINER_FAILED "nothing is mounted at $1"
figures=$(stat -f -c '%S %b %f %a %c %d' "$1" 2>&1) || fail CONTAINER_FAILED "$figures"
echo "figures=$figures"
