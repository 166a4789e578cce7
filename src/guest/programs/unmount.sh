# Unmounts every mount of a disk and of its partitions; says who holds those that stay, or the disk.
# PCI SERIAL FORCE(0|1)

. ./lib/disk.sh
. ./lib/lock.sh
. ./lib/busy.sh
. ./lib/unmounting.sh

know_disk "$1" "$2"
lock_disk
spell_numbers
force=$3
if [ "$force" = 0 ]; then expect_sight; fi

users() {
  other_mounts
  stacked
  open_files
}

attempt "$force"
if [ "$force" = 1 ]; then
  [ -z "$points" ] || fail GUEST_UNMOUNT_FAILED "$err"
  echo unmounted=1
  exit 0
fi
who=$(tell_covers)
if [ -n "$points" ] && [ -z "$who" ]; then
  who=$(
    sub_mounts
    open_files
    other_mounts
  )
  # Whoever held it may have let go while it was looked for.
  if [ -z "$who" ]; then attempt "$force"; fi
  if [ -n "$points" ] && [ -z "$who" ]; then who="$(busy 0 mount)"; fi
fi
if [ -z "$points" ]; then
  who=$(users)
  if [ -n "$who" ]; then
    # Whoever looks at a disk that was just closed (udev does) lets go of it by itself.
    sleep 0.5
    who=$(users)
  fi
  who=${who:-$(alive)}
fi
if [ -z "$who" ]; then
  echo unmounted=1
else
  echo "$err" >&2
  echo "$who"
  tell_left
  echo unmounted=0
fi
