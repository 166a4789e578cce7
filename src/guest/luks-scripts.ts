import { AWAIT_SIZE, GROW_FS } from './resize-scripts.ts';
import { BUSY, FIND, LOCK, UNMOUNTING } from './scripts.ts';

/**
 * What runs in the guest for encrypted disks, besides opening them (luks-open-script.ts); like scripts.ts in everything.
 *
 * Keys. A provided key comes on standard input, as many copies one after the other as may be needed, since each
 * cryptsetup reads exactly its own (--keyfile-size). An ephemeral key is made here and lies, with the detached header,
 * on a ramfs, whose pages are never swapped; neither ever touches a disk.
 *
 * Rules. LUKS is written only to a disk that is provably empty. What could not be opened is never formatted. Whatever
 * fails after a mapping was made takes the mapping away again.
 */

/** Arguments 3 and on are the script's own. Sets $disk, the functions on mappings, and stdin aside as descriptor 3. */
export const MAPPINGS = `
exec 3<&0 < /dev/null
disk=$dev disk_name=$name
command -v cryptsetup > /dev/null && command -v dmsetup > /dev/null || fail GUEST_TOOL_MISSING 'cryptsetup and dmsetup'
read -r disk_sectors < "/sys/block/$name/size"
find_mapping() { # NAME; sets top, as dm-0
  top=
  for path in /sys/block/dm-*/dm/name; do
    each=
    # A mapping may go away while the list is read.
    { read -r each < "$path"; } 2> /dev/null
    if [ "$each" = "$1" ]; then top=\${path#/sys/block/} top=\${top%%/*}; fi
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
describe() { table=$(dmsetup table "$mapping" 2>&1); }
close_mapping() {
  err=
  find_mapping "$mapping"
  if [ -n "$top" ]; then err=$(cryptsetup close "$mapping" 2>&1); fi
  # Only when an earlier script was killed half-way is the lower device there without the upper.
  find_mapping "\${mapping}_dif"
  lower=$top
  find_mapping "$mapping"
  if [ -n "$lower" ] && [ -z "$top" ] && on_disk "$lower"; then err=$(dmsetup remove "\${mapping}_dif" 2>&1); fi
}
is_closed() {
  find_mapping "\${mapping}_dif"
  lower=$top
  find_mapping "$mapping"
  [ -z "$top$lower" ]
}
count_slots() { # HEADER
  cryptsetup luksDump "$1" 2> /dev/null | grep -cE '^  [0-9]+: luks2$'
}
`;

/** The place of an ephemeral mapping's key and header: $store, on a ramfs of its own. */
export const STORE = `
store=/run/qshim-luks/$mapping
has_store() { [ -s "$store/key" ] && [ -s "$store/header" ] && [ -s "$store/sectors" ]; }
make_store() {
  # No name has two stores on top of each other: the lock of the name is held.
  while read -r _ at type _; do
    if [ "$at" = "$store" ]; then
      [ "$type" = ramfs ] || fail LUKS_FORMAT_FAILED "$store is on $type"
      return
    fi
  done < /proc/self/mounts
  err=$(umask 077; mkdir -p "$store" && mount -t ramfs -o mode=0700,nosuid,nodev,noexec ramfs "$store" 2>&1) ||
    fail LUKS_FORMAT_FAILED "no ramfs for the key: $err"
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
`;

