# Mappings of encrypted disks.
#
# Keys. A provided key comes on standard input, as many copies one after the other as may be needed, since each cryptsetup
# reads exactly its own (--keyfile-size). An ephemeral key is made here and lies, with the detached header, on a ramfs, whose
# pages are never swapped; neither ever touches a disk.
#
# Rules. LUKS is written only to a disk that is provably empty. What could not be opened is never formatted. Whatever fails
# after a mapping was made takes the mapping away again.

. ./lib/disk.sh

# After find_disk, and under the mapping's lock if there is one. Sets mapping, disk and disk_name (which name and dev are, as long
# as no mapping takes their place), disk_sectors, store; and stdin aside as descriptor 3.
# shellcheck disable=SC2034 # what it sets is for the script
begin_luks() { # NAME
  exec 3<&0 < /dev/null
  mapping=$1 disk=$dev disk_name=$name
  { command -v cryptsetup && command -v dmsetup; } > /dev/null || fail GUEST_TOOL_MISSING 'cryptsetup and dmsetup'
  read -r disk_sectors < "/sys/block/$name/size"
  # The place of an ephemeral mapping's key and header, on a ramfs of its own.
  store=/run/qshim-luks/$mapping
}

find_mapping() { # NAME; sets top, as dm-0
  top=
  for path in /sys/block/dm-*/dm/name; do
    each=
    # A mapping may go away while the list is read.
    { read -r each < "$path"; } 2> /dev/null
    if [ "$each" = "$1" ]; then top=${path#/sys/block/} top=${top%%/*}; fi
  done
}

on_disk() { # dm-N: directly, or on the dm-integrity device below it
  if [ -e "/sys/block/$1/slaves/$disk_name" ]; then return 0; fi
  for path in /sys/block/"$1"/slaves/dm-*/slaves/"$disk_name"; do
    if [ -e "$path" ]; then return 0; fi
  done
  return 1
}

# The kernel's own description. Without --showkeys dmsetup shows no key.
describe() { # sets table
  table=$(dmsetup table "$mapping" 2>&1)
}

# Where the mapping begins on the disk (kernel: admin-guide/device-mapper/dm-crypt).
# shellcheck disable=SC2034 # what it sets is for the script
find_offset() { # sets offset, in sectors
  read -r _ _ _ _ _ _ _ offset _ << END
$table
END
}

close_mapping() {
  err=
  find_mapping "$mapping"
  if [ -n "$top" ]; then err=$(cryptsetup close "$mapping" 2>&1); fi
  # Only when an earlier script was killed half-way is the lower device there without the upper.
  find_mapping "${mapping}_dif"
  lower=$top
  find_mapping "$mapping"
  if [ -n "$lower" ] && [ -z "$top" ] && on_disk "$lower"; then err=$(dmsetup remove "${mapping}_dif" 2>&1); fi
}

is_closed() { # sets top and lower
  find_mapping "${mapping}_dif"
  lower=$top
  find_mapping "$mapping"
  [ -z "$top$lower" ]
}

count_slots() { # HEADER
  cryptsetup luksDump "$1" 2> /dev/null | grep -cE '^  [0-9]+: luks2$'
}

# How cryptsetup is told of the key, and of the header if that is not on the disk. Sets key_file, and key_size or header as
# words of a command line; header_at, where the header is.
# shellcheck disable=SC2034 # what it sets is for the script
key_options() { # ephemeral|provided KEYBYTES
  if [ "$1" = ephemeral ]; then
    key_file=--key-file=$store/key key_size='' header=--header=$store/header header_at=$store/header
  else
    key_file=--key-file=- key_size=--keyfile-size=$2 header='' header_at=$disk
  fi
}

has_store() { [ -s "$store/key" ] && [ -s "$store/header" ] && [ -s "$store/sectors" ]; }

make_store() {
  # No name has two stores on top of each other: the lock of the name is held.
  while read -r _ at type _; do
    if [ "$at" = "$store" ]; then
      [ "$type" = ramfs ] || fail LUKS_FORMAT_FAILED "$store is on $type"
      return
    fi
  done < /proc/self/mounts
  err=$(
    umask 077
    mkdir -p "$store" && mount -t ramfs -o mode=0700,nosuid,nodev,noexec ramfs "$store" 2>&1
  ) || fail LUKS_FORMAT_FAILED "no ramfs for the key: $err"
}

wipe_store() {
  for path in "$store"/key "$store"/header "$store"/sectors; do
    if ! [ -e "$path" ]; then continue; fi
    # In place: ramfs writes into the same pages.
    bytes_now=$(stat -c %s "$path")
    dd if=/dev/zero of="$path" bs="$bytes_now" count=1 conv=notrunc 2> /dev/null
    rm -f "$path"
  done
}
