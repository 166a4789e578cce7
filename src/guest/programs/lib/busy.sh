# Who uses the disk $dev, whose name in /sys/block is $name, and what else has one of $numbers: prints busy=PID WHAT COMMAND.
# Process 0 stands for the kernel.
#
# Of a hundred disks at once these must not take long: what is done for each disk or number starts no process.

. ./lib/disk.sh
. ./lib/numbers.sh

# shellcheck disable=SC2034 # the number is for a script that looks at several disks
busy() { # PID WHAT [NUMBER of the disk or partition]
  command_of "$1"
  echo "busy=$1 $2 $who"
}

command_of() { # PID; sets who
  who=kernel
  if [ "$1" != 0 ]; then
    who=
    if [ -r "/proc/$1/comm" ]; then read -r who < "/proc/$1/comm"; fi
  fi
}

# That a look which cannot be taken finds nothing would mean that nobody uses the disk. So it is tried on what is always there.
expect_sight() {
  { command -v grep && command -v xargs && command -v stat; } > /dev/null || fail GUEST_TOOL_MISSING 'grep, xargs and stat'
  if ! grep -HqE '^[0-9]+ [0-9]+ ' /proc/self/mountinfo 2> /dev/null ||
    [ -z "$(echo /proc/1/exe | xargs stat -L -c '%d %f %t:%T %n' 2> /dev/null)" ]; then
    fail GUEST_PROBE_FAILED 'the agent cannot see what others have mounted and open'
  fi
}

own_mounts() { # sets points (newest first) and ids
  points='' ids=' '
  while read -r id _ device _ at _; do
    case $numbers in *" $device "*) points="$at $points" ids="$ids$id " ;; esac
  done < /proc/self/mountinfo
}

other_mounts() {
  last=
  grep -HE "^[0-9]+ [0-9]+ ($mounts) " /proc/[0-9]*/mountinfo 2> /dev/null | while read -r path _ device _; do
    case $numbers in *" $device "*) ;; *) continue ;; esac
    other=${path#/proc/} other=${other%%/*}
    if [ "$last" = "$other $device" ] || [ "/proc/$other/ns/mnt" -ef /proc/self/ns/mnt ]; then continue; fi
    last="$other $device"
    # grep lists itself too; a process that has ended holds nothing.
    if [ -e "/proc/$other/ns/mnt" ]; then busy "$other" mount-namespace "$device"; fi
  done
}

# Mounts of other file systems on directories of this one. After own_mounts.
sub_mounts() {
  while read -r _ parent device _ at _; do
    case $ids in *" $parent "*)
      case $numbers in *" $device "*) ;; *) busy 0 "mount:$at" ;; esac
      ;;
    esac
  done < /proc/self/mountinfo
}

# Symbolic links of /proc, followed: files on the disk's file systems, and the disk itself when it is open as a device.
open_files() {
  printf '%s\n' /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe |
    xargs stat -L -c '%d %f %t:%T %n' 2> /dev/null |
    while read -r on mode node path; do
      pid=${path#/proc/} what=${path#/proc/*/} pid=${pid%%/*}
      case $files in *" $on "*)
        busy "$pid" "$what" "$(((on >> 8) & 4095)):$(((on & 255) | ((on >> 12) & ~255)))"
        continue
        ;;
      esac
      case $mode in 6*)
        node=$((0x${node%:*})):$((0x${node#*:}))
        case $numbers in *" $node "*) busy "$pid" "$what" "$node" ;; esac
        ;;
      esac
    done
  last=
  grep -HoE "^[^ ]+ [^ ]+ [^ ]+ ($maps) " /proc/[0-9]*/maps 2> /dev/null | while read -r path _ _ node; do
    mapper=${path#/proc/} mapper=${mapper%%/*}
    if [ "$last" = "$mapper $node" ]; then continue; fi
    last="$mapper $node"
    node=$((0x${node%:*})):$((0x${node#*:}))
    case $numbers in *" $node "*) busy "$mapper" maps "$node" ;; esac
  done
}

# What the kernel has made of the disk or of a partition: dm, md, bcache; swap; a loop device; a btrfs, whose mounts have
# numbers of their own; and, of a mounted ext4, the journal on another disk.
stacked() {
  for path in /sys/block/"$name"/holders/* /sys/block/"$name"/"$name"*/holders/*; do
    if [ -e "$path" ]; then busy 0 "holder:${path##*/}" "$number"; fi
  done
  while read -r path _; do
    case $path in "$dev" | "$dev"[0-9]*) busy 0 "swap:$path" "$number" ;; esac
  done < /proc/swaps
  for path in /sys/block/loop*/loop/backing_file; do
    under=
    { read -r under < "$path"; } 2> /dev/null
    path=${path#/sys/block/}
    case $under in "$dev" | "$dev"[0-9]*) busy 0 "holder:${path%%/*}" "$number" ;; esac
  done
  for path in /sys/fs/btrfs/*/devices/"$name" /sys/fs/btrfs/*/devices/"$name"[0-9]*; do
    if [ -e "$path" ]; then busy 0 "holder:btrfs" "$number"; fi
  done
}

# A file system that is mounted nowhere any more and still lives, as after umount -l: the kernel has its superblock. For a disk
# that nobody is known to use.
alive() {
  for path in /sys/fs/*/"$name" /sys/fs/*/"$name"[0-9]* /proc/fs/jbd2/"$name" /proc/fs/jbd2/"$name"[-0-9]*; do
    if [ -e "$path" ]; then
      path=${path%/*}
      busy 0 "superblock:${path##*/}" "$number"
    fi
  done
}
