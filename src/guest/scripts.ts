/**
 * What runs in the guest, through `sh -c SCRIPT sh ARGUMENT...`: plain POSIX sh, with busybox or the full tools. A
 * guest-exec costs 10 to 40 ms under TCG and so does each program, so one script does a whole operation and leaves to
 * the shell what the shell can do.
 *
 * Arguments are never pasted into the text. Output is lines `key=value`; `error=REASON` ends it, with the explanation
 * on stderr. Everything finds the disk by its PCI address and compares the serial before it touches the disk.
 */

/** Arguments 1 and 2 of every script: the PCI address as sysfs writes it, and the serial. Sets name, number, numbers. */
export const FIND = `
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
fail() { echo "error=$1"; echo "$2" >&2; exit 1; }
name=
for path in /sys/bus/pci/devices/"$1"/virtio*/block/*; do
  if [ -e "$path/dev" ]; then name=\${path##*/}; fi
done
[ -n "$name" ] || fail GUEST_DISK_NOT_FOUND "no virtio disk at $1"
serial=
if [ -e "/sys/block/$name/serial" ]; then read -r serial < "/sys/block/$name/serial"; fi
[ "$serial" = "$2" ] || fail GUEST_DISK_MISMATCH "/dev/$name at $1 has the serial '$serial'"
read -r number < "/sys/block/$name/dev"
numbers=" $number "
for path in /sys/block/"$name"/"$name"*/dev; do
  if [ -e "$path" ]; then read -r part < "$path"; numbers="$numbers$part "; fi
done
dev=/dev/$name
[ -b "$dev" ] || fail GUEST_DISK_NOT_FOUND "$dev is no block device"
echo "device=$dev"
`;

/**
 * One script at a time for each disk: what comes after a caller has given up waits until its mkfs or mount is over,
 * and then sees what came of it. A lock whose holder was killed is taken away under a second lock, so that nobody
 * takes away a fresh one. (busybox of Debian has no flock. A mkfs that outlives its killed shell has the disk open
 * exclusively, and a second mkfs fails.)
 */
export const LOCK = `
[ -w /run ] || fail GUEST_TOOL_MISSING 'a writable /run'
locks=
trap 'rm -f $locks' EXIT
hold() { # LOCK
  lock=$1
  until (set -C; echo $$ > "$lock") 2> /dev/null; do
    if mkdir "$lock.stale" 2> /dev/null; then
      holder=
      if [ -e "$lock" ]; then read -r holder < "$lock"; fi
      if [ -n "$holder" ] && ! [ -e "/proc/$holder" ]; then rm -f "$lock"; fi
      rmdir "$lock.stale"
    fi
    sleep 0.05
  done
  locks="$locks $lock"
}
hold "/run/qshim-$name.lock"
`;

/**
 * For what is about to use the disk: the node is there a moment before it can be opened. Under the lock, as this waits while the
 * kernel looks for partitions. Not for what lets go of a disk: a disk that cannot be opened may be mounted all the same.
 */
export const OPENABLE = `
true 2> /dev/null < "$dev" || fail GUEST_DISK_NOT_FOUND "$dev cannot be opened"
`;

/**
 * The function prepare_mount for $dev, whose numbers are $number and whose directory in /sys/block is $name: takes
 * $fstype, $point, $escaped (the same as in mountinfo), $options and $format. With $fresh set, $dev holds only noise.
 */
