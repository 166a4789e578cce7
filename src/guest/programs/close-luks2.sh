# Unmounts what lies on a mapping and closes it; says who holds what stays.
# PCI SERIAL NAME FORCE(0|1) FORGET(0|1)

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/busy.sh
. ./lib/unmounting.sh
. ./lib/luks.sh

know_disk "$1" "$2"
lock_disk
force=$4 forget=$5
if [ "$force" = 0 ]; then expect_sight; fi
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

# Who uses the disk itself, once the mapping is closed.
users_below() {
  own_mounts
  set -f
  for at in $points; do busy 0 "mount:$at"; done
  set +f
  other_mounts
  stacked
  open_files
}

is_closed
mapped=$top
if [ -n "$mapped" ]; then
  on_disk "$mapped" || fail LUKS_NAME_IN_USE "$mapping lies on another disk, or on none any more"
fi
number_of "$mapped"
number_of "$lower"
spell_numbers
attempt "$force"
who='' unmount_err=$err
if [ "$force" = 0 ]; then who=$(tell_covers); fi
if [ -z "$who" ]; then close_mapping; fi
if [ -z "$who" ] && { ! is_closed || [ -n "$points" ]; }; then
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
if is_closed; then
  numbers=$disk_numbers name=$disk_name dev=$disk
  spell_numbers
  who=$(users_below)
  if [ -n "$who" ]; then
    # Whoever looks at a disk that was just closed (udev does) lets go of it by itself.
    sleep 0.5
    who=$(users_below)
  fi
fi
if is_closed && released && { [ -z "$who" ] || [ "$force" = 1 ]; }; then
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
if [ -n "$top" ]; then echo open=1; else echo open=0; fi
echo "${who:-$(busy 0 mapping)}"
echo closed=0
