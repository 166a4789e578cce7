# Mounting, and before it formatting, of the device $dev, whose numbers are $number and whose directory in /sys/block is $name.

. ./lib/disk.sh
. ./lib/kernel.sh

# Not empty: the device holds only noise, and there is nothing to look for on it.
fresh=

# Whether an ext4 file system is checked before it is mounted: never, repair, full.
fsck=never

# From here on the device is this partition of the disk. The kernel has read the table before the disk could be opened.
find_partition() { # NUMBER
  partition=
  for path in /sys/block/"$name"/"$name"*; do
    each=
    if [ -e "$path/partition" ]; then read -r each < "$path/partition"; fi
    if [ "$each" = "$1" ]; then partition=${path##*/}; fi
  done
  [ -n "$partition" ] || fail GUEST_PARTITION_NOT_FOUND "/dev/$name has no partition $1"
  read -r number < "/sys/block/$name/$partition/dev"
  dev=/dev/$partition
  [ -b "$dev" ] || fail GUEST_PARTITION_NOT_FOUND "$dev is no block device"
}

# e2fsck(8): 0 is clean, 1 is mended, anything else is neither.
check_fs() {
  case $fsck in
    repair) set -- -p ;;
    full) set -- -p -f ;;
    *) return 0 ;;
  esac
  err=$(e2fsck "$@" "$dev" 2>&1 < /dev/null)
  code=$?
  case $code in
    0) echo checked=clean ;;
    1) echo checked=repaired ;;
    126 | 127) fail GUEST_TOOL_MISSING e2fsck ;;
    *) fail GUEST_FSCK_FAILED "e2fsck ended with $code: $err" ;;
  esac
}

# What is on top at the mount point: found (device number), root, state (options), type.
mounted() {
  found=
  while read -r _ _ device from at flags rest; do
    if [ "$at" = "$escaped" ]; then
      found=$device root=$from state=$flags type=${rest#*- }
      type=${type%% *}
    fi
  done < /proc/self/mountinfo
}

wanted() {
  case ,$state, in *,ro,*) is=ro ;; *) is=rw ;; esac
  case ,$options, in *,ro,*) want=ro ;; *) want=rw ;; esac
  [ "$found" = "$number" ] && [ "$root" = / ] && [ "$type" = "$fstype" ] && [ "$is" = "$want" ]
}

# What blkid says of the device: code (its exit code), known (not empty: it is util-linux's), kind, uuid, version, subsystem.
# shellcheck disable=SC2034 # what it sets is for the script
probe() {
  known='' kind='' uuid='' version='' subsystem=''
  out=$(blkid -p -o export "$dev" 2>&1)
  code=$?
  while IFS= read -r line; do
    case $line in
      DEVNAME=*) known=1 ;;
      TYPE=*) kind=${line#*=} ;;
      UUID=*) uuid=${line#*=} ;;
      VERSION=*) version=${line#*=} ;;
      SUBSYSTEM=*) subsystem=${line#*=} ;;
    esac
  done << END
$out
END
}

# All zero in the first and the last MiB, and up to 64 KiB more. cmp fails if it cannot read all of that.
ends_zero() {
  read -r sectors < "/sys/block/$name/size"
  size=$((sectors * 512)) head=1114112 skip=0
  if [ "$size" -lt 512 ]; then return 1; fi
  if [ "$head" -gt "$size" ]; then head=$size; fi
  if [ "$size" -gt 1048576 ]; then skip=$(((size - 1048576) / 65536)); fi
  cmp -n "$head" "$dev" /dev/zero > /dev/null 2>&1 || return 1
  dd if="$dev" bs=65536 skip="$skip" 2> /dev/null | cmp -n "$((size - skip * 65536))" - /dev/zero > /dev/null 2>&1
}

# How it is proven that a disk is empty: what the host has seen of it (zero, noise, data or look), the most bytes to read
# here, and for how long.
proof_by() { # EMPTINESS LOOKBYTES LOOKSECONDS
  emptiness=$1 look_bytes=$2 look_seconds=$3
}