export const MOUNTING = `
mkfs_options= fresh=

# What is on top at the mount point: found (device number), root, state (options), type.
mounted() {
  found=
  while read -r _ _ device from at flags rest; do
    if [ "$at" = "$escaped" ]; then
      found=$device root=$from state=$flags type=\${rest#*- }
      type=\${type%% *}
    fi
  done < /proc/self/mountinfo
}
wanted() {
  case ,$state, in *,ro,*) is=ro ;; *) is=rw ;; esac
  case ,$options, in *,ro,*) want=ro ;; *) want=rw ;; esac
  [ "$found" = "$number" ] && [ "$root" = / ] && [ "$type" = "$fstype" ] && [ "$is" = "$want" ]
}
probe() {
  known= kind= uuid= version= subsystem=
  out=$(blkid -p -o export "$dev" 2>&1)
  code=$?
  while IFS= read -r line; do
    case $line in
      DEVNAME=*) known=1 ;;
      TYPE=*) kind=\${line#*=} ;;
      UUID=*) uuid=\${line#*=} ;;
      VERSION=*) version=\${line#*=} ;;
      SUBSYSTEM=*) subsystem=\${line#*=} ;;
    esac
  done <<END
$out
END
}
# All zero in the first and the last MiB, and up to 64 KiB more. cmp fails if it cannot read all of that.
blank() {
  read -r sectors < "/sys/block/$name/size"
  size=$((sectors * 512)) head=1114112 skip=0
  if [ "$size" -lt 512 ]; then return 1; fi
  if [ "$head" -gt "$size" ]; then head=$size; fi
  if [ "$size" -gt 1048576 ]; then skip=$(((size - 1048576) / 65536)); fi
  cmp -n "$head" "$dev" /dev/zero > /dev/null 2>&1 || return 1
  dd if="$dev" bs=65536 skip="$skip" 2> /dev/null | cmp -n "$((size - skip * 65536))" - /dev/zero > /dev/null 2>&1
}
format() {
  err=$("mkfs.$fstype" -q $mkfs_options "$dev" 2>&1 > /dev/null < /dev/null)
  case $? in
    0) ;;
    126 | 127) fail GUEST_TOOL_MISSING "mkfs.$fstype" ;;
    *) fail GUEST_FORMAT_FAILED "$err" ;;
  esac
  probe
  [ "$code" = 0 ] && [ "$kind" = "$fstype" ] || fail GUEST_FORMAT_FAILED "the disk has no $fstype afterwards"
}

put() {
  err=$(mkdir -p "$point" 2>&1) || fail GUEST_MOUNT_FAILED "$err"
  real=$(cd "$point" && pwd -P)
  [ "$real" = "$point" ] || fail GUEST_MOUNT_FAILED "the mount point is really $real"
  err=$(mount -t "$fstype" -o "$options" "$dev" "$point" 2>&1) || fail GUEST_MOUNT_FAILED "$err"
  mounted
  wanted || fail GUEST_MOUNT_FAILED "mountinfo has device $found, $type, $state there afterwards"
}
make_if_allowed() {
  [ "$format" = if_empty ] || fail GUEST_NO_FILESYSTEM 'it is blank'
  format
  formatted=1
}
prepare_mount() {
  formatted=0
  mounted
  if [ -n "$found" ]; then
    wanted || fail GUEST_MOUNT_POINT_BUSY "$type of device $found is mounted there ($state)"
    probe
    return
  fi
  if [ -n "$fresh" ]; then
    make_if_allowed
    put
    return
  fi
  probe
  case $code in
    0)
      [ -n "$known" ] || fail GUEST_TOOL_MISSING 'blkid of util-linux (only another blkid is there)'
      [ -n "$kind" ] || fail GUEST_DISK_NOT_EMPTY 'it holds a partition table or the like'
      [ "$kind" = "$fstype" ] || fail GUEST_FS_MISMATCH "it holds $kind"
      ;;
    2)
      blank || fail GUEST_DISK_NOT_EMPTY 'it holds no file system that blkid knows, and is not all zero'
      make_if_allowed
      ;;
    126 | 127) fail GUEST_TOOL_MISSING 'blkid of util-linux' ;;
    *) fail GUEST_DISK_NOT_EMPTY "what it holds is not clear (blkid ended with $code) $out" ;;
  esac
  put
}
`;

/** PCI SERIAL FSTYPE POINT POINT-AS-IN-MOUNTINFO OPTIONS never|if_empty UNWRITTEN(0|1). */
export const PREPARE_MOUNT = `${FIND}${LOCK}${OPENABLE}${MOUNTING}
fstype=$3 point=$4 escaped=$5 options=$6 format=$7
# Below the host's encryption nothing is zero; who sees the bytes below has seen that nobody ever wrote.
if [ "$8" = 1 ]; then blank() { :; }; fi
prepare_mount
echo "formatted=$formatted"
echo "uuid=$uuid"
`;

