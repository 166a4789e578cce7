# Mount points, as /proc/self/mountinfo names them.

. ./lib/numbers.sh

# A mount point as a path; the dot keeps a newline at the end.
unescape() { # POINT as mountinfo writes it; sets at
  at=$1
  case $at in *\\*)
    at=$(printf '%b.' "$at")
    at=${at%.}
    ;;
  esac
}

# Whether what the path leads to is on the disk. If not, something else is mounted on top, there or at a directory above it,
# and an umount would take that.
leads_to_disk() { # POINT; sets at
  unescape "$1"
  on=$(stat -c %d "$at" 2> /dev/null)
  case $files in *" ${on:-none} "*) ;; *) return 1 ;; esac
}
