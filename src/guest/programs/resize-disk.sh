# Waits until the guest has seen that a disk has grown, and lets the file system that is mounted from it fill it.
# PCI SERIAL SECTORS GROW(0|1)

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/growing.sh

find_disk "$1" "$2"
lock_disk
await_size "$3"
grown=
if [ "$4" = 1 ]; then
  grow_fs "$number" "$dev" || fail GUEST_RESIZE_FAILED "$err"
  [ -n "$grown" ] || fail VOLUME_NOT_MOUNTED "it has $disk_sectors sectors of 512 bytes now"
fi
echo "sectors=$disk_sectors"
echo "grown=$grown"
