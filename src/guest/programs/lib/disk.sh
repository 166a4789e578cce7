# The disk that a script works on. Every script of a disk begins with this.
#
# Output is lines key=value; error=REASON ends it, with the explanation on stderr.

PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL

fail() { # REASON DETAIL
  echo "error=$1"
  echo "$2" >&2
  exit 1
}

# Finds the disk by its PCI address as sysfs writes it, and compares the serial before anybody touches the disk. Sets name
# (vda), dev (/dev/vda), number (its MAJOR:MINOR) and numbers (with those of its partitions, a blank around each).
find_disk() { # PCI SERIAL
  name=
  for path in /sys/bus/pci/devices/"$1"/virtio*/block/*; do
    if [ -e "$path/dev" ]; then name=${path##*/}; fi
  done
  [ -n "$name" ] || fail GUEST_DISK_NOT_FOUND "no virtio disk at $1"
  serial=
  if [ -e "/sys/block/$name/serial" ]; then read -r serial < "/sys/block/$name/serial"; fi
  [ "$serial" = "$2" ] || fail GUEST_DISK_MISMATCH "/dev/$name at $1 has the serial '$serial'"
  read -r number < "/sys/block/$name/dev"
  numbers=" $number "
  for path in /sys/block/"$name"/"$name"*/dev; do
    if [ -e "$path" ]; then
      read -r part < "$path"
      numbers="$numbers$part "
    fi
  done
  dev=/dev/$name
  [ -b "$dev" ] || fail GUEST_DISK_NOT_FOUND "$dev is no block device"
  echo "device=$dev"
}

# For what is about to use the disk: the node is there a moment before it can be opened. Under the lock, as this waits while
# the kernel looks for partitions. Not for what lets go of a disk: a disk that cannot be opened may be mounted all the same.
expect_openable() {
  true 2> /dev/null < "$dev" || fail GUEST_DISK_NOT_FOUND "$dev cannot be opened"
}
