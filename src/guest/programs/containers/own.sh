# Gives a mounted volume to a group, as Kubernetes does for fsGroup: it may read and write all, and what is made there is its own.
# MOUNTPOINT GID ALWAYS(0: not when the volume's root is the group's already|1)

. ./lib/containers.sh

point=$1 gid=$2 always=$3
if [ "$always" = 0 ] && [ "$(stat -c %g "$point")" = "$gid" ] && [ -g "$point" ]; then
  echo owned=0
  exit 0
fi
# The root comes last: it says that all the rest is done.
{
  find "$point" -mindepth 1 -xdev -exec chown -h ":$gid" {} + &&
    find "$point" -mindepth 1 -xdev -type d -exec chmod u+rwx,g+rwxs {} + &&
    find "$point" -mindepth 1 -xdev -type f -exec chmod u+rw,g+rw {} + &&
    chown ":$gid" "$point" && chmod u+rwx,g+rwxs "$point"
} || fail CONTAINER_FAILED
echo owned=1
