# Taking away what is mounted from any of $numbers. An attempt that fails may have taken some mounts away: what is still there
# is told from a look, not from it.

. ./lib/busy.sh

tell_left() {
  own_mounts
  set -f
  for at in $points; do echo "left=$at"; done
  set +f
}

# FORCE: lazily. Leaves points (what is still mounted) and err (why).
# shellcheck disable=SC2034 # what it sets is for the script
attempt() { # FORCE(0|1)
  lazy=
  if [ "$1" = 1 ]; then lazy=-l; fi
  own_mounts
  err=
  set -f
  for at in $points; do
    case $at in *\\*)
      # The dot keeps a newline at the end.
      at=$(printf '%b.' "$at")
      at=${at%.}
      ;;
    esac
    this=$(umount ${lazy:+"$lazy"} "$at" 2>&1) || err=$this
  done
  set +f
  own_mounts
}
