# Lets a mapping, and the file system that is mounted from it, fill a disk that has grown to SECTORS.
# PCI SERIAL NAME ephemeral|provided KEYBYTES SECTORS POINT(as mountinfo writes it; empty: it need not be mounted); the key on
# stdin

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/growing.sh
. ./lib/luks.sh

find_disk "$1" "$2"
lock_disk
await_size "$6"
hold "/run/qshim-luks-$3.lock"
begin_luks "$3"
find_mapping "$mapping"
[ -n "$top" ] || fail LUKS_NOT_OPEN "no mapping $mapping"
on_disk "$top" || fail LUKS_NAME_IN_USE "$mapping lies on another disk, or on none any more"
describe
case $table in *' integrity:'*) fail LUKS_RESIZE_UNSUPPORTED 'dm-integrity' ;; esac
read -r before < "/sys/block/$top/size"
find_offset
[ "$((disk_sectors - offset))" -ge "$before" ] || fail LUKS_DEVICE_TRUNCATED "it has $disk_sectors sectors of 512 bytes"
key_options "$4" "$5"
err=$(cryptsetup resize ${header:+"$header"} "$key_file" ${key_size:+"$key_size"} "$mapping" 2>&1 <&3)
code=$?
if [ "$code" = 2 ]; then fail LUKS_WRONG_KEY "$err"; fi
[ "$code" = 0 ] || fail LUKS_RESIZE_FAILED "$err"
read -r sectors < "/sys/block/$top/size"
# The size that the header remembers is only ever too small from now on, should this not succeed.
err=$(cryptsetup config --subsystem="qshim:$disk_sectors" "$header_at" 2>&1) || fail LUKS_RESIZE_FAILED "$err"
if [ -e "$store/sectors" ]; then echo "$disk_sectors" > "$store/sectors"; fi
read -r number < "/sys/block/$top/dev"
# The kernel speaks of the mapping.
name=$top
grow_fs "$number" "/dev/mapper/$mapping" "$7" ||
  fail LUKS_RESIZE_FAILED "the mapping has $sectors sectors now, but its file system did not grow: $err"
if [ -n "$7" ] && [ -z "$grown" ]; then
  fail VOLUME_NOT_MOUNTED "the mapping has $sectors sectors of 512 bytes now, and is not mounted at $7"
fi
echo "sectors=$sectors"
echo "grown=$grown"
