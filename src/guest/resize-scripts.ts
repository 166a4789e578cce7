import { FIND, LOCK } from './scripts.ts';

/** What runs in the guest when a disk has grown below it; like scripts.ts in everything. */

/** Waits until the kernel has taken note: the change comes by interrupt, some time after QEMU has said that it is done. */
export const AWAIT_SIZE = `
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
`;

/** Lets the file system that is mounted from a device fill it. */
export const GROW_FS = `
grow_fs() { # NUMBER DEVICE; sets grown to the type of the file system, or to nothing; fails with err
  grown=
  while read -r _ _ device _ at flags rest; do
    if [ "$device" != "$1" ] || [ -n "$grown" ]; then continue; fi
    grown=\${rest#*- } grown=\${grown%% *}
    case $at in *\\\\*) at=$(printf '%b.' "$at"); at=\${at%.} ;; esac
    case $grown in
      ext4) err=$(resize2fs "$2" 2>&1 < /dev/null) || return 1 ;;
      xfs) err=$(xfs_growfs "$at" 2>&1 < /dev/null) || return 1 ;;
      *) err="no way to grow $grown"; return 1 ;;
    esac
  done < /proc/self/mountinfo
}
`;

/** PCI SERIAL SECTORS GROW(0|1). */
export const RESIZE_DISK = `${FIND}${LOCK}${AWAIT_SIZE}${GROW_FS}
await_size "$3"
grown=
if [ "$4" = 1 ]; then grow_fs "$number" "$dev" || fail GUEST_RESIZE_FAILED "$err"; fi
echo "sectors=$disk_sectors"
echo "grown=$grown"
`;