/** Who uses the disk; prints `busy=PID WHAT COMMAND`. Process 0 stands for the kernel. */
export const BUSY = `
busy() { # PID WHAT
  who=kernel
  if [ "$1" != 0 ]; then who=; if [ -r "/proc/$1/comm" ]; then read -r who < "/proc/$1/comm"; fi; fi
  echo "busy=$1 $2 $who"
}
spell_numbers() {
  set -f
  # The numbers as stat and maps write them, for case patterns and grep.
  files=' ' nodes=' ' maps= mounts=
  for each in $numbers; do
    major=\${each%:*} minor=\${each#*:}
    files="$files$(((minor & 255) | (major << 8) | ((minor & ~255) << 12))) "
    nodes="$nodes$(printf '%x:%x' "$major" "$minor") "
    maps="$maps\${maps:+|}$(printf '%02x:%02x' "$major" "$minor")"
    mounts="$mounts\${mounts:+|}$each"
  done
  set +f
}
spell_numbers
own_mounts() { # sets points (newest first) and ids
  points= ids=' '
  while read -r id _ device _ at _; do
    case $numbers in *" $device "*) points="$at $points" ids="$ids$id " ;; esac
  done < /proc/self/mountinfo
}
other_mounts() {
  for path in $(grep -lE "^[0-9]+ [0-9]+ ($mounts) " /proc/[0-9]*/mountinfo 2> /dev/null); do
    pid=\${path#/proc/} pid=\${pid%%/*}
    if [ "/proc/$pid/ns/mnt" -ef /proc/self/ns/mnt ]; then continue; fi
    # grep lists itself too; a process that has ended holds nothing.
    if [ -e "/proc/$pid/ns/mnt" ]; then busy "$pid" mount-namespace; fi
  done
}
# Mounts of other file systems on directories of this one.
sub_mounts() {
  while read -r _ parent device _ at _; do
    case $ids in *" $parent "*) case $numbers in *" $device "*) ;; *) busy 0 "mount:$at" ;; esac ;; esac
  done < /proc/self/mountinfo
}
# Symbolic links of /proc, followed: files on the disk's file systems, and the disk itself when it is open as a device.
open_files() {
  printf '%s\\n' /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe |
    xargs stat -L -c '%d %f %t:%T %n' 2> /dev/null |
    while read -r on mode node path; do
      pid=\${path#/proc/} what=\${path#/proc/*/} pid=\${pid%%/*}
      case $files in *" $on "*) busy "$pid" "$what"; continue ;; esac
      case $mode in 6*) case $nodes in *" $node "*) busy "$pid" "$what" ;; esac ;; esac
    done
  for path in $(grep -lE "^[^ ]+ [^ ]+ [^ ]+ ($maps) " /proc/[0-9]*/maps 2> /dev/null); do
    pid=\${path#/proc/}
    busy "\${pid%%/*}" maps
  done
}
stacked() {
  for path in /sys/block/"$name"/holders/* /sys/block/"$name"/"$name"*/holders/*; do
    if [ -e "$path" ]; then busy 0 "holder:\${path##*/}"; fi
  done
  while read -r path _; do
    case $path in "$dev" | "$dev"[0-9]*) busy 0 "swap:$path" ;; esac
  done < /proc/swaps
}
`;

/**
 * The functions attempt, which takes away what lies on $numbers, with $force lazily, and leaves $points and $err; and
 * tell_left. An attempt that fails may have taken some mounts away: what is still there is told from a look, not from it.
 */
export const UNMOUNTING = `
tell_left() {
  own_mounts
  set -f
  for at in $points; do echo "left=$at"; done
  set +f
}
attempt() {
  flags=
  if [ "$force" = 1 ]; then flags=-l; fi
  own_mounts
  err=
  set -f
  for at in $points; do
    case $at in *\\\\*) at=$(printf '%b.' "$at"); at=\${at%.} ;; esac
    this=$(umount $flags "$at" 2>&1) || err=$this
  done
  set +f
  own_mounts
}
`;

/** PCI SERIAL FORCE(0|1). */
export const UNMOUNT = `${FIND}${LOCK}${BUSY}${UNMOUNTING}
force=$3
attempt
if [ "$force" = 1 ]; then
  [ -z "$points" ] || fail GUEST_UNMOUNT_FAILED "$err"
  echo unmounted=1
  exit 0
fi
who=
if [ -n "$points" ]; then
  who=$(sub_mounts; open_files; other_mounts)
  # Whoever held it may have let go while it was looked for.
  if [ -z "$who" ]; then attempt; fi
  if [ -n "$points" ] && [ -z "$who" ]; then who="$(busy 0 mount)"; fi
fi
if [ -z "$points" ]; then who=$(other_mounts; stacked); fi
if [ -z "$who" ]; then
  echo unmounted=1
else
  echo "$err" >&2
  echo "$who"
  tell_left
  echo unmounted=0
fi
`;

/** PCI SERIAL. */
export const HOLDERS = `${FIND}${BUSY}
own_mounts
set -f
for at in $points; do busy 0 "mount:$at"; done
set +f
other_mounts
stacked
open_files
`;
