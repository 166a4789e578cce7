# What follows when a disk has grown below the guest.

. ./lib/disk.sh
. ./lib/kernel.sh
. ./lib/mount-points.sh

# Waits until the kernel has taken note: the change comes by interrupt, some time after QEMU has said that it is done.
await_size() { # SECTORS; sets disk_sectors
  tries=0
  read -r disk_sectors < "/sys/block/$name/size"
  while [ "$disk_sectors" -lt "$1" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 400 ] || fail GUEST_SIZE_NOT_SEEN "it has $disk_sectors sectors of 512 bytes, not $1"
    sleep 0.05
    read -r disk_sectors < "/sys/block/$name/size"
  done
}

# Adds to err what the kernel said.
not_grown() {
  kernel_said "$name" "$grown"
  err="$err
$reasons"
  return 1
}

# Lets the file system that is mounted from a device, at a point or (with none) wherever, fill it. Sets grown to its type, or
# to nothing; fails with err.
# shellcheck disable=SC2034 # what it sets is for the script
grow_fs() { # NUMBER DEVICE POINT as mountinfo writes it
  grown=
  numbers=" $1 "
  spell_numbers
  while read -r _ _ device _ point _ rest; do
    if [ "$device" != "$1" ] || [ -n "$grown" ]; then continue; fi
    if [ -n "$3" ] && [ "$point" != "$3" ]; then continue; fi
    grown=${rest#*- } grown=${grown%% *}
    kernel_begins
    case $grown in
      ext4) err=$(resize2fs "$2" 2>&1 < /dev/null) || not_grown || return 1 ;;
      xfs)
        err="something else is mounted over $point"
        leads_to_disk "$point" || return 1
        err=$(xfs_growfs "$at" 2>&1 < /dev/null) || not_grown || return 1
        ;;
      *)
        err="no way to grow $grown"
        return 1
        ;;
    esac
  done < /proc/self/mountinfo
}
