# Taking away what is mounted from any of $numbers. An attempt that fails may have taken some mounts away: what is still there
# is told from a look, not from it.

. ./lib/busy.sh
. ./lib/mount-points.sh

tell_left() {
  own_mounts
  set -f
  for at in $points; do echo "left=$at"; done
  set +f
}

# After own_mounts. Sets covers, the points of the disk that other mounts cover.
covered() {
  covers=
  set -f
  for point in $points; do
    leads_to_disk "$point" || covers="$covers $point"
  done
  set +f
}

tell_covers() {
  set -f
  for point in $covers; do busy 0 "mount:$point"; done
  set +f
}

# FORCE: lazily, and past what is covered; without it, what is covered leaves all as it is. Leaves points (what is still
# mounted), covers and err (why).
# shellcheck disable=SC2034 # what it sets is for the script
attempt() { # FORCE(0|1)
  lazy='' err=''
  if [ "$1" = 1 ]; then lazy=-l; fi
  own_mounts
  covered
  if [ -n "$covers" ]; then
    err="something else is mounted over$covers"
    if [ "$1" = 0 ]; then return; fi
  fi
  set -f
  for point in $points; do
    # Looked at again for each: the one before may have been on top of it.
    if leads_to_disk "$point"; then this=$(umount ${lazy:+"$lazy"} "$at" 2>&1) || err=$this; fi
  done
  set +f
  own_mounts
}
