# Device numbers, as the kernel's files write them.

. ./lib/disk.sh

# Spells $numbers as stat and maps write them, for case patterns (files) and grep (mounts, maps). After each change of $numbers.
# shellcheck disable=SC2034 # what it sets is for the functions that look
spell_numbers() {
  files=' ' mounts='' halves=''
  for each in $numbers; do
    major=${each%:*} minor=${each#*:}
    files="$files$(((minor & 255) | (major << 8) | ((minor & ~255) << 12))) "
    mounts="$mounts${mounts:+|}$each"
    halves="$halves $major $minor"
  done
  # shellcheck disable=SC2086 # printf repeats its format for each two of them
  maps=$(printf '|%02x:%02x' $halves)
  maps=${maps#|}
}
