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

# Looks for the disk by its PCI address as sysfs writes it, and compares the serial before anybody touches the disk. Sets name
# (vda), dev (/dev/vda), number (its MAJOR:MINOR) and numbers (with those of its partitions, a blank around each); or, with
# exit code 1, reason and detail. That nothing is found where nothing is to be seen says nothing: the guest has PCI devices.
look_for_disk() { # PCI SERIAL
  name=
  for path in /sys/bus/pci/devices/*/vendor; do
    if [ -r "$path" ]; then break; fi
    reason=GUEST_PROBE_FAILED detail='the agent sees no PCI devices in /sys'
    return 1
  done
  for path in /sys/bus/pci/devices/"$1"/virtio*/block/*; do
    if [ -e "$path/dev" ]; then name=${path##*/}; fi
  done
  if [ -z "$name" ]; then
    reason=GUEST_DISK_NOT_FOUND detail="no virtio disk at $1"
    return 1
  fi
  serial=
  if [ -e "/sys/block/$name/serial" ]; then read -r serial < "/sys/block/$name/serial"; fi
  if [ "$serial" != "$2" ]; then
    reason=GUEST_DISK_MISMATCH detail="/dev/$name at $1 has the serial '$serial'"
    return 1
  fi
  read -r number < "/sys/block/$name/dev"
  numbers=" $number "
  for path in /sys/block/"$name"/"$name"*/dev; do
    if [ -e "$path" ]; then
      read -r part < "$path"
      numbers="$numbers$part "
    fi
  done
  dev=/dev/$name
}

# As look_for_disk. For what lets go of the disk: it may be mounted though its node is not there any more.
know_disk() { # PCI SERIAL
  look_for_disk "$1" "$2" || fail "$reason" "$detail"
}

# As look_for_disk, for what needs the disk's node.
find_disk() { # PCI SERIAL
  know_disk "$1" "$2"
  [ -b "$dev" ] || fail GUEST_DISK_NOT_FOUND "$dev is no block device"
  echo "device=$dev"
}

# For what is about to use the disk: the node is there a moment before it can be opened. Under the lock, as this waits while
# the kernel looks for partitions. Not for what lets go of a disk: a disk that cannot be opened may be mounted all the same.
expect_openable() {
  true 2> /dev/null < "$dev" || fail GUEST_DISK_NOT_FOUND "$dev cannot be opened"
}
