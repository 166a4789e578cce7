# Who uses the disk $dev, whose name in /sys/block is $name, and what else has one of $numbers: prints busy=PID WHAT COMMAND.
# Process 0 stands for the kernel.

. ./lib/disk.sh

busy() { # PID WHAT
  who=kernel
  if [ "$1" != 0 ]; then
    who=
    if [ -r "/proc/$1/comm" ]; then read -r who < "/proc/$1/comm"; fi
  fi
  echo "busy=$1 $2 $who"
}

# The numbers as stat and maps write them, for case patterns and grep. Before the functions below, and after each change of
# $numbers.
spell_numbers() {
  set -f
  files=' ' nodes=' ' maps='' mounts=''
  for each in $numbers; do
    major=${each%:*} minor=${each#*:}
    files="$files$(((minor & 255) | (major << 8) | ((minor & ~255) << 12))) "
    nodes="$nodes$(printf '%x:%x' "$major" "$minor") "
    maps="$maps${maps:+|}$(printf '%02x:%02x' "$major" "$minor")"
    mounts="$mounts${mounts:+|}$each"
  done
  set +f
}

own_mounts() { # sets points (newest first) and ids
  points='' ids=' '
  while read -r id _ device _ at _; do
    case $numbers in *" $device "*) points="$at $points" ids="$ids$id " ;; esac
  done < /proc/self/mountinfo
}

other_mounts() {
  grep -lE "^[0-9]+ [0-9]+ ($mounts) " /proc/[0-9]*/mountinfo 2> /dev/null | while read -r path; do
    other=${path#/proc/} other=${other%%/*}
    if [ "/proc/$other/ns/mnt" -ef /proc/self/ns/mnt ]; then continue; fi
    # grep lists itself too; a process that has ended holds nothing.
    if [ -e "/proc/$other/ns/mnt" ]; then busy "$other" mount-namespace; fi
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
        busy "$pid" "$what"
        continue
        ;;
      esac
      case $mode in 6*)
        case $nodes in *" $node "*) busy "$pid" "$what" ;; esac
        ;;
      esac
    done
  grep -lE "^[^ ]+ [^ ]+ [^ ]+ ($maps) " /proc/[0-9]*/maps 2> /dev/null | while read -r path; do
    pid=${path#/proc/}
    busy "${pid%%/*}" maps
  done
}

stacked() {
  for path in /sys/block/"$name"/holders/* /sys/block/"$name"/"$name"*/holders/*; do
    if [ -e "$path" ]; then busy 0 "holder:${path##*/}"; fi
  done
  while read -r path _; do
    case $path in "$dev" | "$dev"[0-9]*) busy 0 "swap:$path" ;; esac
  done < /proc/swaps
}