# Reads BYTES, unless that is too much. Fails when it stays unknown. tr(1) passes zeroes over ten times as fast as cmp(1)
# compares them; dd(1) says how many blocks it has passed on, so that a read that broke off is no proof.
all_zero() { # DEVICE SKIP-BLOCKS-OF-4096 BYTES
  [ "$3" -le "$look_bytes" ] || fail GUEST_EMPTINESS_UNKNOWN "it has $3 bytes; at most $look_bytes are read"
  for tool in dd timeout tr head wc cmp; do
    command -v "$tool" > /dev/null 2>&1 || fail GUEST_TOOL_MISSING "$tool"
  done
  blocks=$(($3 / 4096)) rest=$(($3 % 4096))
  seen=$({ dd if="$1" bs=4096 skip="$2" count="$blocks" 2>&3 | timeout "$look_seconds" tr -d '\000' | head -c 1 | wc -c; } 3>&1 2> /dev/null)
  # The line of wc is how many of the first bytes that are not zero there were.
  if printf '%s\n' "$seen" | grep -q '^ *1$'; then return 1; fi
  printf '%s\n' "$seen" | grep -q "^$blocks+0 records out" ||
    fail GUEST_EMPTINESS_UNKNOWN "it was not read to its end within $look_seconds s"
  [ "$rest" = 0 ] || dd if="$1" bs=512 skip="$((($2 + blocks) * 8))" 2> /dev/null | cmp -n "$rest" - /dev/zero > /dev/null 2>&1
}

# Proves that nothing lies on the device. The ends come first: they tell soonest of what is not empty.
blank() {
  if [ "$emptiness" = data ]; then return 1; fi
  ends_zero || return 1
  [ "$emptiness" = zero ] || all_zero "$dev" 0 "$size"
}

format_device() { # [MKFS-OPTION ...]
  err=$("mkfs.$fstype" -q "$@" "$dev" 2>&1 > /dev/null < /dev/null)
  case $? in
    0) ;;
    126 | 127) fail GUEST_TOOL_MISSING "mkfs.$fstype" ;;
    *) fail GUEST_FORMAT_FAILED "$err" ;;
  esac
  probe
  { [ "$code" = 0 ] && [ "$kind" = "$fstype" ]; } || fail GUEST_FORMAT_FAILED "the disk has no $fstype afterwards"
}

make_if_allowed() { # [MKFS-OPTION ...]
  [ "$format" = if_empty ] || fail GUEST_NO_FILESYSTEM 'it is blank'
  format_device "$@"
  formatted=1
}

put() {
  err=$(mkdir -p "$point" 2>&1) || fail GUEST_MOUNT_FAILED "$err"
  real=$(cd "$point" && pwd -P)
  [ "$real" = "$point" ] || fail GUEST_MOUNT_FAILED "the mount point is really $real"
  kernel_begins
  err=$(mount -t "$fstype" -o "$options" "$dev" "$point" 2>&1) || {
    kernel_said "$name" "$fstype"
    fail GUEST_MOUNT_FAILED "$err
$reasons"
  }
  mounted
  wanted || fail GUEST_MOUNT_FAILED "mountinfo has device $found, $type, $state there afterwards"
}

# Sets formatted (0 or 1) and uuid. POINT comes a second time as mountinfo writes it; MKFS-OPTIONs are for a new file system.
# shellcheck disable=SC2034 # what it sets is for the script
prepare_mount() { # FSTYPE POINT ESCAPED-POINT OPTIONS never|if_empty [MKFS-OPTION ...]
  fstype=$1 point=$2 escaped=$3 options=$4 format=$5
  shift 5
  formatted=0
  mounted
  if [ -n "$found" ]; then
    wanted || fail GUEST_MOUNT_POINT_BUSY "$type of device $found is mounted there ($state)"
    probe
    return
  fi
  if [ -n "$fresh" ]; then
    make_if_allowed "$@"
    put
    return
  fi
  probe
  case $code in
    0)
      [ -n "$known" ] || fail GUEST_TOOL_MISSING 'blkid of util-linux (only another blkid is there)'
      [ -n "$kind" ] || fail GUEST_DISK_NOT_EMPTY 'it holds a partition table or the like'
      [ "$kind" = "$fstype" ] || fail GUEST_FS_MISMATCH "it holds $kind"
      check_fs
      ;;
    2)
      # Nothing is to be made: that it is empty need not be proven.
      if [ "$format" != if_empty ] && ends_zero; then fail GUEST_NO_FILESYSTEM 'blkid finds none'; fi
      blank || fail GUEST_DISK_NOT_EMPTY 'it holds no file system that blkid knows, and is not all zero'
      make_if_allowed "$@"
      ;;
    126 | 127) fail GUEST_TOOL_MISSING 'blkid of util-linux' ;;
    *) fail GUEST_DISK_NOT_EMPTY "what it holds is not clear (blkid ended with $code) $out" ;;
  esac
  put
}
