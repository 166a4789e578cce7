# Device numbers, as the kernel's files write them.

. ./lib/disk.sh

# Spells $numbers as stat and maps write them: files for case patterns; mounts and maps for grep, which find all that has one of
# the numbers. Of many numbers they find all that has one of their majors: grep takes very long to look for a hundred words. Who
# reads what grep has found compares it with $numbers. After each change of $numbers.
# shellcheck disable=SC2034 # what it sets is for the functions that look
spell_numbers() {
  files=' ' mounts='' halves='' majors=' ' count=0
  for each in $numbers; do
    major=${each%:*} minor=${each#*:}
    files="$files$(((minor & 255) | (major << 8) | ((minor & ~255) << 12))) "
    mounts="$mounts${mounts:+|}$each"
    halves="$halves $major $minor"
    count=$((count + 1))
    case $majors in *" $major "*) ;; *) majors="$majors$major " ;; esac
  done
  # printf repeats its format for each two, or each one, of them.
  if [ "$count" -le 16 ]; then
    # shellcheck disable=SC2086
    maps=$(printf '|%02x:%02x' $halves)
  else
    # shellcheck disable=SC2086
    mounts=$(printf '|%s:[0-9]+' $majors) maps=$(printf '|%02x:[0-9a-f]+' $majors)
    mounts=${mounts#|}
  fi
  maps=${maps#|}
}