/** PCI SERIAL NAME FORCE(0|1) FORGET(0|1). */
export const CLOSE_LUKS2 = `${FIND}${LOCK}${BUSY}${UNMOUNTING}
mapping=$3 force=$4 forget=$5
hold "/run/qshim-luks-$mapping.lock"
${MAPPINGS}${STORE}
disk_numbers=$numbers
number_of() { # dm-N; adds to numbers what is under and on it
  if [ -n "$1" ]; then read -r part < "/sys/block/$1/dev"; numbers="$numbers$part "; fi
}
users() {
  own_mounts
  sub_mounts
  open_files
  other_mounts
  # What lies on the mapping; the mapping itself is no user of its disk.
  if [ -n "$mapped" ]; then name=$mapped dev=/dev/mapper/$mapping; stacked; fi
}
released() {
  for path in /sys/block/"$disk_name"/holders/*; do
    if [ -e "$path" ]; then return 1; fi
  done
}
is_closed
mapped=$top
if [ -n "$mapped" ]; then
  on_disk "$mapped" || fail LUKS_NAME_IN_USE "$mapping lies on another disk, or on none any more"
fi
number_of "$mapped"
number_of "$lower"
spell_numbers
who=
attempt
unmount_err=$err
close_mapping
if ! is_closed || [ -n "$points" ]; then
  who=$(users)
  # Whoever held it may have let go while it was looked for.
  if [ -z "$who" ]; then
    attempt
    close_mapping
  fi
fi
# By force: the mapping keeps its name until its last user is gone, but loses its key and lets go of the disk.
if [ "$force" = 1 ] && ! is_closed; then
  dmsetup remove --force "$mapping" > /dev/null 2>&1
  dmsetup remove "\${mapping}_dif" > /dev/null 2>&1
  dmsetup remove --deferred "$mapping" > /dev/null 2>&1
fi
if is_closed && released; then
  if [ "$forget" = 1 ]; then
    wipe_store
    umount "$store" 2> /dev/null
    ! has_store || fail LUKS_CLOSE_FAILED 'the key is still there'
  fi
  rmdir "$store" 2> /dev/null
  rm -f "/dev/mapper/$mapping"
  echo closed=1
  exit 0
fi
echo "$unmount_err $err" >&2
tell_left
if released; then echo released=1; else echo released=0; fi
if is_closed; then
  numbers=$disk_numbers name=$disk_name dev=$disk
  spell_numbers
  who=$(stacked)
fi
if [ -n "$top" ]; then echo open=1; else echo open=0; fi
echo "\${who:-$(busy 0 mapping)}"
echo closed=0
`;

/** PCI SERIAL NAME. */
export const STATUS_LUKS2 = `${FIND}
mapping=$3
${MAPPINGS}${STORE}
kept=0
if has_store; then kept=1; fi
echo "kept=$kept"
is_closed
if [ -n "$top" ]; then
  on_disk "$top" || fail LUKS_NAME_IN_USE "$mapping lies on another disk, or on none any more"
  describe
  case $table in *' crypt '*) ;; *) fail LUKS_STATUS_FAILED "the mapping is no encrypted one: $table" ;; esac
  read -r mapped_readonly < "/sys/block/$top/ro"
  header=$disk
  if [ "$kept" = 1 ]; then header=$store/header; fi
  echo "slots=$(count_slots "$header")"
  echo "luks_uuid=$(cryptsetup luksUUID "$header" 2> /dev/null)"
  echo "table=$table"
  echo "readonly=$mapped_readonly"
  echo "mapped=/dev/mapper/$mapping"
fi
echo "lower=$lower"
`;

/** PCI SERIAL NAME ephemeral|provided KEYBYTES SECTORS: the disk's, once it has grown. */
export const RESIZE_LUKS2 = `${FIND}${LOCK}${AWAIT_SIZE}${GROW_FS}
mapping=$3 source=$4 bytes=$5
await_size "$6"
hold "/run/qshim-luks-$mapping.lock"
${MAPPINGS}${STORE}
find_mapping "$mapping"
[ -n "$top" ] || fail LUKS_NOT_OPEN "no mapping $mapping"
on_disk "$top" || fail LUKS_NAME_IN_USE "$mapping lies on another disk, or on none any more"
describe
case $table in *' integrity:'*) fail LUKS_RESIZE_UNSUPPORTED 'dm-integrity' ;; esac
read -r before < "/sys/block/$top/size"
set -- $table
offset=$8
[ "$((disk_sectors - offset))" -ge "$before" ] || fail LUKS_DEVICE_TRUNCATED "it has $disk_sectors sectors of 512 bytes"
header_at=$disk header= key_from="--key-file=- --keyfile-size=$bytes"
if [ "$source" = ephemeral ]; then
  header_at=$store/header header="--header=$store/header" key_from="--key-file=$store/key"
fi
err=$(cryptsetup resize $header $key_from "$mapping" 2>&1 <&3)
code=$?
if [ "$code" = 2 ]; then fail LUKS_WRONG_KEY "$err"; fi
[ "$code" = 0 ] || fail LUKS_RESIZE_FAILED "$err"
read -r sectors < "/sys/block/$top/size"
# The size that the header remembers is only ever too small from now on, should this not succeed.
err=$(cryptsetup config --subsystem="qshim:$disk_sectors" "$header_at" 2>&1) || fail LUKS_RESIZE_FAILED "$err"
if [ -e "$store/sectors" ]; then echo "$disk_sectors" > "$store/sectors"; fi
read -r number < "/sys/block/$top/dev"
grow_fs "$number" "/dev/mapper/$mapping" ||
  fail LUKS_RESIZE_FAILED "the mapping has $sectors sectors now, but its file system did not grow: $err"
echo "sectors=$sectors"
echo "grown=$grown"
`;
