# Waits until the guest has seen that a disk has grown, and lets the file system that is mounted from it at POINT fill it; with
# an empty POINT, none is to.
# PCI SERIAL SECTORS POINT(as mountinfo writes it)

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/growing.sh

find_disk "$1" "$2"
lock_disk
await_size "$3"
grown=
if [ -n "$4" ]; then
  grow_fs "$number" "$dev" "$4" || fail GUEST_RESIZE_FAILED "$err"
  [ -n "$grown" ] || fail VOLUME_NOT_MOUNTED "it has $disk_sectors sectors of 512 bytes now, and is not mounted at $4"
fi
echo "sectors=$disk_sectors"
echo "grown=$grown"
