# Figures of the file system that is mounted at a point.
# MOUNTPOINT

. ./lib/containers.sh

mounted=
while read -r _ _ _ _ at _; do
  if [ "$at" = "$1" ]; then mounted=1; fi
done < /proc/self/mountinfo
[ -n "$mounted" ] || fail CONTAINER_FAILED "nothing is mounted at $1"
figures=$(stat -f -c '%S %b %f %a %c %d' "$1" 2>&1) || fail CONTAINER_FAILED "$figures"
echo "figures=$figures"
