# Unmounts what lies on a mapping and closes it; says who holds what stays.
# PCI SERIAL NAME FORCE(0|1) FORGET(0|1)

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/busy.sh
. ./lib/unmounting.sh
. ./lib/luks.sh

find_disk "$1" "$2"
lock_disk
force=$4 forget=$5
hold "/run/qshim-luks-$3.lock"
begin_luks "$3"
disk_numbers=$numbers

number_of() { # dm-N; adds to numbers what is under and on it
  if [ -n "$1" ]; then
    read -r part < "/sys/block/$1/dev"
    numbers="$numbers$part "
  fi
}

users() {
  own_mounts
  sub_mounts
  open_files
  other_mounts
  # What lies on the mapping; the mapping itself is no user of its disk.
  if [ -n "$mapped" ]; then
    name=$mapped dev=/dev/mapper/$mapping
    stacked
  fi
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
attempt "$force"
unmount_err=$err
close_mapping
if ! is_closed || [ -n "$points" ]; then
  who=$(users)
  # Whoever held it may have let go while it was looked for.
  if [ -z "$who" ]; then
    attempt "$force"
    close_mapping
  fi
fi
# By force: the mapping keeps its name until its last user is gone, but loses its key and lets go of the disk.
if [ "$force" = 1 ] && ! is_closed; then
  dmsetup remove --force "$mapping" > /dev/null 2>&1
  dmsetup remove "${mapping}_dif" > /dev/null 2>&1
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
echo "${who:-$(busy 0 mapping)}"
echo closed=0
